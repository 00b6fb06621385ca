"""Faster R-CNN as one ONNX graph: its two selections of boxes as a few nodes each between what torch exports."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, roi_align

from ..errors import ConfigurationError
from ..nn.fold import fold
from ..nn.heads.faster_rcnn import SAMPLES, FasterRCNN
from ..nn.heads.faster_rcnn import SMALLEST as SMALLEST_BOX
from ..nn.heads.regions import REGION_CODER
from ..nn.heads.rpn import SMALLEST as SMALLEST_PROPOSAL
from ..nn.heads.rpn import best_anchors
from ..nn.layers import Normalize
from ..nn.model import Model
from ..spec.heads import FasterRCNNHead, Selection

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

Convert = Callable[..., "ModelProto"]  # (module, example inputs, input names, output names, dynamic shapes)

# NonMaxSuppression's classes are the maps that proposals come from; its batches the classes, whose boxes are their own.
_PROPOSALS = """
propose (float[1,T,4] proposed, float[1,L,T] by_level) => (float[R,4] regions)
<float[1] iou = {{{iou}}}, float[1] least = {{{min_score}}}, int64[1] most = {{{most}}}, int64 of_anchor = {{2}},
 int64[2] corners = {{-1, 4}}, int64[1] first = {{0}}>
{{
    kept = NonMaxSuppression (proposed, by_level, most, iou, least)
    level_scores = GatherND (by_level, kept)
    number = Shape (level_scores)
    told = Min (number, most)
    best, order = TopK (level_scores, told)
    anchor = Gather <axis = 1> (kept, of_anchor)
    best_anchor = Gather (anchor, order)
    candidates = Reshape (proposed, corners)
    regions = Gather (candidates, best_anchor)
}}
"""
_SELECTION = """
select (float[C,R,4] class_boxes, float[C,1,R] class_scores) => (float[M,4] boxes, float[M] scores, int64[M] labels)
<float[1] overlap = {{{iou}}}, float[1] threshold = {{{min_score}}}, int64[1] limit = {{{most}}},
 int64 of_class = {{0}}, int64[2] places = {{0, 2}}>
{{
    kept_boxes = NonMaxSuppression (class_boxes, class_scores, limit, overlap, threshold)
    kept_scores = GatherND (class_scores, kept_boxes)
    count = Shape (kept_scores)
    told_boxes = Min (count, limit)
    scores, ranked = TopK (kept_scores, told_boxes)
    class = Gather <axis = 1> (kept_boxes, of_class)
    labels = Gather (class, ranked)
    both = Gather <axis = 1> (kept_boxes, places)
    each = Gather (both, ranked)
    boxes = GatherND (class_boxes, each)
}}
"""


class Proposals(nn.Module):
    """uint8 image [1, S, S, 3] -> the pyramid's maps that regions look at, candidate boxes [1, T, 4], and their scores
    by the map that they are from [1, L, T], 0 where they are from another or too small."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        assert isinstance(model.head, FasterRCNN)
        self.normalize = Normalize(model.spec.preprocessing)
        self.backbone, self.head = model.backbone, model.head

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x_BCHW, spec = self.normalize(image.permute(0, 3, 1, 2).contiguous()), self.head.spec
        size = (x_BCHW.shape[2], x_BCHW.shape[3])
        maps = self.head.pyramid(self.backbone.tapped(x_BCHW, spec.taps))
        boxes, scores, levels = best_anchors(self.head.proposals(maps, size), size, spec.proposals)
        large = _narrow_side(boxes) >= SMALLEST_PROPOSAL
        own = levels == torch.arange(len(maps), device=levels.device)[:, None]
        return *maps[: len(spec.taps)], boxes, (scores * large)[:, None] * own


class Regions(nn.Module):
    """Maps and regions [R, 4] in pixels -> boxes [C, R, 4] of each class and their scores [C, 1, R]."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        assert isinstance(model.head, FasterRCNN)
        self.head, size = model.head.regions, model.spec.preprocessing.size
        self.size, self.cells = (size, size), model.head.spec.region

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        *maps, regions_R4 = inputs
        align = self.head.align
        assert align.scales is not None and align.map_levels is not None
        level_R = align.map_levels([regions_R4])
        numbered_R5 = torch.cat([torch.zeros_like(regions_R4[:, :1]), regions_R4], 1)
        x_RCHW = roi_align(maps[0], numbered_R5, self.cells, align.scales[0], SAMPLES)
        for level, (map_, scale) in enumerate(zip(maps[1:], align.scales[1:], strict=True), 1):
            other = roi_align(map_, numbered_R5, self.cells, scale, SAMPLES)
            x_RCHW = torch.where((level_R == level)[:, None, None, None], other, x_RCHW)
        logits_RC, codes_RC4 = self.head.classified(x_RCHW)
        boxes = REGION_CODER.decode_single(codes_RC4.flatten(1), regions_R4)
        boxes_CR4 = clip_boxes_to_image(boxes.unflatten(1, (-1, 4))[:, 1:], self.size).permute(1, 0, 2)
        large_CR = _narrow_side(boxes_CR4) >= SMALLEST_BOX
        return boxes_CR4, (logits_RC.softmax(-1)[:, 1:].T * large_CR)[:, None]


def _narrow_side(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...]; not with amin, which ONNX Runtime gets wrong for no boxes at all."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.minimum(x2 - x1, y2 - y1)


@torch.no_grad()
def convert(model: Model, to_onnx: Convert) -> ModelProto:
    """The graph uint8 [1, S, S, 3] -> boxes [M, 4], scores [M], labels [M], as ``nn.heads.faster_rcnn.detections``."""
    from onnx import compose

    head = model.spec.head
    assert isinstance(head, FasterRCNNHead)
    if head.selection.candidates < head.proposals.most:
        raise ConfigurationError(
            f"selection.candidates={head.selection.candidates} is below the {head.proposals.most} regions, which the "
            f"exported graph does not limit again; nearest valid: {head.proposals.most}"
        )
    folded, size = fold(model).float().cpu(), model.spec.preprocessing.size
    folded(torch.zeros(1, 3, size, size))  # the regions' levels are set by the first image
    image = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    proposals, regions = Proposals(folded).eval(), Regions(folded).eval()
    maps = proposals(image)[: len(head.taps)]
    names = [f"map_{level}" for level in range(len(maps))]
    proto = to_onnx(proposals, (image,), ["image"], [*names, "proposed", "by_level"], None)
    boxes = torch.tensor([[0.0, 0.0, size, size]]).repeat(7, 1)
    free = ((None,) * len(maps)) + ({0: torch.export.Dim("R")},)
    second = to_onnx(regions, (*maps, boxes), [*names, "regions"], ["class_boxes", "class_scores"], {"inputs": free})
    graph = proto.graph
    same = [(name, name) for name in ("proposed", "by_level")]
    graph = compose.merge_graphs(graph, _parsed(_PROPOSALS, head.proposals), same, outputs=[*names, "regions"])
    inside = compose.add_prefix_graph(second.graph, "regions/")
    same = [(name, f"regions/{name}") for name in (*names, "regions")]
    graph = compose.merge_graphs(graph, inside, same)
    same = [(f"regions/{name}", name) for name in ("class_boxes", "class_scores")]
    proto.graph.CopyFrom(compose.merge_graphs(graph, _parsed(_SELECTION, head.selection), same))
    return proto


def _parsed(text: str, selection: Selection) -> GraphProto:
    from onnx import parser

    return parser.parse_graph(text.format(iou=selection.iou, min_score=selection.min_score, most=selection.most))
