"""Whether a recipe, a data set and teachers fit what is to be trained: said before anything is written."""

from dataclasses import fields
from typing import Any

from ..data.sources import Dataset, Item
from ..data.transforms import Augment
from ..errors import ConfigurationError, DataError
from ..spec.heads import FasterRCNNHead, SSDHead, TaskName, task_of
from ..spec.model import ModelSpec
from .anchors import grids
from .recipe import Recipe

WORDS: dict[TaskName, str] = {"classify": "classification", "detect": "detection", "segment": "segmentation"}
_WITHOUT: dict[str, Any] = {"mixup": 0.0, "head_first": False, "label_smoothing": 0.0}  # what says nothing
_WITHOUT |= {f"augment.{f.name}": getattr(Augment(), f.name) for f in fields(Augment)}
_MEANT_FOR: dict[str, tuple[TaskName, ...]] = {
    **dict.fromkeys(("mixup", "head_first"), ("classify",)),
    "label_smoothing": ("classify", "segment"),
    **dict.fromkeys((f"augment.{name}" for name in ("scale", "ratio", "jitter", "policy", "erase")), ("classify",)),
    **dict.fromkeys((f"augment.{name}" for name in ("zoom_out", "iou_crop", "mosaic")), ("detect",)),
    "augment.distort": ("detect", "segment"),
    "augment.zoom": ("segment",),
}


def unused_fields(recipe: Recipe, task: TaskName) -> dict[str, Any]:
    """The fields of ``recipe`` that have no effect on ``task``, each with the value that says nothing."""
    values = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    values |= {f"augment.{f.name}": getattr(recipe.augment, f.name) for f in fields(recipe.augment)}
    others = [name for name, tasks in _MEANT_FOR.items() if task not in tasks]
    return {name: _WITHOUT[name] for name in others if values[name] != _WITHOUT[name]}


def check_fit(recipe: Recipe, data: Dataset) -> None:
    """Raise ConfigurationError for fields of the recipe that would have no effect, DataError for a data set without
    boxes to learn or to be measured on."""
    if unused := unused_fields(recipe, data.task):
        meant = [WORDS[task] for task in WORDS if any(task in _MEANT_FOR[name] for name in unused)]
        valid = ", ".join(f"{name}={list(v) if isinstance(v, tuple) else v}" for name, v in unused.items())
        are = "is" if len(unused) == 1 else "are"
        raise ConfigurationError(
            f"{', '.join(unused)} {are} for {' and '.join(meant)}, {data.name} is to {data.task}; "
            f"nearest valid: {valid}"
        )
    if data.task != "detect":
        return
    if not _boxes(data.train):
        raise DataError(f"{data.name}: its {len(data.train)} training images have no boxes that count; annotate some")
    if data.val and not _boxes(data.val):
        raise DataError(
            f"{data.name}: its {len(data.val)} validation images have no boxes that count, so no epoch can be judged; "
            "annotate some, or, where they were drawn, draw others (--seed 1)"
        )


def _boxes(items: tuple[Item, ...]) -> int:
    return sum(item.boxes.counted for item in items if item.boxes)


def check_teacher(teacher: ModelSpec, student: ModelSpec) -> None:
    """Raise ConfigurationError where a student's head cannot imitate a teacher's: another task's, of boxes another kind
    or other anchors. Any two heads of segmentation say the same kind of thing of the same pixels."""
    ours, theirs, name = student.head, teacher.head, f"the teacher {teacher.backbone.name}"
    if task_of(ours) == task_of(theirs) == "segment":
        return
    if type(ours) is not type(theirs):
        kinds = f"a {type(theirs).__name__}, the student a {type(ours).__name__}"
        raise ConfigurationError(f"{name} has {kinds}; train one of them with the other's --head")
    if isinstance(ours, FasterRCNNHead):
        raise ConfigurationError(
            "distillation of detectors is for SSD heads, these are of Faster R-CNN; nearest valid: --head ssdlite"
        )
    if not isinstance(ours, SSDHead) or not isinstance(theirs, SSDHead):
        return
    size, wanted = student.preprocessing.size, teacher.preprocessing.size
    if size != wanted:
        raise ConfigurationError(
            f"{name} has an input of {wanted} px, the student {size} px; train with --imgsz {wanted}"
        )
    if ours.scores != "softmax" or theirs.scores != "softmax":
        raise ConfigurationError(f"{name} and the student need softmax scores, not {theirs.scores} and {ours.scores}")
    if (ours.anchors, ours.variances, grids(student)) != (theirs.anchors, theirs.variances, grids(teacher)):
        raise ConfigurationError(
            f"{name} has other anchors than the student, such as were fitted to other boxes; give the student the "
            "teacher's, as the command `train --teacher` does, or train the teacher on the same data"
        )
