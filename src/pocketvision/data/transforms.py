"""From decoded pixels to what a network sees: the evaluation preprocessing, and random augmentation."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ..errors import ConfigurationError
from ..spec.model import IMAGENET_MEAN, Interpolation, Preprocessing
from ..spec.rows import check_choice
from .image import read_image

Policy = Literal["none", "autoaugment", "randaugment", "trivialaugment"]
# A JPEG is decoded to no less than this times the pixels that the next resize keeps: the prepared image then
# differs from that of the full decode by less than half a grey level in the mean, at a fifth of the time.
_DECODE_MARGIN = 3
_WIDEST = 4  # long side / short side, from where the part that the crop drops is not resized at all
_CROP_TRIES = 10
_ERASED_SCALE, _ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # arXiv:1708.04896 §4.2, as in TorchVision
_ERASED_COLOUR = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
_IDENTITY = {"Posterize": 8.0, "Solarize": 1.0}  # the magnitude that changes nothing, where it is not 0


@dataclass(frozen=True, slots=True)
class Augment:
    """Random changes of a training image, in this order.

    ``scale``, ``ratio``: area (of the image) and aspect ratio of a random crop, resized to the input's size
    (arXiv:1409.4842 §6). ``flip``: probability of mirroring. ``policy``: AutoAugment (ImageNet's policy,
    arXiv:1805.09501), RandAugment (2 operations of magnitude 9, arXiv:1909.13719) or TrivialAugment (wide,
    arXiv:2103.10158); ``strength`` (0 to 1) multiplies their magnitudes. ``jitter``: brightness, contrast and
    saturation change by a factor within 1 - jitter to 1 + jitter. ``erase``: probability of a grey rectangle
    (arXiv:1708.04896).

    Images with boxes (``box_transforms``) know ``flip`` and, of SSD (arXiv:1512.02325 §2.2, §3.6): ``zoom_out`` and
    ``iou_crop``, the probabilities of a view of up to four times the image's sides, and of a part of it around some
    of the boxes; ``distort`` (0 to 1), how far brightness, contrast, saturation and hue change, each in half of all
    cases (1: by up to 12.5%, 50%, 50% and 18 degrees). ``mosaic``: probability of four images side by side
    (arXiv:2004.10934 §3.3).

    Images with masks (``mask_transforms``) know ``flip``, ``distort`` and ``zoom``: the least and the largest factor by
    which the image, stretched to the input, is enlarged before a part as large as the input is cut out anywhere; below
    1 it lies anywhere in the input, and around it nothing is learned.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.0
    policy: Policy = "none"
    strength: float = 1.0
    erase: float = 0.0
    zoom_out: float = 0.0
    iou_crop: float = 0.0
    distort: float = 0.0
    mosaic: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        check_choice("Augment.policy", self.policy, Policy)
        for name in ("flip", "jitter", "strength", "erase", "zoom_out", "iou_crop", "distort", "mosaic"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigurationError(f"Augment.{name}={value} is outside 0 to 1; nearest valid: {int(value > 1)}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigurationError(f"Augment.scale={self.scale} must be two rising numbers above 0, at most 1")
        for name in ("ratio", "zoom"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigurationError(f"Augment.{name}={low, high} must be two rising numbers above 0")


def prepare(image: np.ndarray, p: Preprocessing) -> np.ndarray:
    """The evaluation preprocessing: short side to ``p.resize`` (antialiased), then the central square of ``p.size``; or
    all of it stretched to that square, as ``p.fit`` says.

    uint8 [H, W, 3] -> uint8 [size, size, 3], contiguous. The long side is rounded to whole pixels, the crop's offset
    down, as Pillow users write it; TorchVision's Resize and CenterCrop differ by at most one pixel in either.
    """
    if p.fit == "stretch":
        return np.ascontiguousarray(resized(image, p.size, p.size, p.interpolation))
    image = _without_far_ends(image)
    height, width = image.shape[:2]
    short = min(height, width)
    image = resized(image, round(p.resize * height / short), round(p.resize * width / short), p.interpolation)
    height, width = image.shape[:2]
    top, left = (height - p.size) // 2, (width - p.size) // 2
    return np.ascontiguousarray(image[top : top + p.size, left : left + p.size])


def load_prepared(image: str | Path, p: Preprocessing) -> np.ndarray:
    """``prepare`` of an image file: uint8 [size, size, 3]. What evaluation and prediction see.

    Large JPEGs are decoded at a fraction of their size (``read_image``'s ``short_side``). Raises DataError.
    """
    kept = p.size if p.fit == "stretch" else p.resize
    return prepare(read_image(image, short_side=_DECODE_MARGIN * kept), p)


def load_reduced(image: str | Path, short_side: int, interpolation: Interpolation) -> np.ndarray:
    """An image file with its short side reduced to ``short_side`` where it is larger: uint8 [H, W, 3].

    What ``augmented`` cuts its crops from. Raises DataError.
    """
    pixels = read_image(image, short_side=_DECODE_MARGIN * short_side)
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return pixels
    return resized(pixels, max(1, round(height * scale)), max(1, round(width * scale)), interpolation)


def augmented(image: np.ndarray, size: int, augment: Augment, interpolation: Interpolation) -> np.ndarray:
    """A random variant of an image: uint8 [H, W, 3] -> uint8 [size, size, 3], contiguous.

    Draws from torch's global generator only.
    """
    height, width = image.shape[:2]
    region = _random_region(height, width, augment.scale, augment.ratio)
    top, left, height, width = region or _central_region(height, width, augment.ratio)
    result = resized(image[top : top + height, left : left + width], size, size, interpolation)
    if torch.rand(()).item() < augment.flip:
        result = mirrored(result)
    if operations := _operations(augment.policy, augment.strength, augment.jitter):
        picture = Image.fromarray(result)
        for operation in operations:
            picture = operation(picture)
        result = np.array(picture)
    if torch.rand(()).item() < augment.erase and (hole := _random_region(size, size, _ERASED_SCALE, _ERASED_RATIO)):
        top, left, height, width = hole
        result[top : top + height, left : left + width] = _ERASED_COLOUR
    return result


def resized(image: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [height, width, 3], antialiased. Torch's kernel takes a fifth of Pillow's time."""
    if image.shape[:2] == (height, width):
        return image.copy()  # never the caller's own pixels: they may lie in the cache
    # The batch's dimension comes first: only then torch sees that channels are last, and leaves them there.
    pixels = torch.from_numpy(image if image.flags.writeable else image.copy())[None].permute(0, 3, 1, 2)
    resized = interpolate(pixels, (height, width), mode=interpolation, antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def mirrored(image: np.ndarray) -> np.ndarray:
    """An image [H, W, 3] or a mask [H, W], left and right exchanged, contiguous: in a tenth of NumPy's time."""
    return torch.from_numpy(image).flip(1).numpy()


def _without_far_ends(image: np.ndarray) -> np.ndarray:
    """A very long image cut at both ends to what the central crop can reach, so that its resize stays small."""
    height, width = image.shape[:2]
    extra_rows, extra_columns = (max(0, side - _WIDEST * min(height, width)) // 2 for side in (height, width))
    return image[extra_rows : height - extra_rows, extra_columns : width - extra_columns]


def _random_region(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of a random part, uniform in area and in log aspect; None when none fits."""
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area_at, ratio_at, top_at, left_at in torch.rand(_CROP_TRIES, 4, dtype=torch.float64).tolist():
        area = height * width * (scale[0] + area_at * (scale[1] - scale[0]))
        aspect = math.exp(low + ratio_at * (high - low))
        part_height, part_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < part_height <= height and 0 < part_width <= width:
            top, left = int(top_at * (height - part_height + 1)), int(left_at * (width - part_width + 1))
            return top, left, part_height, part_width
    return None


def _central_region(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest central part whose aspect ratio is within ``ratio``."""
    part_width = min(width, max(1, round(height * ratio[1])))
    part_height = min(height, max(1, round(width / ratio[0])))
    return (height - part_height) // 2, (width - part_width) // 2, part_height, part_width


@cache
def _operations(policy: Policy, strength: float, jitter: float) -> tuple[Any, ...]:
    """TorchVision's transforms; on PIL images, where these policies take 0.6 to 0.8 of their time on tensors."""
    with_policy = policy != "none" and strength > 0
    if not with_policy and not jitter:
        return ()  # without TorchVision, whose import takes over a second
    from torchvision.transforms import v2

    operations: list[Any] = []
    if with_policy:
        kind = {
            "autoaugment": v2.AutoAugment,
            "randaugment": v2.RandAugment,
            "trivialaugment": v2.TrivialAugmentWide,
        }[policy]
        transform = kind(interpolation=v2.InterpolationMode.BILINEAR)
        if strength < 1:
            transform._AUGMENTATION_SPACE = {
                name: (_scaled(magnitudes, strength, _IDENTITY.get(name, 0.0)), signed)
                for name, (magnitudes, signed) in transform._AUGMENTATION_SPACE.items()
            }
        operations.append(transform)
    if jitter:
        operations.append(v2.ColorJitter(jitter, jitter, jitter))
    return tuple(operations)


def _scaled(magnitudes: Any, strength: float, identity: float) -> Any:
    """TorchVision's function of (bins, height, width), its magnitudes moved towards the one without effect."""

    def scaled(bins: int, height: int, width: int) -> torch.Tensor | None:
        values = magnitudes(bins, height, width)
        if values is None:
            return None
        moved = identity + strength * (values - identity)
        return moved if values.is_floating_point() else moved.round().int()

    return scaled
