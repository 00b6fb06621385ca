"""A backbone of the zoo -> the network for a task."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ..data.sources import Dataset
from ..errors import ConfigurationError, nearest
from ..spec.detectors import with_ssd
from ..spec.faster_rcnn import with_faster_rcnn
from ..spec.heads import SSDHead, TaskName
from ..spec.model import ModelSpec
from ..spec.segmentation import with_deeplabv3, with_fcn, with_lraspp, with_raspp
from ..spec.transform import with_classes, with_size
from ..training.anchors import with_fitted_anchors
from ..training.checkpoint import load_model
from .progress import tell

if TYPE_CHECKING:
    from .options import TrainOptions

HeadName = Literal["auto", "classifier", "ssdlite", "ssd", "faster_rcnn", "lraspp", "raspp", "deeplabv3", "fcn"]
HEADS: dict[TaskName, tuple[HeadName, ...]] = {  # of each task the usual one first
    "classify": ("classifier",),
    "detect": ("ssdlite", "ssd", "faster_rcnn"),
    "segment": ("lraspp", "raspp", "deeplabv3", "fcn"),
}
HAS: dict[TaskName, str] = {
    "classify": "has one class an image, no boxes",
    "detect": "has boxes",
    "segment": "has masks",
}
OUTPUT_STRIDE, STRIDES = 16, (8, 16, 32)
SIZES: dict[TaskName, tuple[int, ...]] = {
    "classify": (224, 192, 160, 128, 96),
    "detect": (320, 256, 192, 160, 128, 96),
    "segment": (512, 448, 384, 320, 256, 192, 160, 128),
}


def with_head(
    spec: ModelSpec, head: HeadName, classes: int | tuple[str, ...], size: int, output_stride: int | None = None
) -> ModelSpec:
    """The backbone of ``spec`` with the head called ``head`` for ``classes``, and an input of ``size`` pixels.

    ``output_stride``: of a backbone below a head of segmentation; None: 16.
    """
    stride = output_stride or OUTPUT_STRIDE
    match head:
        case "auto" | "classifier":
            return with_classes(with_size(spec, size, ratio=1.0), classes)
        case "ssdlite" | "ssd":
            return with_ssd(spec, classes, size=size, separable=head == "ssdlite")
        case "faster_rcnn":
            return with_faster_rcnn(spec, classes, size=size)
        case "lraspp":
            return with_lraspp(spec, classes, size=size, output_stride=stride)
        case "raspp":
            return with_raspp(spec, classes, size=size, output_stride=stride)
        case "deeplabv3":
            return with_deeplabv3(spec, classes, size=size, output_stride=stride)
        case "fcn":
            return with_fcn(spec, classes, size=size, output_stride=stride)


def wanted_task(head: HeadName, output_stride: int | None = None) -> TaskName | None:
    """The task that a data set is opened for: segmentation, where its head is asked for; None: what lies there.

    Raises ConfigurationError for an unknown head, and for an output stride that is none or of another head.
    """
    if head not in get_args(HeadName):
        raise ConfigurationError(f"head {head!r} is unknown; {nearest(head, get_args(HeadName))}")
    segments = head in HEADS["segment"]
    if output_stride is not None and output_stride not in STRIDES:
        raise ConfigurationError(f"output_stride={output_stride!r}; valid: {', '.join(map(str, STRIDES))}")
    if output_stride is not None and not segments and head != "auto":
        raise ConfigurationError(
            f"output_stride={output_stride} is for segmentation, head={head}; leave one of them out"
        )
    return "segment" if segments else None


def head_for(dataset: Dataset, head: HeadName, output_stride: int | None = None) -> HeadName:
    """What "auto" means for a data set. Raises ConfigurationError for a head of another task."""
    wanted_task(head, output_stride)
    valid = HEADS[dataset.task]
    if head != "auto" and head not in valid:
        raise ConfigurationError(f"head={head}: {dataset.name} {HAS[dataset.task]}; nearest valid: head={valid[0]}")
    if output_stride is not None and dataset.task != "segment":
        raise ConfigurationError(
            f"output_stride={output_stride} is for segmentation, {dataset.name} is to {dataset.task}; leave it out, or "
            "name a head of segmentation (--head lraspp) where the data has masks"
        )
    return valid[0] if head == "auto" else head


def network(dataset: Dataset, spec: ModelSpec, options: "TrainOptions", size: int) -> ModelSpec:
    """The network that is trained on ``dataset``: the head that it needs, and the anchors of its first teacher, or
    where it has none such as fit the boxes. Raises WeightsError for a teacher that cannot be read."""
    stride, teachers = options.output_stride, options.run_teachers
    made = with_head(spec, head_for(dataset, options.head, stride), dataset.classes, size, stride)
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
    or what holds the long side; at least 96. For segmentation the multiple of 32 nearest to the side of a square as
    large as the image, so that about as many pixels are judged as there are; from 128 to 512.
    """
    items = dataset.train[:: max(1, len(dataset.train) // 20)]
    if dataset.task == "segment":
        side = float(np.median([(item.mask.size[0] * item.mask.size[1]) ** 0.5 for item in items if item.mask]))
        return int(min(SIZES["segment"][0], max(SIZES["segment"][-1], round(side / 32) * 32)))
    if dataset.task == "detect":
        side, least = float(np.median([max(item.boxes.size) for item in items if item.boxes])), 96
    else:
        from ..data.image import read_image

        side, least = float(np.median([min(read_image(item.image).shape[:2]) for item in items])), 64
    return int(min(SIZES[dataset.task][0], max(least, -(-side // 32) * 32)))


def sizes_to_try(dataset: Dataset) -> list[int]:
    """The input size that fits the images, and smaller ones."""
    natural = natural_size(dataset)
    return [natural, *(size for size in SIZES[dataset.task] if size < natural)]
