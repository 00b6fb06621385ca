"""A backbone of the zoo -> the network for a task."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..data.sources import Dataset, TaskName
from ..errors import ConfigurationError, nearest
from ..spec.detectors import with_ssd
from ..spec.faster_rcnn import with_faster_rcnn
from ..spec.heads import SSDHead
from ..spec.model import ModelSpec
from ..spec.transform import with_classes, with_size
from ..training.anchors import with_fitted_anchors
from ..training.checkpoint import load_model
from .progress import tell

HeadName = Literal["auto", "classifier", "ssdlite", "ssd", "faster_rcnn"]
DETECTORS = ("ssdlite", "ssd", "faster_rcnn")
SIZES: dict[TaskName, tuple[int, ...]] = {"classify": (224, 192, 160, 128, 96), "detect": (320, 256, 192, 160, 128, 96)}


def with_head(spec: ModelSpec, head: HeadName, classes: int | tuple[str, ...], size: int) -> ModelSpec:
    """The backbone of ``spec`` with the head called ``head`` for ``classes``, and an input of ``size`` pixels."""
    match head:
        case "auto" | "classifier":
            return with_classes(with_size(spec, size, ratio=1.0), classes)
        case "ssdlite" | "ssd":
            return with_ssd(spec, classes, size=size, separable=head == "ssdlite")
        case "faster_rcnn":
            return with_faster_rcnn(spec, classes, size=size)


def head_for(dataset: Dataset, head: HeadName) -> HeadName:
    """What "auto" means for a data set. Raises ConfigurationError for a head of another task."""
    if head not in get_args(HeadName):
        raise ConfigurationError(f"head {head!r} is unknown; {nearest(head, get_args(HeadName))}")
    valid = DETECTORS if dataset.task == "detect" else ("classifier",)
    if head != "auto" and head not in valid:
        what = "has boxes" if dataset.task == "detect" else "has one class an image, no boxes"
        raise ConfigurationError(f"head={head}: {dataset.name} {what}; nearest valid: head={valid[0]}")
    return valid[0] if head == "auto" else head


def network(
    dataset: Dataset, spec: ModelSpec, head: HeadName, size: int, teachers: Sequence[str | Path] = ()
) -> ModelSpec:
    """The network that is trained on ``dataset``: the head that it needs, and the anchors of its first teacher, or
    where it has none such as fit the boxes. Raises WeightsError for a teacher that cannot be read."""
    made = with_head(spec, head_for(dataset, head), dataset.classes, size)
    if not isinstance(made.head, SSDHead):
        return made
    if teachers and isinstance(teacher := load_model(teachers[0]).spec.head, SSDHead):
        if len(teacher.anchors) == len(made.head.anchors):
            return replace(made, head=replace(made.head, anchors=teacher.anchors))
        return made
    fitted, fit = with_fitted_anchors(made, [item.boxes for item in dataset.train if item.boxes])
    if fit:
        tell(str(fit))
    return fitted


def natural_size(dataset: Dataset) -> int:
    """The input size that fits the images.

    For classification 224, or for smaller images the multiple of 32 that holds their short side; at least 64: these
    networks halve the resolution five times, and the last map needs more than one pixel. For detection 320 (FACTS H5),
    or what holds the long side; at least 96.
    """
    items = dataset.train[:: max(1, len(dataset.train) // 20)]
    if dataset.task == "detect":
        side, least = float(np.median([max(item.boxes.size) for item in items if item.boxes])), 96
    else:
        from ..data.image import read_image

        side, least = float(np.median([min(read_image(item.image).shape[:2]) for item in items])), 64
    return int(min(SIZES[dataset.task][0], max(least, -(-side // 32) * 32)))
