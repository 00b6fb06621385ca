"""The caller's network and the one that a file of weights holds, brought together."""

from dataclasses import replace

from ..errors import WeightsError
from ..spec.heads import (
    ClassifierHead,
    DeepLabV3Head,
    FasterRCNNHead,
    FCNHead,
    Head,
    LRASPPHead,
    SegmentationHead,
    Selection,
    SSDHead,
)
from ..spec.model import ModelSpec
from ..spec.transform import with_backbone, with_size
from .catalogue import same_weights
from .keymaps import Layout

Fresh = tuple[str, ...]  # how the names of layers begin that stay as they were initialised
AUXILIARY: Fresh = ("head.aux.",)
# of files that have no classifier
WITH_HEADS: tuple[Layout, ...] = (
    "torchvision_rcnn",
    "torchvision_ssdlite",
    "tensorflow_ssdlite",
    "torchvision_masks",
    "tensorflow_deeplab",
)


def adapted(spec: ModelSpec, said: ModelSpec) -> ModelSpec:
    """The caller's network with what the weights' own network ``said`` of padding, epsilon, branches, scaling and, at
    the same output stride, dilations."""
    if not same_weights(said, spec):
        raise WeightsError(
            f"these are weights of {sketch(said)}, which do not fit {sketch(spec)}; build the network that they fit"
        )
    pairs = list(zip(spec.backbone.rows, said.backbone.rows, strict=True))
    same = spec.backbone.strides() == said.backbone.strides()
    rows = tuple(
        replace(row, stride=own.stride, dilation=row.dilation if same else own.dilation, act=own.act)
        for own, row in pairs
    )
    return replace(
        with_size(said, spec.preprocessing.size),
        backbone=replace(said.backbone, rows=rows),
        head=spec.head,
        labels=spec.labels,
    )


def sketch(spec: ModelSpec) -> str:
    """A network in a few words, for an error message."""
    widths = [row.out for row in spec.backbone.rows]
    hidden = f", hidden {spec.head.hidden}" if isinstance(spec.head, ClassifierHead) and spec.head.hidden else ""
    return f"{spec.backbone.name} ({len(widths)} rows, {widths[0]} to {widths[-1]} channels{hidden})"


def as_in_file(spec: ModelSpec, said: ModelSpec | None, layout: Layout) -> ModelSpec:
    """The caller's network with the head that stands in the file, where either is no classifier's, and with the
    backbone's last rows that a head for segmentation leaves out and the file has.

    ``said``: the file's own network, where it is known; else ``layout`` tells a classifier's file from others. The rows
    of an unknown file are as wide as the zoo has them, which does for their names.
    """
    from . import MODELS

    name, table = spec.backbone.name, said
    if said:
        head = said.head
    elif layout == "pocketvision" or layout in WITH_HEADS:
        head = spec.head
    else:
        table = MODELS[name]() if name in MODELS else None
        head = table.head if table else ClassifierHead(1000)
    if isinstance(spec.head, SegmentationHead) and table and table.backbone.name == name:
        rows = spec.backbone.rows
        spec = with_backbone(spec, rows=rows + table.backbone.rows[len(rows) :])
    classifiers = isinstance(spec.head, ClassifierHead) and isinstance(head, ClassifierHead)
    return spec if classifiers or head == spec.head else replace(spec, head=head, labels=())


def unused(spec: ModelSpec, file: ModelSpec) -> Fresh:
    """How the names begin of what ``spec`` has not and ``file``, the network that a file holds, may have."""
    rows = range(len(spec.backbone.rows), len(file.backbone.rows))
    return (*(f"backbone.rows.{row}." for row in rows), *(() if _has_aux(spec.head) else AUXILIARY))


def _has_aux(head: Head) -> bool:
    return isinstance(head, DeepLabV3Head | FCNHead) and head.aux is not None


def with_head_of_caller(spec: ModelSpec, labels: tuple[str, ...], asked: ModelSpec) -> tuple[ModelSpec, Fresh]:
    """The network ``asked`` for as a file's weights need it, and which of its layers these leave as initialised.

    ``spec``: the network of the file; ``labels``: the names of its classes. The head is used where it is the same but
    for its classes, and the layers that tell classes apart only where these are the same too.
    """
    p = asked.preprocessing
    p = replace(spec.preprocessing, size=p.size, resize=p.resize, fit=p.fit)
    spec = with_backbone(spec, rows=spec.backbone.rows[: len(asked.backbone.rows)])
    if isinstance(asked.head, ClassifierHead) or _without_classes(asked.head) != _without_classes(spec.head):
        return replace(asked, backbone=spec.backbone, preprocessing=p), ("head.",)
    head, auxiliary = asked.head, ()
    if not isinstance(head, FasterRCNNHead):
        assert not isinstance(spec.head, ClassifierHead | FasterRCNNHead)
        head = replace(head, folded=spec.head.folded)
        if isinstance(head, DeepLabV3Head) and isinstance(spec.head, DeepLabV3Head):
            head = replace(head, align_corners=spec.head.align_corners)
        auxiliary = AUXILIARY if _has_aux(head) and not _has_aux(spec.head) else ()
    same_names = not asked.labels or not labels or asked.labels == labels
    if head.classes == spec.head.classes and same_names:
        names = asked.labels or (labels if len(labels) == head.classes else ())
        return replace(spec, head=head, labels=names, preprocessing=p), auxiliary
    return replace(spec, head=head, labels=asked.labels, preprocessing=p), auxiliary + _class_layers(head)


def _without_classes(head: Head) -> Head:
    """What decides the shapes and the meaning of a head's weights, classes apart."""
    match head:
        case ClassifierHead():
            return head
        case SSDHead():
            return replace(head, classes=1, selection=Selection(), folded=False)
        case FasterRCNNHead():
            every = Selection()
            return replace(head, classes=1, selection=every, proposals=every, training_proposals=every)
        case LRASPPHead():
            return replace(head, classes=1, folded=False)
        case DeepLabV3Head():
            return replace(head, classes=1, folded=False, dropout=0.0, aux=None, align_corners=False)
        case FCNHead():
            return replace(head, classes=1, folded=False, dropout=0.0, aux=None)


def _class_layers(head: Head) -> Fresh:
    match head:
        case SSDHead():
            last = 1 if head.separable else 0
            return tuple(f"head.classes.{index}.{last}." for index in range(len(head.anchors)))
        case FasterRCNNHead():
            return ("head.regions.logits.", "head.regions.codes.")
        case LRASPPHead():
            return ("head.low_classes.", "head.high_classes.")
        case DeepLabV3Head():
            return ("head.classes.", "head.aux.classes.")
        case FCNHead():
            return ("head.prediction.classes.", "head.aux.classes.")
        case ClassifierHead():
            return ("head.linear.",)
