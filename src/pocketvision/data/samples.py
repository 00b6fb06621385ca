"""Sample data that needs no download: scikit-learn's scanned handwritten digits, alone or in scenes."""

import hashlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError, nearest

PREFIX = "sample:"
DIGITS, SCENES = "sample:digits", "sample:digit-scenes"
DIGIT_CLASSES = tuple(str(digit) for digit in range(10))
BACKGROUND = "background"
_SIDE = 32
_VAL_SHARE = 0.2


def read_sample(image: str) -> np.ndarray:
    """The sample ``sample:digits/N``, uint8 [32, 32, 3], white on black, or ``sample:digit-scenes/N`` (``scenes``).

    Raises DataError for another name.
    """
    name, number = _number(image)
    if name == SCENES:
        from . import scenes  # which is made of these digits

        return scenes.scene(number)[0]
    return np.repeat(digit_images()[number, :, :, None], 3, axis=2)


def read_sample_mask(image: str) -> np.ndarray:
    """The mask of ``sample:digit-scenes/N``, uint8 [160, 160]: 0 for background, 1 + the digit elsewhere."""
    from . import scenes

    _, boxes, mask = scenes.scene(_number(image)[1])
    return np.array([0, *(1 + label for label in boxes.labels)], np.uint8)[mask]


def _number(image: str) -> tuple[str, int]:
    """The data set and the number of a sample. Raises DataError where there is no such sample."""
    name, _, number = image.partition("/")
    check_sample(name)
    if name == SCENES:
        from . import scenes

        count = scenes.TRAIN + scenes.VAL
    else:
        count = len(digit_images())
    if not (number.isdecimal() and int(number) < count):
        raise DataError(f"{image}: there is no such sample; valid: {name}/0 to {name}/{count - 1}")
    return name, int(number)


def digit_images() -> np.ndarray:
    """The samples' ink by number: uint8 [1797, 32, 32], white on black."""
    return _digits()[0]


def digit_labels() -> tuple[int, ...]:
    """The digit that each of the 1,797 samples shows, by number."""
    return _digits()[1]


def digit_split() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers of the samples for training (80%) and validation (20% of each digit); always the same."""
    labels = digit_labels()
    val: set[int] = set()
    for digit in range(10):
        numbers = [number for number, label in enumerate(labels) if label == digit]
        numbers.sort(key=lambda number: hashlib.sha256(f"{DIGITS}/{number}".encode()).digest())
        val.update(numbers[: round(len(numbers) * _VAL_SHARE)])
    return tuple(number for number in range(len(labels)) if number not in val), tuple(sorted(val))


def check_sample(name: str) -> None:
    """Raises DataError when ``name`` is no embedded sample data set."""
    if name not in (DIGITS, SCENES):
        raise DataError(f"{name}: there is no such sample data; {nearest(name, [DIGITS, SCENES])}")


@cache
def _digits() -> tuple[np.ndarray, tuple[int, ...]]:
    """Grey images uint8 [1797, 32, 32], enlarged from 8x8 (bicubic), and their digits.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, its test part, as
    scikit-learn carries it: each of the 8x8 values counts the ink pixels (0 to 16) of a 4x4 field.
    """
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    small = np.round(data.images * (255 / 16)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)) for image in small]
    return np.stack(large), tuple(int(label) for label in data.target)
