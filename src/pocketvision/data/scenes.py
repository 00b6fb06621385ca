"""``sample:digit-scenes``: pictures composed of real handwritten digits, with the box and the mask of each."""

from functools import cache

import numpy as np
from PIL import Image

from .boxes import Boxes
from .samples import digit_images, digit_labels, digit_split

TRAIN, VAL = 600, 150  # scenes; those for training are of digits for training
SIDE = 160
_SEED = 20_061_997
_DIGITS = (1, 8)  # in a scene
_SIDES = (18, 72)  # pixels of a digit's square, most are small
_TRIES = 30
_VISIBLE = 0.7  # of a digit's ink, at least, when others lie over it
_BLANK = 0.05  # ink, up to which a pixel is empty
_COLOURS = 12  # of which a digit has the one that stands out most


def scene(number: int) -> tuple[np.ndarray, Boxes, np.ndarray]:
    """A scene: its image uint8 [160, 160, 3]; the boxes of its digits (label: the digit), which enclose what is seen of
    their ink; and a mask uint8 [160, 160], 0 where no digit is and 1 + i where that of box i is.

    Always the same for a number; 0 to 599 are for training, 600 to 749 for validation.
    """
    rng = np.random.default_rng([_SEED, number])
    digits = digit_split()[number >= TRAIN]
    image, mask = _background(rng), np.zeros((SIDE, SIDE), np.uint8)
    labels, areas = list[int](), list[int]()
    for _ in range(rng.integers(_DIGITS[0], _DIGITS[1] + 1)):
        digit = digits[rng.integers(len(digits))]
        ink = _ink(digit, round(_SIDES[0] * (_SIDES[1] / _SIDES[0]) ** rng.random()))
        place = _place(mask, ink > 0.5, areas, rng)
        if place is not None:
            _draw(image[place], ink, rng)
            mask[place][ink > 0.5] = 1 + len(labels)
            labels.append(digit_labels()[digit])
            areas.append(int((ink > 0.5).sum()))
    corners = tuple(_extent(mask == 1 + index) for index in range(len(labels)))
    return image.round().astype(np.uint8), Boxes((SIDE, SIDE), corners, tuple(labels), (False,) * len(labels)), mask


@cache
def scene_boxes() -> tuple[Boxes, ...]:
    """The boxes of all scenes, by number."""
    return tuple(scene(number)[1] for number in range(TRAIN + VAL))


def _background(rng: np.random.Generator) -> np.ndarray:
    """Soft blobs around one colour, and a little noise: float [160, 160, 3]."""
    blobs = rng.integers(30, 226, 3) + rng.integers(-30, 31, (5, 5, 3))
    picture = Image.fromarray(blobs.clip(0, 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return (np.asarray(picture, np.float64) + rng.normal(0, 3, (SIDE, SIDE, 1))).clip(0, 255)


def _ink(digit: int, side: int) -> np.ndarray:
    """How much ink each pixel of a digit has, 0 to 1: float [h, w], without empty rows and columns around it."""
    picture = Image.fromarray(digit_images()[digit]).resize((side, side), Image.Resampling.BICUBIC)
    ink = np.asarray(picture, np.float64) / 255
    x1, y1, x2, y2 = map(int, _extent(ink > _BLANK))
    return ink[y1:y2, x1:x2]


def _place(mask: np.ndarray, ink: np.ndarray, areas: list[int], rng: np.random.Generator) -> tuple[slice, slice] | None:
    """Where ``ink``, bool [h, w], leaves enough to see of the digits below it, whose ink had these ``areas``."""
    height, width = ink.shape
    for _ in range(_TRIES):
        top, left = rng.integers(SIDE - height + 1), rng.integers(SIDE - width + 1)
        place = slice(top, top + height), slice(left, left + width)
        hidden = np.bincount(mask[place][ink], minlength=len(areas) + 1)[1:]
        if all((mask == 1 + i).sum() - hidden[i] >= _VISIBLE * areas[i] for i in hidden.nonzero()[0]):
            return place
    return None


def _draw(image: np.ndarray, ink: np.ndarray, rng: np.random.Generator) -> None:
    """Put ink on a part of an image, in that of some colours which stands out most."""
    colours = rng.integers(0, 256, (_COLOURS, 3))
    colour = colours[np.abs(colours.mean(axis=1) - image.mean()).argmax()]
    image += ink[..., None] * (colour - image)


def _extent(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
