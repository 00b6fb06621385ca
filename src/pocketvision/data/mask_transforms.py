"""Random changes of a training image together with its mask."""

import math

import numpy as np
import torch

from ..spec.model import Interpolation
from .box_transforms import View, distorted, placement, rendered
from .masks import VOID, nearest
from .transforms import Augment, mirrored


def resized_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask [H, W] by nearest neighbours, [height, width]: pixels are taken where their centres are."""
    if mask.shape == (height, width):
        return mask
    return mask[nearest(mask.shape[0], height)].take(nearest(mask.shape[1], width), axis=1)


def augmented_mask(
    image: np.ndarray, mask: np.ndarray, size: int, augment: Augment, interpolation: Interpolation = "bilinear"
) -> tuple[np.ndarray, np.ndarray]:
    """A random variant of an image uint8 [H, W, 3] and its mask [H, W], ``size`` x ``size`` pixels: enlarged or reduced
    (uniform in the logarithm of the factor), mirrored, its colours distorted. What lies around the image is void.

    Draws from torch's global generator only.
    """
    zoom, left, top, flip = torch.rand(4, dtype=torch.float64).tolist()
    low, high = augment.zoom
    factor = low * math.exp(zoom * math.log(high / low))
    height, width = mask.shape
    seen_width, seen_height = max(1, round(width / factor)), max(1, round(height / factor))
    left, top = math.floor(left * (width - seen_width + 1)), math.floor(top * (height - seen_height + 1))
    place = placement((width, height), View(left, top, seen_width, seen_height), (size, size))
    image = rendered(image, place, (size, size), interpolation)
    classes = np.full((size, size), VOID, np.uint8)
    if place:
        (x1, y1), (x2, y2), (to_x1, to_y1), (to_x2, to_y2) = place
        classes[to_y1:to_y2, to_x1:to_x2] = resized_mask(mask[y1:y2, x1:x2], to_y2 - to_y1, to_x2 - to_x1)
    if flip < augment.flip:
        image, classes = mirrored(image), mirrored(classes)
    return distorted(image, augment.distort), classes
