"""Boxes of an image, as they lie in a data set."""

import math
from dataclasses import dataclass

Corners = tuple[float, float, float, float]
_CLIPPED = 1.0  # pixels outside the image from which cutting a box is told: less is rounding
_ROUNDING = 2  # pixels by which two sizes of one shape may differ, for each halving or doubling


@dataclass(frozen=True, slots=True)
class Boxes:
    """What is to be found in an image of ``size`` (width, height) pixels, as it is shown (EXIF applied).

    ``corners``: x1, y1, x2, y2 in pixels, within the image, x1 < x2 and y1 < y2. ``labels``: index of each box's class.
    ``ignored``: crowds and difficult ones, neither learned nor counted. All three are equally long, and may be empty.
    """

    size: tuple[int, int]
    corners: tuple[Corners, ...]
    labels: tuple[int, ...]
    ignored: tuple[bool, ...]

    @property
    def counted(self) -> int:
        """How many are not ignored."""
        return self.ignored.count(False)


@dataclass(frozen=True, slots=True)
class Mark:
    """One box as an annotation has it, not yet checked: ``corners`` x1, y1, x2, y2, the name of its class, and whether
    it is a crowd or a difficult one."""

    corners: Corners
    label: str
    ignored: bool = False


@dataclass(frozen=True, slots=True)
class Marks:
    """All boxes of an image as its annotation has them. ``size``: width and height that it says the image has, in whose
    pixels the boxes are; None: it says nothing. With ``shares`` the boxes are in shares of the sides, as it is shown.
    """

    boxes: tuple[Mark, ...]
    size: tuple[int, int] | None = None
    shares: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """A box that was changed or left out: ``kind`` is clipped, outside, empty, inverted, nan, repeated or unknown;
    or an image whose boxes were: scaled, turned, or twice (listed)."""

    image: str
    kind: str
    text: str


def fit(marks: Marks, shown: tuple[int, int], orientation: int) -> tuple[tuple[Mark, ...], str] | str:
    """The boxes in pixels of the image as it is ``shown`` (width, height), and what was done for it: "", "scaled" or
    "turned"; or why they cannot be.

    ``orientation`` is the file's in EXIF. The annotation's size says what its boxes are meant for: the image as shown;
    as stored, before EXIF turns it, and the boxes are turned too; or a larger or smaller copy, and they are scaled.
    Width and height that are merely exchanged are not believed if all boxes lie within the image as shown.
    """
    width, height = shown
    if marks.shares:
        return _scaled(marks.boxes, width, height), ""
    if marks.size is None or marks.size == shown:
        return marks.boxes, ""
    said_width, said_height = marks.size
    if (said_height, said_width) == shown:
        if orientation >= 5 and _within(marks.boxes, marks.size):
            return tuple(_turned(box, marks.size, orientation) for box in marks.boxes), "turned"
        if _within(marks.boxes, shown):
            return marks.boxes, ""
    elif abs(said_width * height - said_height * width) <= _ROUNDING * max(*shown, *marks.size):
        return _scaled(marks.boxes, width / said_width, height / said_height), "scaled"
    return f"its boxes are for an image of {said_width} x {said_height} pixels, it has {width} x {height}"


def checked(mark: Mark, size: tuple[int, int]) -> tuple[Mark | None, str]:
    """A box within an image of ``size`` (width, height), or None where nothing of it is; and the kind of the Note."""
    x1, y1, x2, y2 = mark.corners
    width, height = size
    if not all(map(math.isfinite, mark.corners)):
        return None, "nan"
    if x2 < x1 or y2 < y1:
        return None, "inverted"
    if x2 == x1 or y2 == y1:
        return None, "empty"
    clipped = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return None, "outside"
    moved = max(abs(a - b) for a, b in zip(clipped, mark.corners, strict=True))
    return Mark(clipped, mark.label, mark.ignored), "clipped" if moved > _CLIPPED else ""


def _within(boxes: tuple[Mark, ...], size: tuple[int, int]) -> bool:
    return all(box.corners[2] <= size[0] + 1 and box.corners[3] <= size[1] + 1 for box in boxes)


def _scaled(boxes: tuple[Mark, ...], x: float, y: float) -> tuple[Mark, ...]:
    scaled = ((b, tuple(c * s for c, s in zip(b.corners, (x, y, x, y), strict=True))) for b in boxes)
    return tuple(Mark(corners, box.label, box.ignored) for box, corners in scaled)  # type: ignore[arg-type]


def _turned(box: Mark, stored: tuple[int, int], orientation: int) -> Mark:
    """A box of the image as it is stored, where EXIF's orientation (5 to 8) shows it (EXIF 2.32 §4.6.4)."""
    x1, y1, x2, y2 = box.corners
    width, height = stored
    corners = {
        5: (y1, x1, y2, x2),
        6: (height - y2, x1, height - y1, x2),
        7: (height - y2, width - x2, height - y1, width - x1),
        8: (y1, width - x2, y2, width - x1),
    }[orientation]
    return Mark(corners, box.label, box.ignored)
