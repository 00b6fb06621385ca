"""What is said of an image or of a frame of a video."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..tasks.segmentation import enlarged
from ..training.diagnose import counted


@dataclass(frozen=True, slots=True)
class Moment:
    """Which frame of a video, from 0, and when it is shown."""

    frame: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return {"frame": self.frame, "seconds": round(self.seconds, 4)}

    def __str__(self) -> str:
        return f" frame {self.frame} ({self.seconds:.2f} s)"


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most probable class of an image; ``score`` is its probability, 0 to 1."""

    file: str
    label: str
    score: float
    moment: Moment | None = None

    def to_dict(self) -> dict[str, Any]:
        return _where(self.file, self.moment) | {"label": self.label, "score": round(self.score, 6)}

    def __str__(self) -> str:
        return f"{self.file}{self.moment or ''}: {self.label} {self.score:.3f}"


@dataclass(frozen=True, slots=True)
class FoundBox:
    """A thing in an image: its class by name and by index, ``score`` 0 to 1, x1, y1, x2, y2 in pixels of the image."""

    label: str
    index: int
    score: float
    corners: tuple[float, float, float, float]

    def to_dict(self) -> dict[str, Any]:
        return {"label": self.label, "score": round(self.score, 6), "box": [round(at, 2) for at in self.corners]}

    def __str__(self) -> str:
        return f"{self.label} {self.score:.2f} [{' '.join(f'{at:.0f}' for at in self.corners)}]"


@dataclass(frozen=True, slots=True)
class BoxedImage:
    """What a detector finds in an image of ``size`` (width, height) pixels, best first."""

    file: str
    size: tuple[int, int]
    boxes: tuple[FoundBox, ...]
    moment: Moment | None = None

    def to_dict(self) -> dict[str, Any]:
        size = {"width": self.size[0], "height": self.size[1]}
        return _where(self.file, self.moment) | size | {"boxes": [box.to_dict() for box in self.boxes]}

    def __str__(self) -> str:
        number = counted(len(self.boxes), "box") if len(self.boxes) == 1 else f"{len(self.boxes)} boxes"
        return (
            f"{self.file}{self.moment or ''}: {number}" + (": " if self.boxes else "") + ", ".join(map(str, self.boxes))
        )


@dataclass(frozen=True, slots=True)
class FoundClass:
    """A class that some of an image's pixels have, by name and by index, and their ``share`` of all, 0 to 1."""

    label: str
    index: int
    share: float

    def to_dict(self) -> dict[str, Any]:
        return {"label": self.label, "share": round(self.share, 6)}

    def __str__(self) -> str:
        return f"{self.label} {self.share:.1%}"


@dataclass(frozen=True, slots=True)
class SegmentedImage:
    """What a segmenter sees in an image of ``size`` (width, height) pixels: the classes, the largest first.

    ``found``: the class of each pixel of the network's input, uint8 [S, S]; None where it is not kept.
    """

    file: str
    size: tuple[int, int]
    classes: tuple[FoundClass, ...]
    moment: Moment | None = None
    found: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def mask(self) -> np.ndarray:
        """The class of each pixel of the image, uint8 [height, width]."""
        assert self.found is not None
        return enlarged(self.found, self.size)

    def to_dict(self) -> dict[str, Any]:
        size = {"width": self.size[0], "height": self.size[1]}
        return _where(self.file, self.moment) | size | {"classes": [one.to_dict() for one in self.classes]}

    def __str__(self) -> str:
        return f"{self.file}{self.moment or ''}: " + ", ".join(map(str, self.classes))


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that could not be read, or not to its end, and why."""

    file: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return {"file": self.file, "reason": self.reason}

    def __str__(self) -> str:
        return f"{self.file}: skipped, {self.reason}"


Seen = Prediction | BoxedImage | SegmentedImage
Result = Seen | SkippedFile


def light(result: Result) -> Result:
    """``result`` without its class map, for whoever keeps many."""
    return replace(result, found=None) if isinstance(result, SegmentedImage) else result


def summary(results: Sequence[Result]) -> str:
    """How many images, frames and boxes there were, in words."""
    seen = [result for result in results if not isinstance(result, SkippedFile)]
    frames = sum(result.moment is not None for result in seen)
    parts = list[str]()
    if frames < len(seen) or not frames:
        parts.append(counted(len(seen) - frames, "image"))
    if frames:
        parts.append(counted(frames, "video frame"))
    boxed = [result for result in seen if isinstance(result, BoxedImage)]
    what = f", {_boxes(sum(len(result.boxes) for result in boxed))}" if boxed else " labelled"
    if any(isinstance(result, SegmentedImage) for result in seen):
        what = " segmented"
    return " and ".join(parts) + what + f", {len(results) - len(seen)} skipped"


def _boxes(number: int) -> str:
    return f"{number} box" + ("" if number == 1 else "es")


def _where(file: str, moment: Moment | None) -> dict[str, Any]:
    return {"file": file} | (moment.to_dict() if moment else {})
