"""`pocketvision export --int8 --max-drop P`: the quantisation doctor, which tries remedies."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.sources import Dataset, load_split
from ..errors import ConfigurationError, ExportError, PocketvisionError
from ..exporting.artifact import Artifact, rename
from ..exporting.contract import Form
from ..exporting.targets import TARGETS, export_to
from ..measuring.latency import measure_sessions
from ..measuring.parity import AnyParity, check_parity
from ..measuring.runtimes import open_file, runtime_of
from ..nn.fold import fold
from ..nn.model import Model
from ..quant.choice import DEFAULT, Int8
from ..quant.equalize import equalized
from ..quant.sensitivity import Finding, sensitivity
from ..spec.heads import TaskName, task_of
from ..training.checkpoint import load_model
from .accuracy import accuracy_of
from .options import TrainOptions
from .progress import tell
from .qat import train_for_int8
from .source import parity_images, resized

LOOKED_AT = 32  # images
TOLD = 8  # findings
TIMED_S = 3.0


@dataclass(frozen=True, slots=True)
class Step:
    """A remedy: the metric of the file (0 to 1, on the validation images, in its runtime), points lost against float32,
    median milliseconds of one image with one thread and of the float32 file beside it; or why it was ``skipped``."""

    remedy: str
    value: float | None = None
    drop: float | None = None
    ms: float | None = None
    float_ms: float | None = None
    skipped: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        if self.value is None or self.drop is None or self.ms is None or self.float_ms is None:
            return f"  {self.remedy}: skipped, {self.skipped}"
        times = self.float_ms / self.ms
        slower = "" if times >= 1 else ", which is SLOWER"
        figures = f"{self.value:.2%} ({-self.drop:+.2f} points), {self.ms:.2f} ms"
        return f"  {self.remedy}: {figures}, {times:.2f} times as fast as float32{slower}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found and tried. ``value``: the float32 file's metric on ``n`` images; ``met``: whether the ``chosen``
    step loses no more than ``max_drop`` points."""

    metric: str
    value: float
    n: int
    max_drop: float
    findings: tuple[Finding, ...]
    steps: tuple[Step, ...]
    chosen: Step
    met: bool

    def to_dict(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in ("metric", "value", "n", "max_drop", "met")}
        lists = {name: [each.to_dict() for each in getattr(self, name)] for name in ("findings", "steps")}
        return fields | lists | {"chosen": self.chosen.to_dict()}

    def __str__(self) -> str:
        one = 100 / self.n
        lines = [f"float32: {self.metric} {self.value:.2%} on {self.n} validation images (one image: {one:.2f} points)"]
        lines += ["what loses most, each alone in 8 bits:", *(f"  {finding}" for finding in self.findings)]
        lines += ["remedies, as measured in the runtime:", *map(str, self.steps)]
        if self.met:
            return "\n".join([*lines, f"taken: {self.chosen.remedy}"])
        loses = f"{self.chosen.drop:.2f} points, not {self.max_drop:g} or less"
        return "\n".join([*lines, f"NOT ENOUGH: the best, {self.chosen.remedy}, loses {loses}; it is what was written"])


@dataclass(frozen=True, slots=True)
class Patient:
    """A float network, what calibrates and judges its int8 forms, and where they come from."""

    model: Model
    source: Path
    split: Path
    target: str
    form: Form | None
    images: np.ndarray

    def export(self, model: Model, how: Int8, out: Path) -> Artifact:
        """An int8 file."""
        form, images = self.form, self.images
        return export_to(self.target, model, out, precision="int8", form=form, calibration=images, how=how)


def within_drop(patient: Patient, max_drop: float, out: Path) -> tuple[Artifact, AnyParity, Diagnosis]:
    """An int8 file at ``out`` that loses at most ``max_drop`` points on the run's validation images, by the cheapest
    remedy that is enough; where none is, the one that loses least. It appears only when its parity is checked.

    Raises ConfigurationError where the target's runtime is not installed or the run has no validation images,
    ExportError where no remedy gives a file or the file does not compute what the model does.
    """
    data = load_split(patient.split)
    if not data.val:
        raise ConfigurationError(
            f"{patient.split} has no validation images, on which --max-drop is judged; leave it out"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        place = Path(folder) / f"float32{out.suffix}"
        float32 = export_to(patient.target, patient.model, place, form=patient.form)
        if runtime_of(float32) is None:
            raise ConfigurationError(
                f"--max-drop is judged in the runtime of {patient.target}, which is not installed: "
                f"pip install 'pocketvision[{patient.target}]'"
            )
        result = accuracy_of(float32, data.val, data.classes, threads=1)[1]
        tell(f"{patient.target} float32: {result.metric} {result.value:.2%}; looking for what int8 loses")
        findings = sensitivity(patient.model, patient.images[:LOOKED_AT])[:TOLD]
        steps, files = list[Step](), dict[str, Artifact]()
        for number, (remedy, make) in enumerate(_remedies(patient, steps)):
            try:
                file = make(Path(folder) / f"{number}{out.suffix}")
                steps.append(_tried(remedy, file, float32, data, result.value) if isinstance(file, Artifact) else file)
                if isinstance(file, Artifact):
                    files[remedy] = file
            except PocketvisionError as error:  # what the others found is not lost
                steps.append(Step(remedy, skipped=str(error)))
            tell(str(steps[-1]).strip())
            if steps[-1].drop is not None and steps[-1].drop <= max_drop + 1e-9:
                break
        chosen = min(_done(steps), key=lambda step: (step.drop, step.ms), default=None)
        if chosen is None or chosen.drop is None:
            reasons = "; ".join(f"{step.remedy}: {step.skipped}" for step in steps)
            raise ExportError(f"no int8 file of {patient.source} came about: {reasons}; leave --int8 out")
        checked = files[chosen.remedy]
        parity = check_parity(checked, patient.model, parity_images(patient.split, checked))
        rename(checked.path, out)
    met = chosen.drop <= max_drop + 1e-9
    figures = result.metric, result.value, len(data.val), max_drop
    return Artifact.load(out), parity, Diagnosis(*figures, tuple(findings), tuple(steps), chosen, met)


def _done(steps: list[Step]) -> list[Step]:
    return [step for step in steps if step.drop is not None]


def _tried(remedy: str, file: Artifact, float32: Artifact, data: Dataset, before: float) -> Step:
    value = accuracy_of(file, data.val, data.classes, threads=1)[1].value
    times = measure_sessions({"int8": open_file(file), "float32": open_file(float32)}, seconds=TIMED_S)
    ms, float_ms = (round(times[name].median_ms, 4) for name in ("int8", "float32"))
    return Step(remedy, value, round(100 * (before - value), 4), ms, float_ms)


Make = Callable[[Path], Artifact | Step]


def _remedies(patient: Patient, steps: list[Step]) -> Iterator[tuple[str, Make]]:
    """In order of cost, to the user and to the file's speed; ``steps``: what came of those before."""

    def exporting(how: Int8, model: Model | None = None) -> Make:
        return lambda out: patient.export(model or patient.model, how, out)

    if patient.model.rounding is not None:
        yield "the ranges that it was trained with", exporting(DEFAULT)
        return
    tried = {
        "ranges of everything seen": Int8("minmax", correct_bias=False, beginning=0),
        "ranges without the outermost 0.01%": Int8("percentile", correct_bias=False, beginning=0),
        "ranges of the least squared error": Int8("mse", correct_bias=False, beginning=0),
    }
    if TARGETS[patient.target].switches:
        for remedy, how in tried.items():
            yield remedy, exporting(how)
        if done := _done(steps):
            best = min(done, key=lambda step: step.drop or 0).remedy
            yield f"{best}, biases corrected", exporting(replace(tried[best], correct_bias=True))
        yield "ranges that harm the outputs least", exporting(Int8(beginning=0))
        yield "the beginning stays float, where it harms", exporting(DEFAULT)
    else:
        skipped = Step("other ranges, bias correction", skipped=f"{patient.target} has no switch for them")
        yield skipped.remedy, lambda _: skipped
        yield "ranges that harm the outputs least, the beginning float where it harms", exporting(DEFAULT)
    even = equalized(patient.model)
    skipped = Step(
        "cross-layer equalisation", skipped="no two convolutions with a plain ReLU, or nothing, between them"
    )
    yield skipped.remedy, (lambda _: skipped) if even is None else exporting(DEFAULT, even)
    if TARGETS[patient.target].switches:
        count = _convolutions(patient.model) // 3
        yield f"the first {count} convolutions stay float", exporting(Int8(beginning=count))
    yield "a short training for int8", lambda out: patient.export(_trained(patient), DEFAULT, out)


def _convolutions(model: Model) -> int:
    from torch import nn

    return sum(isinstance(module, nn.Conv2d) for module in fold(model).modules())


def _trained(patient: Patient) -> Model:
    run = patient.split.parent
    tell(f"training {run} for int8, which takes minutes")
    options = TrainOptions(project=_project_of(run, task_of(patient.model.spec.head)))
    trained = load_model(train_for_int8(patient.source, options).run)
    return resized(trained, patient.model.spec.preprocessing.size)


def _project_of(run: Path, task: TaskName) -> Path:
    """Where a run beside ``run`` belongs; one that was copied elsewhere stands in no folder of a task."""
    folder = run.resolve().parent
    return folder.parent if folder.name == task else folder
