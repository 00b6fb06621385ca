"""Boxes drawn on pictures, readable whatever the picture's size."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .plots import axis_labels

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

SMALLEST = 480  # pixels of the longer side: a smaller picture is enlarged, so that its labels find room
MANY = 25  # marks, from where letters are smaller
# Told apart by most colour-blind people too (Okabe and Ito 2008, without grey and black); more classes take hues
# a golden angle apart.
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
_DARK, _PALE = "#101418", "#ffffff"
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One box to draw: ``corners`` x1, y1, x2, y2 in pixels of the picture, a ``text``, the class that colours it.

    ``faint``: a thin line without text, for what is not what the reader should look at.
    """

    corners: Corners
    text: str
    label: int
    faint: bool = False


def drawn(
    boxes: np.ndarray, labels: np.ndarray, classes: Sequence[str], scores: np.ndarray | None = None
) -> list[Drawn]:
    """A mark for each of ``boxes`` [n, 4], named by its class and its score, best first where there are scores."""
    names = axis_labels(classes)
    order = range(len(boxes)) if scores is None else np.argsort(-scores, kind="stable")
    texts = (names[labels[i]] + ("" if scores is None else f" {scores[i]:.2f}") for i in order)
    return [Drawn(_corners(boxes[i]), text, int(labels[i])) for i, text in zip(order, texts, strict=True)]


def draw(image: np.ndarray, found: Sequence[Drawn]) -> np.ndarray:
    """``image``, uint8 [H, W, 3], with ``found`` drawn on a copy; the first ones' labels are placed first, and on top.

    Lines and letters grow with the picture. A picture whose longer side is below 480 pixels comes back enlarged by a
    whole number. A label stands where it fits into the picture and covers no other, if there is such a place.
    """
    zoom = -(-SMALLEST // max(image.shape[:2])) if max(image.shape[:2]) < SMALLEST else 1
    picture = Image.fromarray(image.repeat(zoom, 0).repeat(zoom, 1))
    pen = ImageDraw.Draw(picture)
    unit = max(picture.size) / 640
    line = max(2, round(2 * unit))
    letters = font(max(11, round((13 if len(found) <= MANY else 10) * unit)))
    scaled = [(mark, _within([zoom * value for value in mark.corners], picture.size)) for mark in found]
    for mark, corners in reversed(scaled):
        width = max(1, line // 2) if mark.faint else line
        pen.rectangle(_grown(corners, width, picture.size), outline=_DARK, width=1)  # seen on any background
        pen.rectangle(corners, outline=colour(mark.label), width=width)
    taken = list[Corners]()
    labelled = list[tuple[Drawn, Corners]]()
    for mark, corners in scaled:
        if mark.text and not mark.faint:
            place = place_label(corners, extent(mark.text, letters, line), picture.size, taken)
            taken.append(place)
            labelled.append((mark, place))
    for mark, place in reversed(labelled):
        pen.rectangle(place, fill=colour(mark.label))
        middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
        pen.text(middle, mark.text, fill=readable_on(colour(mark.label)), font=letters, anchor="mm")
    return np.asarray(picture)


def side_by_side(pictures: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Pictures of one size beside each other, each below its title: uint8 [H, W, 3]."""
    height, width = pictures[0].shape[:2]
    gap, letters = max(4, width // 100), font(max(13, width // 28))
    head = round(1.6 * letters.size)
    picture = Image.new("RGB", (len(pictures) * (width + gap) - gap, height + head), _PALE)
    pen = ImageDraw.Draw(picture)
    for number, (pixels, title) in enumerate(zip(pictures, titles, strict=True)):
        x = number * (width + gap)
        picture.paste(Image.fromarray(pixels), (x, head))
        pen.text((x + width / 2, head / 2), title, fill=_DARK, font=letters, anchor="mm")
    return np.asarray(picture)


def colour(label: int) -> str:
    """The colour of a class, the same in every picture."""
    if label < len(_COLOURS):
        return _COLOURS[label]
    from colorsys import hls_to_rgb

    lightness = (0.42, 0.58, 0.72)[label % 3]
    red, green, blue = (round(255 * part) for part in hls_to_rgb(label * 0.381966 % 1, lightness, 0.8))
    return f"#{red:02x}{green:02x}{blue:02x}"


def readable_on(background: str) -> str:
    """Black or white, whichever contrasts more (WCAG 2.2, relative luminance)."""
    parts = [int(background[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return _DARK if luminance > 0.179 else _PALE


@cache
def font(size: int) -> "FreeTypeFont":
    """The letters of all pictures, ``size`` pixels high."""
    import matplotlib as mpl

    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def extent(text: str, font: "FreeTypeFont", margin: int) -> tuple[int, int]:
    """Width and height of the label ``text``, with ``margin`` around it."""
    ascent, descent = font.getmetrics()
    return round(font.getlength(text)) + 2 * margin + 2, ascent + descent + margin


def place_label(corners: Corners, extent: tuple[int, int], size: tuple[int, int], taken: Sequence[Corners]) -> Corners:
    """Where a label of ``extent`` stands: above its box, below, beside or in it; of these where it covers least of the
    other labels, and of its own box if that is small."""
    x1, y1, x2, y2 = corners
    width, height = extent
    places = [
        (x1, y1 - height),
        (x2 - width, y1 - height),
        (x1, y1),
        (x2 - width, y1),
        (x1, y2),
        (x2 - width, y2),
        (x1, y2 - height),
        (x2, y1),
        (x1 - width, y1),
    ]
    candidates = [_inside(x, y, extent, size) for x, y in places]
    moved = [abs(place[0] - x) + abs(place[1] - y) for place, (x, y) in zip(candidates, places, strict=True)]
    small = [corners] if (x2 - x1) * (y2 - y1) < 4 * width * height else []
    covered = [sum(_overlap(place, other) for other in (*taken, *small)) for place in candidates]
    return candidates[min(range(len(places)), key=lambda i: (covered[i], moved[i] > 0, i))]


def _inside(x: float, y: float, extent: tuple[int, int], size: tuple[int, int]) -> Corners:
    """The label's rectangle, moved into the picture."""
    left, top = (max(0, min(at, whole - part - 1)) for at, part, whole in zip((x, y), extent, size, strict=True))
    return (left, top, left + extent[0], top + extent[1])


def _overlap(a: Corners, b: Corners) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


def _corners(box: np.ndarray) -> Corners:
    x1, y1, x2, y2 = map(float, box)
    return (x1, y1, x2, y2)


def _within(corners: Sequence[float], size: tuple[int, int]) -> Corners:
    """Whole pixels inside the picture; the right and lower edge are the last pixels that the box covers."""
    x1, y1 = (max(0, min(round(at), side - 1)) for at, side in zip(corners[:2], size, strict=True))
    x2, y2 = (max(0, min(round(at) - 1, side - 1)) for at, side in zip(corners[2:], size, strict=True))
    return (x1, y1, max(x1, x2), max(y1, y2))


def _grown(corners: Corners, width: int, size: tuple[int, int]) -> Corners:
    """The line just inside a box's own line."""
    inner = [corners[0] + width, corners[1] + width, corners[2] - width, corners[3] - width]
    return (inner[0], inner[1], max(inner[0], inner[2]), max(inner[1], inner[3]))
