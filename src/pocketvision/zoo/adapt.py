"""The caller's network and the one that a file of weights holds, brought together."""

from dataclasses import replace

from ..errors import WeightsError
from ..spec.heads import ClassifierHead, FasterRCNNHead, Head, Selection, SSDHead
from ..spec.model import ModelSpec
from ..spec.transform import with_size
from .catalogue import same_weights
from .keymaps import Layout

Fresh = tuple[str, ...]  # how the names of layers begin that stay as they were initialised
DETECTORS: tuple[Layout, ...] = ("torchvision_rcnn", "torchvision_ssdlite", "tensorflow_ssdlite")


def adapted(spec: ModelSpec, said: ModelSpec) -> ModelSpec:
    """The caller's network with what the weights' own network ``said`` of padding, epsilon, branches and scaling."""
    if not same_weights(spec, said):
        raise WeightsError(
            f"these are weights of {sketch(said)}, which do not fit {sketch(spec)}; build the network that they fit"
        )
    pairs = zip(spec.backbone.rows, said.backbone.rows, strict=True)
    rows = tuple(replace(row, stride=own.stride, dilation=own.dilation, act=own.act) for own, row in pairs)
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


def with_head_of_file(spec: ModelSpec, said: ModelSpec | None, layout: Layout) -> ModelSpec:
    """The caller's network with the head that stands in the file, where either is a detector's.

    ``said``: the file's own network, where it is known; else ``layout`` tells a classifier's file from a detector's.
    """
    from . import MODELS

    if said:
        head = said.head
    elif layout == "pocketvision" or layout in DETECTORS:
        head = spec.head
    else:
        head = MODELS[spec.backbone.name]().head if spec.backbone.name in MODELS else ClassifierHead(1000)
    classifiers = isinstance(spec.head, ClassifierHead) and isinstance(head, ClassifierHead)
    return spec if classifiers or head == spec.head else replace(spec, head=head, labels=())


def with_head_of_caller(spec: ModelSpec, labels: tuple[str, ...], asked: ModelSpec) -> tuple[ModelSpec, Fresh]:
    """The network ``asked`` for as a file's weights need it, and which of its layers these leave as initialised.

    ``spec``: the network of the file; ``labels``: the names of its classes. The head is used where it is the same but
    for its classes, and the layers that tell classes apart only where these are the same too.
    """
    p = asked.preprocessing
    p = replace(spec.preprocessing, size=p.size, resize=p.resize, fit=p.fit)
    if isinstance(asked.head, ClassifierHead) or _without_classes(asked.head) != _without_classes(spec.head):
        return replace(asked, backbone=spec.backbone, preprocessing=p), ("head.",)
    head = replace(asked.head, folded=spec.head.folded) if isinstance(spec.head, SSDHead) else asked.head
    same_names = not asked.labels or not labels or asked.labels == labels
    if head.classes == spec.head.classes and same_names:
        names = asked.labels or (labels if len(labels) == head.classes else ())
        return replace(spec, head=head, labels=names, preprocessing=p), ()
    return replace(spec, head=head, labels=asked.labels, preprocessing=p), _class_layers(head)


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
        case _:
            return replace(head, classes=1, folded=False)


def _class_layers(head: Head) -> Fresh:
    match head:
        case SSDHead():
            last = 1 if head.separable else 0
            return tuple(f"head.classes.{index}.{last}." for index in range(len(head.anchors)))
        case FasterRCNNHead():
            return ("head.regions.logits.", "head.regions.codes.")
        case _:
            return ("head.",)
