"""`pocketvision build`: images and a budget -> a verified model, its files and its report."""

import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ..data.sources import Dataset
from ..data.transforms import load_prepared
from ..errors import ConfigurationError, DataError, nearest
from ..exporting.artifact import Artifact
from ..measuring.latency import Latency, measure_sessions
from ..measuring.parity import AnyParity
from ..measuring.runtimes import ALWAYS_THERE, check_threads, open_any_model, open_file
from ..nn.model import Model
from ..report.content import BuildReport, Candidate, EvaluationResult, Promise
from ..report.write import write_report
from ..spec.model import ModelSpec
from ..training.checkpoint import load_model
from ..training.fitting import WORDS
from ..zoo import MODELS, model_spec
from .accuracy import accuracy_of
from .checked import open_checked
from .choose import Limits, Option, choose
from .expect import expect
from .network import head_for, network, sizes_to_try, wanted_task, with_head
from .options import TrainOptions
from .progress import tell
from .remedies import diagnose_run, read_rows
from .source import export_checked, split_file, weights_file
from .training import TrainResult, starting_weights, train_spec

REPORTED = ("pocketvision", "torch", "torchvision", "onnx", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Budget:
    """What the model must keep to: median milliseconds for one image, megabytes of the file, and how many points of
    accuracy the exported file may lose against the trained model. None: no limit."""

    max_ms: float | None = None
    max_mb: float | None = None
    max_drop: float | None = 1.0
    runtime: str = "onnxruntime"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.runtime not in ALWAYS_THERE:
            raise ConfigurationError(f"runtime {self.runtime!r} is unknown; {nearest(self.runtime, ALWAYS_THERE)}")
        for name in ("max_ms", "max_mb"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name}={value} must be above 0, or be left out for no limit")
        check_threads(self.threads)
        if self.max_drop is not None and self.max_drop < 0:
            raise ConfigurationError(f"max_drop={self.max_drop} must be 0 points or more; nearest valid: 0")


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What came out: the exported file, its accuracy in the runtime, and whether every promise was kept."""

    artifact: Path
    report: Path
    task: str
    metric: str
    value: float
    latency_ms: float
    size_mb: float
    budget: Budget
    met: bool
    model: str
    run: Path
    promises: tuple[Promise, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        budget = {name: getattr(self.budget, name) for name in Budget.__slots__}
        broken = [
            f"{promise.what}: {promise.got}, wanted {promise.wanted}" for promise in self.promises if not promise.met
        ]
        return {
            "artifact": str(self.artifact),
            "report": str(self.report),
            "task": self.task,
            "metric": self.metric,
            "value": round(self.value, 6),
            "latency_ms": round(self.latency_ms, 4),
            "size_mb": round(self.size_mb, 6),
            "budget": budget,
            "met": self.met,
            "broken": broken,
            "model": self.model,
            "run": str(self.run),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.model}: {self.metric} {self.value:.1%}, {self.latency_ms:.2f} ms, {self.size_mb:.1f} MB",
            *(
                f"{'met   ' if promise.met else 'BROKEN'} {promise.what}: {promise.got}, wanted {promise.wanted}"
                for promise in self.promises
            ),
            f"artifact: {self.artifact}",
            f"report:   {self.report}",
            f"next: pocketvision predict {self.artifact} FOLDER",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Verified:
    """An exported file and what was measured on it."""

    artifact: Artifact
    parity: AnyParity | None
    accuracy: EvaluationResult
    latency: dict[str, Latency]


@dataclass(slots=True)
class Stages:
    """Seconds that each stage of a build took."""

    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter)

    def done(self, stage: str) -> None:
        """``stage`` ends now, and the next one begins."""
        now = time.perf_counter()
        self.seconds[stage], self._since = now - self._since, now


def build(
    data: str | Path,
    *,
    max_ms: float | None = None,
    max_mb: float | None = None,
    max_drop: float | None = 1.0,
    runtime: str = "onnxruntime",
    threads: int = 1,
    model: str | None = None,
    options: TrainOptions = TrainOptions(),
) -> BuildResult:
    """Train, export and verify the most accurate model that meets a budget; arguments as ``Budget`` has them.

    ``model``: use this network instead of choosing one. ``result.met`` says whether every promise is kept. Raises
    BudgetError when no network can keep to the budget, ConfigurationError, DataError, WeightsError, TrainingError or
    ExportError with cause and fix.
    """
    budget = Budget(max_ms, max_mb, max_drop, runtime, threads)
    limits = [f"max_ms={max_ms}"] * (max_ms is not None) + [f"max_mb={max_mb}"] * (max_mb is not None)
    call = ", ".join([repr(str(data)), *limits, f"runtime={runtime!r}"])
    return run_build(data, budget, options, model=model, command=f"pocketvision.build({call})")


def run_build(
    data: str | Path, budget: Budget, options: TrainOptions, *, model: str | None, command: str
) -> BuildResult:
    """Check the data, choose a network for the budget, train, fold, export, verify, report.

    All that is reported was measured on the exported file: accuracy on the validation images and latency in
    ``budget.runtime``. ``command`` is what the report says made it.
    """
    options.check()
    if model is not None:
        model_spec(model)  # an unknown name is said before any work
    stages = Stages()
    task = wanted_task(options.head, options.output_stride)
    dataset, findings = open_checked(data, seed=options.run_seed, allow_leak=options.allow_leak, task=task)
    stages.done("check the data")
    chosen, considered, weights = choose_for(dataset, budget, options, model)
    stages.done("choose the model")
    spec = network(dataset, chosen.spec, options, chosen.spec.preprocessing.size)
    trained, info = train_spec(dataset, spec, weights, options)
    _stop_if_interrupted(trained)
    stages.done("train")
    verified = _verify(trained, dataset, budget)
    stages.done("export and verify")
    promises = _promises(budget, verified, trained.value or 0.0)
    report = write_report(
        BuildReport(
            title=f"{dataset.name}: {chosen.label}",
            command=command,
            data=dataset,
            artifact=verified.artifact,
            measured_on=f"val split, {verified.artifact.path.name} in onnxruntime",
            result=verified.accuracy,
            latency=tuple(verified.latency.values()),
            parity=verified.parity,
            budget=promises,
            curve=read_rows(trained.run),
            candidates=tuple(_candidate(option, chosen) for option in considered),
            findings=(*map(str, findings), *trained.warnings),
            advice=_advice(trained, chosen.spec, weights, dataset),
            seconds=stages.seconds,
            versions={name: metadata.version(name) for name in REPORTED},
            weights=f"{info.source or info.path} ({info.licence})" if info else "random",
        ),
        trained.run,
    )
    return BuildResult(
        artifact=verified.artifact.path,
        report=report,
        task=WORDS[dataset.task],
        metric=verified.accuracy.metric,
        value=verified.accuracy.value,
        latency_ms=verified.latency[budget.runtime].median_ms,
        size_mb=verified.artifact.size_mb,
        budget=budget,
        met=all(promise.met for promise in promises),
        model=chosen.label,
        run=trained.run,
        promises=promises,
    )


def choose_for(
    dataset: Dataset, budget: Budget, options: TrainOptions, model: str | None
) -> tuple[Option, list[Option], str]:
    """The chosen network, all that were considered, and the weights that training starts from."""
    sizes = [options.imgsz] if options.imgsz else sizes_to_try(dataset)
    weights = starting_weights(options.weights, dataset, max(sizes))
    limits = Limits(budget.max_ms, budget.max_mb, budget.runtime, budget.threads)
    head = head_for(dataset, options.head, options.output_stride)

    def make(spec: ModelSpec, size: int) -> ModelSpec:
        return with_head(spec, head, len(dataset.classes), size, options.output_stride)

    chosen, considered = choose(dataset, [model] if model else list(MODELS), sizes, weights, limits, make)
    tell(f"chosen: {chosen.label}, {chosen.latency_ms or 0:.2f} ms ({chosen.note})")
    return chosen, considered, weights


def _stop_if_interrupted(trained: TrainResult) -> None:
    if trained.reason == "interrupted":
        tell(f"the training goes on with `pocketvision train --resume {trained.run}`, its file is made by `export`")
        raise KeyboardInterrupt


def _advice(trained: TrainResult, spec: ModelSpec, weights: str, dataset: Dataset) -> tuple[str, ...]:
    """What went wrong in the training, and the accuracy that the images promised; of classifiers."""
    if dataset.task != "classify":
        return ()
    try:
        expected = expect(spec, weights, dataset.train, len(dataset.val))
    except DataError:
        return tuple(map(str, trained.remedies))
    remedies = diagnose_run(trained.run, expected=expected)
    for remedy in remedies:
        tell(str(remedy))
    return (*map(str, remedies), " ".join(str(expected).split()))


def _verify(trained: TrainResult, dataset: Dataset, budget: Budget) -> Verified:
    """Export the best weights and measure the file. Raises ExportError when it does not compute what the model does."""
    network, path = load_model(trained.run), weights_file(trained.run)
    artifact, parity = export_checked(network, path.with_name("model.onnx"), split_file(trained.run))
    _, accuracy = accuracy_of(artifact, dataset.val, dataset.classes)
    return Verified(artifact, parity, accuracy, _measure(artifact, network, budget, dataset))


def _measure(artifact: Artifact, model: Model, budget: Budget, dataset: Dataset) -> dict[str, Latency]:
    """Latency of the file in its runtime, and of the folded model in torch beside it, in turns.

    The image is one of the data set, because what is found in it takes time too. A measurement that other work
    disturbed is repeated once when it breaks the budget.
    """
    sessions = {
        "onnxruntime": open_file(artifact, threads=budget.threads),
        "torch": open_any_model(model, threads=budget.threads),
    }
    image = load_prepared(dataset.val[0].image, artifact.spec.preprocessing)[None]
    latency = measure_sessions(sessions, n=200, image=image)
    wanted = latency[budget.runtime]
    if budget.max_ms and wanted.median_ms > budget.max_ms and wanted.disturbed:
        latency = measure_sessions(sessions, n=200, image=image)
    return latency


def _promises(budget: Budget, verified: Verified, trained: float) -> tuple[Promise, ...]:
    """Each limit of the budget beside what was measured; ``trained``: accuracy of the model before its export."""
    promises, latency, artifact = list[Promise](), verified.latency[budget.runtime], verified.artifact
    if budget.max_ms is not None:
        met = latency.median_ms <= budget.max_ms
        promises.append(Promise("latency", f"{budget.max_ms:g} ms", f"{latency.median_ms:.2f} ms", met))
    if budget.max_mb is not None:
        met = artifact.size_mb <= budget.max_mb
        promises.append(Promise("size", f"{budget.max_mb:g} MB", f"{artifact.size_mb:.2f} MB", met))
    if budget.max_drop is not None:
        drop = 100 * (trained - verified.accuracy.value)
        got = f"{max(0.0, drop):.2f} points"
        promises.append(
            Promise("accuracy lost by exporting", f"{budget.max_drop:g} points", got, drop <= budget.max_drop)
        )
    return tuple(promises)


def _candidate(option: Option, chosen: Option) -> Candidate:
    return Candidate(
        name=option.label,
        latency_ms=option.latency_ms,
        accuracy=option.accuracy,
        accuracy_is="probe on training images",
        decision=option.note,
        chosen=option is chosen,
    )
