"""evaluate, predict, export and measure, as the command line and Python users call them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.sources import Dataset, Item, load_split, open_dataset
from ..errors import ConfigurationError, DataError, nearest
from ..measuring.latency import Latency, timed_sessions
from ..measuring.machine import usable_cores
from ..measuring.paired import FEWEST, Comparison, compare
from ..measuring.runtimes import RUNTIMES, Session, check_threads, open_any_model, open_file, torch_threads
from ..nn.model import Model
from ..report.content import EvaluationResult
from ..spec.heads import task_of
from ..spec.model import ModelSpec
from ..training.checkpoint import load_model
from ..training.evaluate_segmentation import SCALES, evaluate_segmenter
from ..training.evaluate_segmentation import multi_scale as at_scales
from .accuracy import accuracy_of
from .predict import predict_files
from .predicted import Result
from .progress import tell
from .source import is_artifact, opened, resized, split_file

NO_VALUE = 1 << 24  # of a class that a data set does not have: no mask holds it


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy of an exported file, run in ``runtime``, on one split of a data set."""

    source: str
    runtime: str
    split: str
    result: EvaluationResult

    def to_dict(self) -> dict[str, Any]:
        return {
            "metric": self.result.metric,
            "value": self.result.value,
            "n": self.result.n,
            "source": self.source,
            "runtime": self.runtime,
            "split": self.split,
        } | self.result.to_dict()

    def __str__(self) -> str:
        return f"{self.source} in {self.runtime} on {self.split}\n{self.result}"


def evaluate(
    source: str | Path,
    data: str | Path,
    *,
    split: str = "val",
    threads: int = 0,
    imgsz: int | None = None,
    multi_scale: bool = False,
) -> Evaluation:
    """Accuracy of a run (exported first) or an exported file on ``split`` of ``data``.

    A run's weights are evaluated in the form that ships: folded, exported, in the runtime of its format. The data
    set's classes must be among the model's labels; ``threads=0`` takes all cores. ``imgsz``: of the input, where it is
    not the run's own. ``multi_scale``: of a network for segmentation, in torch, the mean over six scales and mirror
    images, which takes 17 times as long. Raises ConfigurationError, DataError or ExportError with cause and fix.
    """
    threads = threads or usable_cores()
    check_threads(threads)
    if multi_scale:
        model = _segmenter(source, imgsz)
        items, classes = _items(source, data, split, model.spec)
        with torch_threads(threads):
            result = evaluate_segmenter(at_scales(model), items, model.spec.preprocessing, classes)
        return Evaluation(str(source), f"torch, scales {SCALES[0]:g} to {SCALES[-1]:g} and mirrored", split, result)
    with opened(source, imgsz=imgsz) as (artifact, _):
        items, classes = _items(source, data, split, artifact.spec)
        runtime, result = accuracy_of(artifact, items, classes, threads=threads)
        return Evaluation(str(source), runtime, split, result)


def _segmenter(source: str | Path, imgsz: int | None) -> Model:
    """The model of a run to segment. Raises ConfigurationError for anything else."""
    why = "--multi-scale is for runs and weights files of networks for segmentation"
    if is_artifact(source) or not Path(source).exists():
        raise ConfigurationError(f"{source} is no run folder or weights file; {why}")
    model = resized(load_model(source), imgsz)
    if (task := task_of(model.spec.head)) != "segment":
        raise ConfigurationError(f"{source} is made to {task}; {why}")
    return model


def _items(
    source: str | Path, data: str | Path, split: str, spec: ModelSpec
) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    """The images of ``split``, labelled as the model of ``source`` counts, and its classes."""
    task = task_of(spec.head)
    try:
        opened = open_dataset(data, task=task)
    except DataError as error:
        raise DataError(f"{error} ({source} is made to {task})") from None
    dataset = _unseen(source, opened)
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test, "all": dataset.items}
    if split not in splits:
        raise ConfigurationError(f"split {split!r} is unknown; {nearest(split, splits)}")
    if not splits[split]:
        raise DataError(f"{data}: there are no {split} images; valid: {', '.join(k for k, v in splits.items() if v)}")
    return relabelled(splits[split], dataset, spec, source), spec.labels or dataset.classes


def _unseen(source: str | Path, dataset: Dataset) -> Dataset:
    """``dataset``, or the run's own split where the run was trained on images of ``dataset``."""
    path = split_file(source)
    if path is None:
        return dataset
    own = load_split(path)
    images = {item.image for item in dataset.items}
    if images.isdisjoint(item.image for item in own.train):
        return dataset
    tell(f"the run was trained on images of this data set: its own split is used ({path})")
    return own


def relabelled(items: tuple[Item, ...], dataset: Dataset, spec: ModelSpec, source: str | Path) -> tuple[Item, ...]:
    """``items`` with labels counted as the model counts them.

    Raises DataError for a class that the model lacks.
    """
    labels = spec.labels or dataset.classes
    unknown = [name for name in dataset.classes if name not in labels]
    if unknown:
        raise DataError(
            f"{dataset.name}: class {unknown[0]!r} is none of the {len(labels)} classes of {source}; "
            f"{nearest(unknown[0], labels)}"
        )
    index = [labels.index(name) for name in dataset.classes]
    return tuple(_relabelled(item, index, len(labels)) for item in items)


def _relabelled(item: Item, index: list[int], classes: int) -> Item:
    if item.boxes is not None:
        return replace(item, boxes=replace(item.boxes, labels=tuple(index[label] for label in item.boxes.labels)))
    if item.mask is not None:
        values = [NO_VALUE] * classes
        for label, value in zip(index, item.mask.values, strict=True):
            values[label] = value
        return replace(item, mask=replace(item.mask, values=tuple(values)))
    return replace(item, label=index[item.label])


def predict(
    source: str | Path,
    images: Sequence[str | Path] | str | Path,
    *,
    threads: int = 0,
    min_score: float | None = None,
    out: str | Path | None = None,
) -> Iterator[Result]:
    """The label of each image, or the boxes in it that score ``min_score`` (0.25), or the classes of its pixels, or why
    it was skipped, in order and as soon as it is known; of a video, each frame's.

    ``images``: files and folders. ``threads=0`` takes all cores. ``out``: a folder for ``predictions.json``,
    ``predictions.csv`` and, of a detector and a segmenter, pictures with what was found, and masks. Raises DataError
    for a path that does not exist, ConfigurationError for ``min_score`` where no boxes are found.
    """
    paths = [images] if isinstance(images, str | Path) else list(images)
    with opened(source) as (artifact, _):
        folder = Path(out) if out is not None else None
        yield from predict_files(artifact, paths, threads=threads, min_score=min_score, out=folder)


@dataclass(frozen=True, slots=True)
class Measurements:
    """Latencies that were measured in turns, and each but the first compared with it; the JSON has the first one's keys
    at the top and all as ``results``."""

    results: tuple[Latency, ...]
    comparisons: tuple[Comparison, ...]

    def to_dict(self) -> dict[str, Any]:
        rows = [result.to_dict() for result in self.results]
        return rows[0] | {"results": rows, "comparisons": [each.to_dict() for each in self.comparisons]}

    def __str__(self) -> str:
        return "\n".join(map(str, (*self.results, *self.comparisons)))


def measure(
    targets: Sequence[str | Path] | str | Path,
    *,
    runtimes: Sequence[str] = (),
    threads: int = 1,
    imgsz: int | None = None,
    n: int = 100,
) -> Measurements:
    """Milliseconds for one image of each target in each runtime, interleaved.

    ``targets``: names of models (untrained), runs, exported files, which are timed as they are: without the selection
    that a detector's "raw" or "dense" outputs still need. ``runtimes``: that of the file, which for a name or a run is
    "onnxruntime", unless others are given. Raises ConfigurationError for an unknown target, a runtime that is unknown
    or does not open the file.
    """
    for runtime in runtimes:
        if runtime not in RUNTIMES:
            raise ConfigurationError(f"runtime {runtime!r} is unknown; {nearest(runtime, RUNTIMES)}")
    names = [targets] if isinstance(targets, str | Path) else list(targets)
    with ExitStack() as stack:
        sessions = dict[str, Session[Any]]()
        for number, target in enumerate(names):
            artifact, model = stack.enter_context(opened(target, imgsz=imgsz, random_weights=True))
            for runtime in runtimes or ("",):
                if runtime == "torch" and model is not None:
                    session = open_any_model(model, threads=threads)
                elif runtime == "torch":
                    raise ConfigurationError(f"{target} is an exported file; torch measures runs and model names only")
                else:
                    session = open_file(artifact, threads=threads)
                    if runtime not in ("", session.runtime):
                        hint = "leave the runtime out" if model is None else "export it for that and measure the file"
                        raise ConfigurationError(f"{runtime} does not run {target}; {hint}")
                sessions[f"{number} {runtime}"] = session
        latencies, turns = timed_sessions(sessions, n=n)
    named = {key: replace(latency, name=str(names[int(key.split()[0])])) for key, latency in latencies.items()}
    said = {key: f"{latency.name} ({latency.runtime})" for key, latency in named.items()}
    first, *others = turns
    enough = min(len(each.medians()) for each in turns.values()) >= FEWEST
    compared = [compare(said[first], turns[first], said[key], turns[key]) for key in others if enough]
    return Measurements(tuple(named.values()), tuple(compared))
