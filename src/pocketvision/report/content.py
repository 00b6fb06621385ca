"""What a report says: the measured facts of one build, and the numbers and words that follow from them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from ..data.check import noun
from ..data.sources import Dataset
from ..errors import ConfigurationError
from ..exporting.artifact import Artifact
from ..measuring.latency import Latency
from ..measuring.parity import AnyParity
from ..spec.cost import ModelCost, cost
from ..spec.model import ModelSpec
from ..spec.transform import as_folded
from ..training.evaluate import ClassificationResult
from ..training.evaluate_detection import DetectionResult
from ..training.evaluate_segmentation import SegmentationResult

EvaluationResult = ClassificationResult | DetectionResult | SegmentationResult


@dataclass(frozen=True, slots=True)
class Promise:
    """One line of the budget: ``what`` was asked for, and what came out; ``met`` is None where nothing was asked."""

    what: str
    wanted: str
    got: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network that was considered: its latency in ms and accuracy (0 to 1), where known, and why (not) chosen."""

    name: str
    latency_ms: float | None
    accuracy: float | None
    accuracy_is: str
    decision: str
    chosen: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class BuildReport:
    """Everything that ``write_report`` shows.

    ``result``: the accuracy of the exported file; ``measured_on`` says on which images and with what it was counted, as
    in "val split, model.onnx in onnxruntime". ``curve``: one mapping an epoch with ``epoch`` and any of ``train_loss``,
    ``val_loss``, ``lr`` and ``val_top1``, ``val_map`` or ``val_miou`` (0 to 1). ``advice``: on the training, from its
    curves.
    ``weights``: where the training started, with the licence. ``seconds``: stage -> seconds.
    ``versions``: software -> version. Raises ConfigurationError for a result that does not fit the data.
    """

    title: str
    command: str
    data: Dataset
    artifact: Artifact
    measured_on: str
    result: EvaluationResult
    latency: tuple[Latency, ...]
    parity: AnyParity | None = None
    budget: tuple[Promise, ...] = ()
    curve: tuple[Mapping[str, float], ...] = ()
    candidates: tuple[Candidate, ...] = ()
    findings: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    weights: str = "random"
    created: str = field(default_factory=lambda: date.today().isoformat())

    def __post_init__(self) -> None:
        if self.result.classes != self.data.classes or not self.result.n:
            raise ConfigurationError(
                f"the result counts {self.result.n} images of {len(self.result.classes)} classes; it must count at "
                f"least one, of the {len(self.data.classes)} classes of {self.data.name}"
            )

    @property
    def spec(self) -> ModelSpec:
        """The exported network."""
        return self.artifact.spec

    @property
    def met(self) -> bool | None:
        """Whether every promise is kept; None where none was made."""
        asked = [promise.met for promise in self.budget if promise.met is not None]
        return all(asked) if asked else None

    @property
    def cost(self) -> ModelCost:
        """Parameters and multiply-adds of the form that runs on the device."""
        return cost(as_folded(self.spec))

    def counts(self) -> dict[str, Counter[int]]:
        """Split -> label -> images, or boxes, for the splits that have any; -1: images with masks."""
        splits = {"train": self.data.train, "val": self.data.val, "test": self.data.test}
        return {
            name: Counter(label for item in items for label in (item.boxes.labels if item.boxes else (item.label,)))
            for name, items in splits.items()
            if items
        }


def parity_words(parity: AnyParity) -> str:
    """What the comparison of the exported file with the trained network found."""
    images = f"{parity.n} {noun(parity.n, 'image')}"
    return f"The exported file and the trained network were run on {images}: {parity}."


def percent(share: float | None) -> str:
    """0.9123 -> "91.2%"; a dash for nothing."""
    return "–" if share is None else f"{share:.1%}"


def milliseconds(value: float | None) -> str:
    """1.234 -> "1.23 ms", 12.34 -> "12.3 ms"; a dash for nothing."""
    return "–" if value is None else f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"


def runtime(latency: Latency) -> str:
    """The runtime with its version, and whether other work on the machine disturbed the measurement."""
    return f"{latency.runtime} {latency.version}" + (" (disturbed by other work)" if latency.disturbed else "")


def machine(latency: Latency) -> str:
    """The machine's facts in one line."""
    facts = latency.machine
    return f"{facts.cpu}, {facts.cores} {'core' if facts.cores == 1 else 'cores'}, {facts.os}"


def duration(seconds: float) -> str:
    """0.42 -> "0.4 s", 75 -> "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def count(value: int) -> str:
    """2223872 -> "2.22 M"."""
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value:,}"
