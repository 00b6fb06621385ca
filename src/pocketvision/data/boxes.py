"""Boxes of an image, as they lie in a data set."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Boxes:
    """What is to be found in an image of ``size`` (width, height) pixels, as it is shown (EXIF applied).

    ``corners``: x1, y1, x2, y2 in pixels, within the image, x1 < x2 and y1 < y2. ``labels``: index of each box's class.
    ``ignored``: crowds and difficult ones, neither learned nor counted. All three are equally long, and may be empty.
    """

    size: tuple[int, int]
    corners: tuple[tuple[float, float, float, float], ...]
    labels: tuple[int, ...]
    ignored: tuple[bool, ...]
