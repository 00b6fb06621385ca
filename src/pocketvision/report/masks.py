"""Masks as pictures: laid over an image, and as palette PNGs."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..data.masks import VOID
from .drawing import SMALLEST, Corners, colour, extent, font, place_label, readable_on
from .html import Html, join
from .plots import axis_labels

BACKGROUNDS = {"background", "_background_", "bg"}  # names of what is nothing in particular
_NOTHING, _VOID_COLOUR = "#000000", "#e0e0c0"  # as VOC has them
_LOOKED_AT = 96  # pixels of the longer side of the map on which the places of labels are found
_LEAST = 0.004  # share of the picture from which a class is labelled


def colours(classes: Sequence[str]) -> tuple[str, ...]:
    """The colour of each class, the same in every picture; black for what is background."""
    return tuple(_NOTHING if is_background(name) else colour(index) for index, name in enumerate(classes))


def is_background(name: str) -> bool:
    """Whether a class is called as what is nothing in particular."""
    return name.lower() in BACKGROUNDS


def chips(classes: Sequence[str]) -> list[Html]:
    """Each class's name behind its colour."""
    return [
        join([Html(f'<span class="chip" style="background:{shade}"></span>'), name], "")
        for name, shade in zip(classes, colours(classes), strict=True)
    ]


def palette_png(mask: np.ndarray, classes: Sequence[str]) -> bytes:
    """A PNG whose values are those of ``mask``, uint8 [H, W], shown in the colours of the classes."""
    buffer = BytesIO()
    _painted(mask, classes).save(buffer, "PNG")
    return buffer.getvalue()


def overlay(image: np.ndarray, found: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """``image``, uint8 [H, W, 3], ``tinted`` by class; the classes are named where they are widest.

    A small picture comes back enlarged, as ``drawing.draw`` does it.
    """
    zoom = -(-SMALLEST // max(image.shape[:2])) if max(image.shape[:2]) < SMALLEST else 1
    picture = tinted(Image.fromarray(image.repeat(zoom, 0).repeat(zoom, 1)), found, classes)
    _name(picture, found, classes)
    return np.asarray(picture)


def tinted(picture: Image.Image, found: np.ndarray, classes: Sequence[str], strength: float = 0.5) -> Image.Image:
    """``picture`` in the colour of the class that ``found``, uint8 [h, w] of any size, says of each place.

    Background stays as it is, void becomes pale.
    """
    tint = np.full(256, round(255 * strength), np.uint8)
    tint[[index for index, name in enumerate(classes) if is_background(name)]] = 0
    tint_hw = tint[found]
    tint_hw[_borders(found) & (tint_hw > 0)] = 255
    over = Image.fromarray(tint_hw).resize(picture.size, Image.Resampling.NEAREST)
    paint = _painted(found, classes).resize(picture.size, Image.Resampling.NEAREST).convert("RGB")
    return Image.composite(paint, picture, over)


def _painted(mask: np.ndarray, classes: Sequence[str]) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(mask))
    names = [*colours(classes), *[_NOTHING] * (VOID - len(classes)), _VOID_COLOUR]
    picture.putpalette([int(name[at : at + 2], 16) for name in names for at in (1, 3, 5)])
    return picture


def _borders(found: np.ndarray) -> np.ndarray:
    """Where the class is another than that of the pixel to the right or below."""
    borders = np.zeros(found.shape, bool)
    borders[:, :-1] = found[:, 1:] != found[:, :-1]
    borders[:-1] |= found[1:] != found[:-1]
    return borders


def _name(picture: Image.Image, found: np.ndarray, classes: Sequence[str]) -> None:
    """Put each class's name where it is widest, the largest classes first."""
    pen, letters = ImageDraw.Draw(picture), font(max(11, round(13 * max(picture.size) / 640)))
    names, shown, taken = axis_labels(classes), colours(classes), list[Corners]()
    counts = np.bincount(found.ravel(), minlength=256)[: len(classes)]
    for index in map(int, np.argsort(-counts, kind="stable")):
        if counts[index] < _LEAST * found.size or is_background(classes[index]):
            continue
        x, y = _widest(found == index) * picture.size
        width, height = extent(names[index], letters, 2)
        box = (x - width / 2, y + height / 2, x + width / 2, y - height / 2)  # labels stand above their boxes
        place = place_label(box, (width, height), picture.size, taken)
        taken.append(place)
        pen.rectangle(place, fill=shown[index])
        centre = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
        pen.text(centre, names[index], fill=readable_on(shown[index]), font=letters, anchor="mm")


def _widest(region: np.ndarray) -> np.ndarray:
    """A point far inside a region, bool [h, w]: x and y as shares of its sides."""
    left = Image.fromarray(region)
    left.thumbnail((_LOOKED_AT, _LOOKED_AT), Image.Resampling.NEAREST)
    layer = np.pad(np.asarray(left, bool), 1)
    if not layer.any():
        layer = np.pad(region, 1)
    while (smaller := _eroded(layer)).any():
        layer = smaller
    places = np.argwhere(layer) - 0.5  # the border that was added is off again, and a pixel has its middle
    best = places[np.argmin(((places - places.mean(0)) ** 2).sum(1))]
    return best[::-1] / (np.array(layer.shape)[::-1] - 2)


def _eroded(region: np.ndarray) -> np.ndarray:
    """``region`` without the pixels at its border."""
    return np.asarray(Image.fromarray(region).convert("L").filter(ImageFilter.MinFilter(3))) > 0
