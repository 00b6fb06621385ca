"""Masks: pictures that say of each pixel of an image which class it belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from ..errors import DataError
from . import samples
from .image import UPRIGHT, Unsupported, opened, reason, upright

VOID = 255  # the class of pixels that are neither learned nor judged
_MOST_COLOURS = 1 << 12  # more are a photo
IN_COLOURS = "it is in colours, and what they mean only a class_dict.csv with name,r,g,b can say"


@dataclass(frozen=True, slots=True)
class Mask:
    """The mask of an image: a ``file`` (or a sample's name), and the value that each class has in it, in the order of
    the classes; with ``colours`` a value is red << 16 | green << 8 | blue. All other values are void.

    ``size``: width and height in pixels, those of the image as it is shown. ``turn``: EXIF's orientation of an image
    whose mask is for the image as it is stored, so that it has to be turned as well.
    """

    file: str
    values: tuple[int, ...]
    size: tuple[int, int]
    colours: bool = False
    turn: int = 1


@dataclass(frozen=True, slots=True)
class Seen:
    """What a mask has: ``size``, width and height, and how many pixels have each value."""

    size: tuple[int, int]
    counts: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Legend:
    """The classes of masks: their ``names``, and the value of each; ``colours``: values are red << 16 | green << 8 |
    blue. ``void``: values that are said to mean no class. ``source``: what said all this, in words."""

    source: str
    names: tuple[str, ...]
    values: tuple[int, ...]
    void: frozenset[int]
    colours: bool = False


def read_mask(mask: Mask) -> np.ndarray:
    """The class of each pixel, uint8 [H, W]; 255 (``VOID``) where there is none.

    Raises DataError with the path and the cause.
    """
    try:
        values = _values(mask.file, mask.colours)
        if mask.turn != 1:
            values = np.array(Image.fromarray(values).transpose(UPRIGHT[mask.turn]))
        height, width = values.shape
        if (width, height) != mask.size:
            raise Unsupported(f"it has {width} x {height} pixels, when it was found it had {_by(mask.size)}")
    except DataError:
        raise
    except Exception as error:
        absent = isinstance(error, FileNotFoundError)
        fix = "put it back" if absent else "replace it by a readable mask or remove it"
        raise DataError(f"{mask.file}: {reason(mask.file, error)}; {fix}") from error
    if values.dtype != np.uint32:
        return _table(mask.values, 1 << 8 * values.itemsize)[values]
    order = np.argsort(mask.values)
    known = np.array(mask.values, np.uint32)[order]
    place = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[place] == values, order.astype(np.uint8)[place], np.uint8(VOID))


def nearest(side: int, to: int) -> np.ndarray:
    """For each of ``to`` pixels, the number of the one of ``side`` in which its centre lies: int64 [to]."""
    return (2 * np.arange(to) + 1) * side // (2 * to)


def look_at_mask(file: str, colours: bool) -> Seen | str:
    """What a mask has, or why it cannot be used. ``colours``: its values are colours."""
    try:
        values = _values(file, colours)
        if values.dtype == np.uint32:
            found = Image.fromarray(values.view(np.uint8).reshape(*values.shape, 4), "RGBA").getcolors(_MOST_COLOURS)
            if found is None:
                raise Unsupported(f"it has more than {_MOST_COLOURS} colours: it is a photo, or was saved with losses")
            counts = {_packed(pixel): count for count, pixel in found}
        else:
            numbers = np.bincount(values.ravel())
            counts = {int(value): int(numbers[value]) for value in numbers.nonzero()[0]}
    except Exception as error:  # noqa: BLE001  Pillow raises nearly every kind of exception on damaged files
        return reason(file, error)
    return Seen((values.shape[1], values.shape[0]), counts)


def _values(file: str, colours: bool) -> np.ndarray:
    """The values of a mask as they stand, [H, W]: uint8, uint16, or uint32 where they are colours."""
    if file.startswith(samples.PREFIX):
        return samples.read_sample_mask(file)
    with opened(file) as picture:
        if picture.format in {"JPEG", "WEBP", "AVIF", "HEIF", "JPEG2000"}:
            raise Unsupported(f"it is a {picture.format} file, whose compression changes values; save masks as PNG")
        picture.load()
        shown = upright(picture)
        if colours:
            red, green, blue = np.moveaxis(np.array(shown.convert("RGB"), np.uint32), -1, 0)
            return red << 16 | green << 8 | blue
        if shown.mode in {"1", "L", "P"}:
            return np.array(shown, np.uint8)
        if shown.mode.startswith("I"):
            values = np.array(shown).astype(np.int64)
            if values.min() < 0 or values.max() > 65535:
                raise Unsupported("it has 32-bit values; save it with 8 or 16 bits")
            return values.astype(np.uint16)
        if shown.mode in {"LA", "RGB", "RGBA"}:
            channels = np.array(shown.convert("RGB"))
            if (channels == channels[..., :1]).all():  # grey that was saved as colours
                return channels[..., 0]
            raise Unsupported(IN_COLOURS)
        raise Unsupported(f"its pixels are of Pillow's mode {shown.mode}; save it as a grey or palette PNG")


def _packed(pixel: object) -> int:
    """The value of a colour whose four bytes Pillow took for red, green, blue and alpha."""
    return int(np.array(pixel, np.uint8).view(np.uint32)[0])


@cache
def _table(values: tuple[int, ...], count: int) -> np.ndarray:
    """The class of each of ``count`` values: uint8 [count]."""
    table = np.full(count, VOID, np.uint8)
    for index, value in enumerate(values):
        if value < count:
            table[value] = index
    return table


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
