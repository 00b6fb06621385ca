"""Random changes of a training image together with its boxes."""

from typing import NamedTuple

import numpy as np
import torch

from ..spec.model import Interpolation
from .boxes import Boxes
from .transforms import Augment, resized


class Scene(NamedTuple):
    """An image uint8 [H, W, 3] with its boxes: float32 [n, 4], x1, y1, x2, y2 in its pixels; their labels int64 [n],
    and which of them are ignored, bool [n]."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


def placed(boxes: Boxes, image: np.ndarray) -> Scene:
    """An image with the boxes that were given in pixels of another size of it."""
    height, width = image.shape[:2]
    scale = np.array([width / boxes.size[0], height / boxes.size[1]] * 2)
    corners = (np.array(boxes.corners).reshape(-1, 4) * scale).astype(np.float32)
    return Scene(image, corners, np.array(boxes.labels, np.int64), np.array(boxes.ignored, bool))


def augmented_scene(scene: Scene, size: int, augment: Augment, interpolation: Interpolation = "bilinear") -> Scene:
    """A random variant of a scene, ``size`` x ``size`` pixels. Draws from torch's global generator only."""
    height, width = scene.image.shape[:2]
    image = resized(scene.image, size, size, interpolation)
    boxes = scene.boxes * np.array([size / width, size / height] * 2, np.float32)
    if torch.rand(()).item() < augment.flip:
        image = np.ascontiguousarray(image[:, ::-1])
        boxes[:, [0, 2]] = size - boxes[:, [2, 0]]
    return Scene(image, boxes, scene.labels, scene.ignored)
