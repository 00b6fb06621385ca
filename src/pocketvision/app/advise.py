"""`pocketvision advise`: what training will do with these images here, and why; or what went wrong in a run."""

import tempfile
import textwrap
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from ..data.sources import Dataset
from ..errors import ConfigurationError, DataError
from ..measuring.machine import this_machine
from ..nn.model import build
from ..spec.model import ModelSpec
from ..spec.transform import with_classes, with_size
from ..tasks.classification import Classification
from ..training.checkpoint import ARGS, STATE, load_model
from ..training.diagnose import Remedy
from ..training.events import Event, Started, Step
from ..training.loop import fit
from ..training.recipe import Recipe
from ..zoo import MODELS, model_spec
from ..zoo.catalogue import same_weights
from ..zoo.weights import available
from .build import Budget, choose_for
from .checked import open_checked
from .choose import SMALL_IMAGE, Option, sample
from .expect import Expectation, expect
from .explain import Line, explained
from .options import TrainOptions
from .progress import tell
from .ranges import warnings
from .remedies import diagnose_run, read_rows, read_run

TIMED_STEPS, TIMED_S = 10, 8.0
EVALUATION = 1 / 3  # of a training step's time, for as many images
WIDTH = 100
LEGEND = "S2: a no-code platform's guide to MobileNetV3-Small, quoted even where our values differ (docs/advisor.md)"


@dataclass(frozen=True, slots=True)
class Advice:
    """What is recommended for a data set. ``facts``: images, classes and machine; ``expected``: None where no curve can
    be measured, and ``expected_note`` says why; ``command``: what to run."""

    facts: str
    lines: tuple[Line, ...]
    expected: Expectation | None
    expected_note: str
    warnings: tuple[str, ...]
    command: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "facts": self.facts,
            "advice": [asdict(line) for line in self.lines],
            "expected": self.expected.to_dict() if self.expected else None,
            "expected_note": self.expected_note,
            "warnings": list(self.warnings),
            "command": self.command,
        }

    def __str__(self) -> str:
        text = [self.facts, ""]
        for line in self.lines:
            text += [f"{line.what:13} {line.value}", _wrapped(f"{line.why} [{line.source}]")]
        text += ["", *([str(self.expected)] if self.expected else []), _wrapped(self.expected_note, 0)]
        text += ["", *(f"warning: {warning}" for warning in self.warnings)] if self.warnings else []
        return "\n".join([*text, "", LEGEND, f"next: {self.command}"])


@dataclass(frozen=True, slots=True)
class RunAdvice:
    """What went wrong in a run; ``expected`` as in ``Advice``."""

    run: Path
    remedies: tuple[Remedy, ...]
    expected: Expectation | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "remedies": [remedy.to_dict() for remedy in self.remedies],
            "expected": self.expected.to_dict() if self.expected else None,
        }

    def __str__(self) -> str:
        found = [_wrapped(str(remedy), 0) for remedy in self.remedies] or [
            f"{self.run}: a healthy run, nothing to mend"
        ]
        return "\n".join([*found, *([str(self.expected)] if self.expected else [])])


def advise(
    data: str | Path,
    *,
    max_ms: float | None = None,
    max_mb: float | None = None,
    runtime: str = "onnxruntime",
    threads: int = 1,
    model: str | None = None,
    options: TrainOptions = TrainOptions(),
) -> Advice | RunAdvice:
    """What ``build`` would do with a data set, each value with its reason and source; or what went wrong in a run.

    ``data``: as ``build`` takes it, with the same arguments, or a run folder, of which all else is known. Raises what
    ``build`` raises before it trains.
    """
    if (Path(data) / ARGS).is_file():
        return advise_run(Path(data))
    options.check()
    if model is not None:
        model_spec(model)
    dataset, _ = open_checked(data, seed=options.run_seed, allow_leak=True)  # said, but nothing is trained yet
    if dataset.task != "classify":
        raise DataError(f"{dataset.name} is to {dataset.task}; advice is for classification so far: use train or build")
    budget = Budget(max_ms, max_mb, None, runtime, threads)
    chosen, considered, weights = choose_for(dataset, budget, options, model)
    images, classes, tuned = len(dataset.train), len(dataset.classes), weights != "none"
    recipe = options.recipe_for(images, classes, pretrained=tuned)
    tell("timing some steps of training")
    seconds = timed(chosen, recipe, dataset)
    expected, note = _expected(chosen, weights, dataset)
    compared = len([option for option in considered if option.accuracy is not None])
    lines = explained(chosen, compared, weights, recipe, images, seconds, expected)
    own = replace(options, recipe="auto", settings=()).recipe_for(images, classes, pretrained=tuned)
    command = _command(data, chosen, options, budget, _settings(options, recipe, own))
    outside = warnings(options, recipe, images, classes, pretrained=tuned)
    return Advice(_facts(dataset), lines, expected, note, outside, command)


def advise_run(run: Path) -> RunAdvice:
    """Read a run's curves. Raises ConfigurationError for a folder that is no run, or one without a finished epoch."""
    _, dataset = read_run(run)
    if not read_rows(run):
        fix = f"go on with `pocketvision train --resume {run}`" if (run / STATE).exists() else "start a new run"
        raise ConfigurationError(f"{run}: no epoch is finished, so nothing can be said of it; {fix}")
    if dataset.task != "classify":
        raise ConfigurationError(f"{run} is a run to {dataset.task}; so far only classifiers' runs can be read")
    expected = None
    try:
        expected = expect(*_start(load_model(run).spec, dataset.classes), dataset.train, len(dataset.val))
    except DataError as error:
        tell(f"no expectation: {error}")
    return RunAdvice(run, diagnose_run(run, expected=expected), expected)


def _start(spec: ModelSpec, classes: tuple[str, ...]) -> tuple[ModelSpec, str]:
    """The network and weights whose features a run is compared with: ImageNet's where they are of this very network
    and it sees photos, else none."""
    name, size = spec.backbone.name, spec.preprocessing.size
    entry = available(model_spec(name)) if name in MODELS and size > SMALL_IMAGE else None
    if entry is None or not same_weights(entry.spec(), spec):
        return spec, "none"
    return with_classes(with_size(entry.spec(), size, ratio=1.0), classes), "imagenet"


def timed(option: Option, recipe: Recipe, dataset: Dataset) -> float:
    """Seconds that the whole training will take here, from its first steps on some of the images."""
    few = replace(dataset, train=tuple(sample(dataset.train, TIMED_STEPS * recipe.batch)), val=())
    short = replace(recipe, epochs=2, time_limit_s=None, patience=0, average_best=0, save_every_s=1e9)
    speeds = list[float]()
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        model, run = build(with_classes(option.spec, dataset.classes)), Path(folder) / "run"
        events = cast("Generator[Event]", fit(model, Classification(), few, short, run))
        for event in events:
            if isinstance(event, Started):
                start = time.monotonic()
            if isinstance(event, Step):
                speeds.append(event.images_per_s)
                if time.monotonic() - start > TIMED_S and len(speeds) > 1:
                    break
        events.close()
    speed = sorted(speeds)[len(speeds) // 2]
    estimate = recipe.epochs * (len(dataset.train) + EVALUATION * len(dataset.val)) / speed
    return min(estimate, recipe.time_limit_s or estimate)


def _expected(chosen: Option, weights: str, dataset: Dataset) -> tuple[Expectation | None, str]:
    """The band, and what it does not say."""
    tell("measuring a learning curve")
    try:
        expected = expect(chosen.spec, weights, dataset.train, len(dataset.val))
    except DataError as error:
        return None, f"No accuracy can be promised: {error}."
    if weights == "none":
        return expected, (
            "From scratch the network learns its own features, which no quick measurement foretells: this classical "
            "classifier is what it has to beat, and an alternative to it."
        )
    return expected, (
        "Fine-tuning the whole network is another matter: it ended 3 points below on 500 enlarged pictures of "
        "CIFAR-10, 4 above on 2,000, one run each (docs/advisor.md)."
    )


def _facts(dataset: Dataset) -> str:
    import torch

    here = this_machine()
    memory = f", {here.memory_mb / 1024:.0f} GB of memory" if here.memory_mb else ""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return (
        f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.val):,} validation images, "
        f"{len(dataset.classes)} classes; {here.cores} cores{memory}, {gpu}"
    )


def _command(data: str | Path, chosen: Option, options: TrainOptions, budget: Budget, settings: Sequence[str]) -> str:
    """The build that was explained; the network is named, so that nothing is chosen again."""
    import shlex

    words = ["pocketvision", "build", str(data), "--model", chosen.name, "--imgsz", str(chosen.spec.preprocessing.size)]
    given = {"--max-ms": budget.max_ms, "--max-mb": budget.max_mb, "--epochs": options.epochs, "--batch": options.batch}
    given |= {"--time": options.minutes, "--workers": options.workers, "--seed": options.seed}
    named = {"--weights": options.weights, "--runtime": budget.runtime, "--threads": budget.threads}
    named["--recipe"] = "auto" if isinstance(options.recipe, Recipe) else options.recipe
    given |= {flag: None if value in ("auto", "onnxruntime", 1) else value for flag, value in named.items()}
    for flag, value in given.items():
        words += [flag, f"{value:g}" if isinstance(value, float) else str(value)] if value is not None else []
    words += [word for setting in settings for word in ("--set", setting)]
    return shlex.join(words + [word for teacher in options.teachers for word in ("--teacher", str(teacher))])


def _settings(options: TrainOptions, recipe: Recipe, own: Recipe) -> list[str]:
    """--set words for what ``build`` has no options for; of a Recipe object, which has no name, all that is not as
    in ``own``."""
    if not isinstance(options.recipe, Recipe):
        extra = {name: getattr(options, name) for name in ("lr", "patience", "device")}
        return [*options.settings, *(f"{k}={_yaml(v)}" for k, v in extra.items() if v not in (None, "auto"))]
    data, usual = recipe.to_dict(), own.to_dict()
    data, usual = ({**d, **{f"augment.{k}": v for k, v in d.pop("augment").items()}} for d in (data, usual))
    return [f"{name}={_yaml(value)}" for name, value in data.items() if value != usual[name]]


def _yaml(value: object) -> str:
    """A value as --set reads it, on one line."""
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def _wrapped(text: str, indent: int = 14) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)
