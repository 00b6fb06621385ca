"""Random changes of a training image together with its boxes."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ..spec.model import IMAGENET_MEAN, Interpolation
from .boxes import Boxes
from .transforms import Augment, mirrored, resized

_LEAST_SHARE = 0.3  # of a box's area: where less is left of it, it is ignored
_LEAST_SIDE = 2.0  # pixels of the result: what is left of a box and thinner is dropped
_FARTHEST = 4.0  # times the image's sides, to which zooming out goes
_LEAST_IOU = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, None)  # of a crop with a box; None: no crop
_CROPS = 40
_CROP_SIDES, _CROP_ASPECT = (0.3, 1.0), (0.5, 2.0)
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 0.125, 0.5, 0.5, math.radians(18)
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_AROUND = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
_CENTRE = (0.3, 0.7)  # of a mosaic, as shares of its side


class Scene(NamedTuple):
    """An image uint8 [H, W, 3] with its boxes: float32 [n, 4], x1, y1, x2, y2 in its pixels; their labels int64 [n],
    and which of them are ignored, bool [n]."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


class View(NamedTuple):
    """A part of an image in its pixels, which may reach beyond it."""

    left: int
    top: int
    width: int
    height: int


class Placement(NamedTuple):
    """Where a view shows an image, each along x and y: its pixels from ``first`` to ``last``, in the view's from
    ``to_first`` to ``to_last``."""

    first: tuple[int, int]
    last: tuple[int, int]
    to_first: tuple[int, int]
    to_last: tuple[int, int]


def placed(boxes: Boxes, image: np.ndarray) -> Scene:
    """An image with the boxes that were given in pixels of another size of it."""
    height, width = image.shape[:2]
    scale = np.array([width / boxes.size[0], height / boxes.size[1]] * 2)
    corners = (np.array(boxes.corners).reshape(-1, 4) * scale).astype(np.float32)
    return Scene(image, corners, np.array(boxes.labels, np.int64), np.array(boxes.ignored, bool))


def augmented_scene(scene: Scene, size: int, augment: Augment, interpolation: Interpolation = "bilinear") -> Scene:
    """A random variant of a scene, ``size`` x ``size`` pixels: zoomed out, cropped, mirrored, its colours distorted.

    A box of which less than 30% of its area is left is ignored; one with a side below 2 pixels is dropped. Draws from
    torch's global generator only.
    """
    scene = _seen(scene, size, size, augment, interpolation)
    return scene._replace(image=distorted(scene.image, augment.distort))


def mosaic(scenes: Sequence[Scene], size: int, augment: Augment, interpolation: Interpolation = "bilinear") -> Scene:
    """Four scenes side by side in ``size`` x ``size`` pixels, each a variant as ``augmented_scene`` has them; where
    they meet is random (YOLOv4's mosaic, arXiv:2004.10934 §3.3). None is zoomed out: they are small enough."""
    low, high = _CENTRE
    augment = replace(augment, zoom_out=0.0)
    x, y = (round(size * (low + (high - low) * at)) for at in torch.rand(2).tolist())
    places = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
    image, parts = np.empty((size, size, 3), np.uint8), list[Scene]()
    for scene, (x1, y1, x2, y2) in zip(scenes, places, strict=True):
        part = _seen(scene, y2 - y1, x2 - x1, augment, interpolation)
        image[y1:y2, x1:x2] = part.image
        parts.append(part._replace(boxes=part.boxes + np.array([x1, y1, x1, y1], np.float32)))
    columns = (np.concatenate([part[column] for part in parts]) for column in (1, 2, 3))
    return Scene(distorted(image, augment.distort), *columns)


def _seen(scene: Scene, height: int, width: int, augment: Augment, interpolation: Interpolation) -> Scene:
    """A random view of a scene in so many pixels, perhaps mirrored."""
    zoom, crop, flip = torch.rand(3).tolist()
    view = View(0, 0, *scene.image.shape[1::-1])
    if zoom < augment.zoom_out:
        view = _zoomed_out(view)
    if crop < augment.iou_crop:
        view = _cropped(view, scene.boxes[~scene.ignored])
    seen = _rendered(scene, view, height, width, interpolation)
    if flip < augment.flip:
        boxes = seen.boxes.copy()
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        seen = seen._replace(image=mirrored(seen.image), boxes=boxes)
    return seen


def _zoomed_out(image: View) -> View:
    """A view of up to four times the sides, the image anywhere in it (arXiv:1512.02325 §3.6)."""
    factor, left, top = torch.rand(3, dtype=torch.float64).tolist()
    factor = 1 + factor * (_FARTHEST - 1)
    width, height = round(image.width * factor), round(image.height * factor)
    return View(-int(left * (width - image.width + 1)), -int(top * (height - image.height + 1)), width, height)


def _cropped(view: View, boxes: np.ndarray) -> View:
    """A random part of a view that has the centre of a box, and with one of these an IoU as drawn (arXiv:1512.02325
    §2.2); of a view without boxes any part. The view itself when that is drawn, or none of 40 parts will do."""
    for option in torch.randperm(len(_LEAST_IOU)).tolist():
        least = _LEAST_IOU[option]
        if least is None:
            break
        width, height, left, top = torch.rand(4, _CROPS, dtype=torch.float64).numpy()
        low, high = _CROP_SIDES
        width, height = view.width * (low + (high - low) * width), view.height * (low + (high - low) * height)
        x1, y1 = view.left + left * (view.width - width), view.top + top * (view.height - height)
        crops = np.stack([x1, y1, x1 + width, y1 + height], axis=1)
        aspect = width / height
        good = (aspect > _CROP_ASPECT[0]) & (aspect < _CROP_ASPECT[1])
        if len(boxes):
            good &= _holds(crops, boxes, least)
        if good.any():
            x1, y1, x2, y2 = np.rint(crops[good.argmax()]).astype(int).tolist()
            return View(x1, y1, max(1, x2 - x1), max(1, y2 - y1))
    return view


def _holds(crops: np.ndarray, boxes: np.ndarray, least: float) -> np.ndarray:
    """Which crops [C, 4] have the centre of one of the boxes [n, 4] and an IoU of ``least`` with it: bool [C]."""
    crops = crops[:, None]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    within = ((centres > crops[..., :2]) & (centres < crops[..., 2:])).all(axis=2)
    overlap = np.minimum(crops[..., 2:], boxes[:, 2:]) - np.maximum(crops[..., :2], boxes[:, :2])
    common = overlap.clip(0).prod(axis=2)
    areas = [(corners[..., 2:] - corners[..., :2]).prod(axis=-1) for corners in (crops, boxes)]
    iou = common / (areas[0] + areas[1] - common)
    return (within & (iou >= least)).any(axis=1)


def placement(image: tuple[int, int], view: View, pixels: tuple[int, int]) -> Placement | None:
    """Where a view with so many ``pixels`` (width, height) shows an image of ``image`` pixels; None: nowhere."""
    start, shown = (view.left, view.top), (view.width, view.height)
    axes = []
    for axis in (0, 1):
        low, high = max(0, start[axis]), min(image[axis], start[axis] + shown[axis])
        scale = pixels[axis] / shown[axis]
        to_low = min(round((low - start[axis]) * scale), pixels[axis] - 1)
        axes.append((low, high, to_low, max(to_low + 1, round((high - start[axis]) * scale))))
    if any(low >= high for low, high, _, _ in axes):
        return None
    return Placement(*zip(*axes, strict=True))


def rendered(
    image: np.ndarray, place: Placement | None, pixels: tuple[int, int], interpolation: Interpolation
) -> np.ndarray:
    """The view of an image in so many ``pixels`` (width, height); around the image lies ImageNet's mean colour."""
    width, height = pixels
    if place is None:
        return _around(height, width)
    (x1, y1), (x2, y2), (to_x1, to_y1), (to_x2, to_y2) = place
    part = resized(image[y1:y2, x1:x2], to_y2 - to_y1, to_x2 - to_x1, interpolation)
    if part.shape[:2] == (height, width):
        return part
    view = _around(height, width)
    view[to_y1:to_y2, to_x1:to_x2] = part
    return view


def _around(height: int, width: int) -> np.ndarray:
    """What lies around an image: uint8 [height, width, 3], filled by rows, a tenth of the time that pixels take."""
    rows = np.empty((height, 3 * width), np.uint8)
    rows[:] = np.tile(np.array(_AROUND, np.uint8), width)
    return rows.reshape(height, width, 3)


def _rendered(scene: Scene, view: View, height: int, width: int, interpolation: Interpolation) -> Scene:
    """A view of a scene in so many pixels."""
    pixels = width, height
    place = placement(scene.image.shape[1::-1], view, pixels)
    image = rendered(scene.image, place, pixels, interpolation)
    if not place:  # a crop of what zooming out put around the image
        return Scene(image, scene.boxes[:0], scene.labels[:0], scene.ignored[:0])
    low, high, to_low, to_high = (np.array(values * 2, np.float32) for values in place)
    boxes = (scene.boxes - low) * ((to_high - to_low) / (high - low)) + to_low  # as the pixels, whose places are whole
    whole = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    boxes = boxes.clip(0, np.array(pixels * 2, np.float32))
    left = boxes[:, 2:] - boxes[:, :2]
    ignored = scene.ignored | (left.prod(axis=1) < _LEAST_SHARE * whole)
    kept = (left >= _LEAST_SIDE).all(axis=1)
    return Scene(image, boxes[kept], scene.labels[kept], ignored[kept])


def distorted(image: np.ndarray, strength: float) -> np.ndarray:
    """Brightness, contrast, saturation and hue changed, each in half of all cases (arXiv:1512.02325 §2.2).

    All four are linear in the colours, so they are one 3 x 3 matrix; the hue turns around the axis of greys.
    """
    if not strength:
        return image
    at, changed = (2 * torch.rand(4) - 1).tolist(), (torch.rand(4) < 0.5).tolist()
    brightness, contrast, saturation, hue = (
        strength * most * a * c
        for most, a, c in zip((_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE), at, changed, strict=True)
    )
    if not any(changed):
        return image
    mean = float(image[::8, ::8].reshape(-1, 3).mean(0) @ _GREY)
    rows = colour_matrix(brightness, contrast, saturation, hue, mean)
    return np.array(Image.fromarray(image).convert("RGB", tuple(rows.ravel().tolist())))


def colour_matrix(brightness: float, contrast: float, saturation: float, hue: float, mean: float) -> np.ndarray:
    """What changes colours (as a column R, G, B, 1) in this order: float [3, 4].

    The first three are factors less 1, as TorchVision's adjust functions have them, the hue an angle in radians;
    ``mean`` is the mean grey of the image.
    """
    grey = np.tile(_GREY, (3, 1))
    cosine, sine = math.cos(hue), math.sin(hue) / math.sqrt(3)
    turn = cosine * np.eye(3) + (1 - cosine) / 3 + sine * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    colours = (1 + brightness) * (1 + contrast) * turn @ ((1 + saturation) * np.eye(3) - saturation * grey)
    return np.column_stack([colours, np.full(3, -contrast * (1 + brightness) * mean)])
