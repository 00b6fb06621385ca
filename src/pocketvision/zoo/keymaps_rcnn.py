"""Names of the weights in torchvision's Faster R-CNN, beside those of its backbones (``keymaps``)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import WeightsError
from ..spec.heads import FasterRCNNHead
from ..spec.model import ModelSpec

# what torchvision's files of before 2022 call the layers that are a list of one convolution today
OLD = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^rpn\.head\.conv\.(weight|bias)$"), r"rpn.head.conv.0.0.\1"),
)


def of_today(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict with the names that torchvision's Faster R-CNN has today, whichever it had."""
    named = dict[str, Any]()
    for name, tensor in state.items():
        for pattern, today in OLD:
            name = pattern.sub(today, name)
        named[name] = tensor
    return named


def torchvision_rcnn(backbone: Iterator[tuple[str, str]], spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Our layers and theirs; ``backbone``: the same of the classifier, whose own layers are left out."""
    if not isinstance(spec.head, FasterRCNNHead):
        raise WeightsError(f"these are weights of a Faster R-CNN, and a {type(spec.head).__name__} is asked for")
    for our, their in backbone:
        if our.startswith("backbone."):
            yield our, their.replace("features.", "backbone.body.", 1)
    for level in range(len(spec.head.taps)):
        yield f"head.pyramid.lateral.{level}", f"backbone.fpn.inner_blocks.{level}.0"
        yield f"head.pyramid.output.{level}", f"backbone.fpn.layer_blocks.{level}.0"
    yield "head.proposals.conv", "rpn.head.conv.0.0"
    yield "head.proposals.objectness", "rpn.head.cls_logits"
    yield "head.proposals.codes", "rpn.head.bbox_pred"
    yield "head.regions.hidden1", "roi_heads.box_head.fc6"
    yield "head.regions.hidden2", "roi_heads.box_head.fc7"
    yield "head.regions.logits", "roi_heads.box_predictor.cls_score"
    yield "head.regions.codes", "roi_heads.box_predictor.bbox_pred"
