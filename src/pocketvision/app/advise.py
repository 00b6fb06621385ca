"""`pocketvision advise`: what training will do with these images here, and why; or what went wrong in a run."""

import tempfile
import textwrap
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from ..data.sources import Dataset
from ..errors import DataError
from ..measuring.machine import this_machine
from ..nn.model import build
from ..spec.transform import with_classes, with_size
from ..tasks.classification import Classification
from ..training.checkpoint import ARGS, load_model
from ..training.diagnose import Remedy
from ..training.events import Event, Started, Step
from ..training.loop import fit
from ..training.recipe import Recipe
from ..zoo import MODELS, model_spec
from ..zoo.weights import available
from .build import Budget, choose_for
from .checked import open_checked
from .choose import Option, sample
from .expect import Expectation, expect
from .explain import Line, explained
from .options import TrainOptions
from .progress import tell
from .ranges import warnings
from .remedies import diagnose_run, read_run

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
    budget = Budget(max_ms, max_mb, None, runtime, threads)
    chosen, considered, weights = choose_for(dataset, budget, options, model)
    images, classes, tuned = len(dataset.train), len(dataset.classes), weights != "none"
    recipe = options.recipe_for(images, classes, pretrained=tuned)
    tell("timing some steps of training")
    seconds = timed(chosen, recipe, dataset)
    expected, note = _expected(chosen, weights, dataset)
    compared = len([option for option in considered if option.accuracy is not None])
    lines = explained(chosen, compared, weights, recipe, images, seconds, expected)
    command = _command(data, chosen, options, budget)
    outside = warnings(options, recipe, images, classes, pretrained=tuned)
    return Advice(_facts(dataset), lines, expected, note, outside, command)


def advise_run(run: Path) -> RunAdvice:
    """Read a run's curves. Raises ConfigurationError for a folder that is no run."""
    _, dataset = read_run(run)
    spec = load_model(run).spec
    name, size = spec.backbone.name, spec.preprocessing.size
    entry = available(model_spec(name)) if name in MODELS else None
    expected = None
    try:
        start = entry.spec() if entry else spec
        sized = with_classes(with_size(start, size, ratio=1.0), dataset.classes)
        kind = "imagenet" if entry and size > 64 else "none"
        expected = expect(sized, kind, dataset.train, len(dataset.val))
    except DataError as error:
        tell(f"no expectation: {error}")
    low = expected.bands[0].low if expected else None
    return RunAdvice(run, diagnose_run(run, expected=low), expected)


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
        "Fine-tuning the whole network usually ends above: by 10 points on 1,969 photos of clothes. On few or strange "
        "images it may not: 3 points below on 500 enlarged pictures of CIFAR-10, 4 above on 2,000 (docs/advisor.md)."
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


def _command(data: str | Path, chosen: Option, options: TrainOptions, budget: Budget) -> str:
    """The build that was explained; the network is named, so that nothing is chosen again."""
    import shlex

    words = ["pocketvision", "build", str(data), "--model", chosen.name, "--imgsz", str(chosen.spec.preprocessing.size)]
    given = {"--max-ms": budget.max_ms, "--max-mb": budget.max_mb, "--epochs": options.epochs, "--batch": options.batch}
    given |= {"--time": options.minutes, "--weights": None if options.weights == "auto" else options.weights}
    for flag, value in given.items():
        words += [flag, f"{value:g}" if isinstance(value, float) else str(value)] if value is not None else []
    return shlex.join(words)


def _wrapped(text: str, indent: int = 14) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)
