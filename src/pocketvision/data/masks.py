"""Masks: pictures that say of each pixel of an image which class it belongs to."""

from dataclasses import dataclass

VOID = 255  # the class of pixels that are neither learned nor judged


@dataclass(frozen=True, slots=True)
class Mask:
    """The mask of an image: a ``file`` (or a sample's name), and the value that each class has in it, in the order of
    the classes; of a picture in colours red << 16 | green << 8 | blue. All other values are void.

    ``size``: width and height in pixels, those of the image.
    """

    file: str
    values: tuple[int, ...]
    size: tuple[int, int]
