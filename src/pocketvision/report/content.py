"""What a report says: the measured facts of one build, and the numbers and words that follow from them."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from ..data.check import noun
from ..data.sources import Dataset
from ..errors import ConfigurationError
from ..exporting.artifact import Artifact
from ..measuring.latency import Latency
from ..measuring.parity import Parity
from ..spec.cost import ModelCost, cost
from ..spec.model import ModelSpec, Preprocessing
from ..spec.transform import as_folded
from ..training.evaluate import Mistake, wilson


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


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class: share of its predictions that are right, share of its images that are found (None of none), images."""

    index: int
    name: str
    precision: float | None
    recall: float | None
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class BuildReport:
    """Everything that ``write_report`` shows.

    ``confusion``: integers [classes, classes], rows are the true class. ``measured_on`` says on which images and with
    what the confusion was counted, as in "val split, model.onnx in onnxruntime". ``curve``: one mapping an epoch with
    ``epoch`` and any of ``train_loss``, ``val_loss``, ``val_top1`` (0 to 1), ``lr``. ``mistakes``: by index into the
    data's classes. ``advice``: on the training, from its curves. ``weights``: where the training started, with the
    licence. ``seconds``: stage -> seconds.
    ``versions``: software -> version.
    Raises ConfigurationError for a confusion matrix that does not fit the data.
    """

    title: str
    command: str
    data: Dataset
    artifact: Artifact
    measured_on: str
    confusion: np.ndarray
    latency: tuple[Latency, ...]
    parity: Parity | None = None
    budget: tuple[Promise, ...] = ()
    curve: tuple[Mapping[str, float], ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    findings: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    weights: str = "random"
    created: str = field(default_factory=lambda: date.today().isoformat())

    def __post_init__(self) -> None:
        classes = len(self.data.classes)
        if self.confusion.shape != (classes, classes) or not self.confusion.sum():
            raise ConfigurationError(
                f"the confusion matrix is {self.confusion.shape} with {self.confusion.sum()} images; "
                f"it must be {classes} x {classes}, one row for each class of {self.data.name}, and count at least one"
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
    def n(self) -> int:
        """Images in the confusion matrix."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of images whose class was predicted."""
        return float(np.trace(self.confusion)) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true accuracy lies with 95% confidence, as far as ``n`` images tell."""
        return wilson(int(np.trace(self.confusion)), self.n)

    @property
    def majority(self) -> float:
        """Accuracy of always answering the most frequent class."""
        return float(self.confusion.sum(axis=1).max()) / self.n

    @property
    def cost(self) -> ModelCost:
        """Parameters and multiply-adds of the form that runs on the device."""
        return cost(as_folded(self.spec))

    def per_class(self) -> list[ClassRow]:
        """One row for each class, in the classes' order."""
        right, predicted, true = np.diag(self.confusion), self.confusion.sum(axis=0), self.confusion.sum(axis=1)
        return [
            ClassRow(
                index,
                name,
                precision=float(right[index] / predicted[index]) if predicted[index] else None,
                recall=float(right[index] / true[index]) if true[index] else None,
                n=int(true[index]),
            )
            for index, name in enumerate(self.data.classes)
        ]

    def confusions(self, limit: int = 10) -> list[tuple[str, str, int, int]]:
        """The most frequent mistakes: (true class, predicted class, how often, images of the true class)."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        worst = np.argsort(-wrong, axis=None, kind="stable")[:limit]
        names, totals = self.data.classes, self.confusion.sum(axis=1)
        cells = [divmod(int(cell), len(names)) for cell in worst]
        return [
            (names[row], names[col], int(wrong[row, col]), int(totals[row])) for row, col in cells if wrong[row, col]
        ]

    def counts(self) -> dict[str, Counter[int]]:
        """Split -> label -> images, for the splits that have any."""
        splits = {"train": self.data.train, "val": self.data.val, "test": self.data.test}
        return {name: Counter(item.label for item in items) for name, items in splits.items() if items}


def preprocessing_steps(p: Preprocessing) -> list[str]:
    """The preprocessing in words and numbers, for whoever writes the app."""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (p.mean, p.std))
    resized = f"Resize it to {p.resize} pixels on the short side, the long one in proportion (rounded)"
    inside = f"divide by 255, subtract the mean ({mean}), divide by the standard deviation ({std})"
    upright = "turn it upright by its EXIF orientation, put transparent parts on white, and make it RGB"
    return [
        f"Take a photo of 8 bits a channel (scale one of 16 bits to 8 first), {upright}.",
        f"{resized}: {p.interpolation}, with antialiasing (as in Pillow; OpenCV's INTER_LINEAR has none).",
        f"Cut out the central {p.size} × {p.size} pixels.",
        f"Give these bytes to the exported file as uint8 [1, {p.size}, {p.size}, 3], and do nothing else to them.",
        f"The file itself scales and normalises: {inside}, in the order R, G, B.",
    ]


def snippet(report: BuildReport) -> str:
    """The same preprocessing and one prediction, in Python without this package."""
    p, file, name = report.spec.preprocessing, *map(json.dumps, (report.artifact.path.name, report.artifact.input.name))
    return f"""\
import numpy as np, onnxruntime
from PIL import Image, ImageOps

photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGBA")  # 8 bits a channel
photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
sides = [round({p.resize} * side / min(photo.size)) for side in photo.size]
left, top = ((side - {p.size}) // 2 for side in sides)
photo = photo.resize(sides, Image.Resampling.{p.interpolation.upper()})
photo = photo.crop((left, top, left + {p.size}, top + {p.size}))
session = onnxruntime.InferenceSession({file}, providers=["CPUExecutionProvider"])
scores = session.run(None, {{{name}: np.asarray(photo)[None]}})[0][0]  # one for each class, sum 1
labels = session.get_modelmeta().custom_metadata_map["labels"].split("\\n")
print(labels[scores.argmax()], scores.max())
"""


def parity_words(parity: Parity) -> str:
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
