"""Detectors as ONNX: static decoding of every anchor, and the selection of boxes as a few nodes after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..nn.fold import fold
from ..nn.heads.ssd import SSDOutputs, decode
from ..nn.layers import Normalize
from ..nn.model import Model
from ..spec.heads import Selection, SSDHead
from .contract import Corners, Form

if TYPE_CHECKING:
    from onnx import ModelProto


class DeployedDetector(nn.Module):
    """uint8 images [N, S, S, 3] -> of every anchor boxes [N, A, 4] and scores [N, A, classes]; as "raw" its logits
    [N, A, 1 + classes] and codes [N, A, 4]. See ``onnx.Deployed``."""

    def __init__(self, model: Model, form: Form) -> None:
        super().__init__()
        self.normalize = Normalize(model.spec.preprocessing)
        self.model = fold(model).float().cpu()
        self.raw = form == "raw"

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        outputs: SSDOutputs = self.model(self.normalize(image.permute(0, 3, 1, 2).contiguous()))
        return (outputs.logits, outputs.codes) if self.raw else decode(outputs)


@torch.no_grad()
def anchors_of(model: Model) -> tuple[Corners, ...]:
    """x1, y1, x2, y2 of every anchor in pixels of the input."""
    assert isinstance(model.spec.head, SSDHead)
    size, device = model.spec.preprocessing.size, next(model.parameters()).device
    return tuple(map(tuple, model(torch.zeros(1, 3, size, size, device=device)).anchors.tolist()))


EVERY_ANCHOR = ("all_boxes", "all_scores")
# In ONNX's own notation. NonMaxSuppression itself leaves out what scores too little, class by class. Before it, the
# best candidates are looked for (TopK) in those classes only that have more than they may have: there are few, and in
# all classes this takes longer than all the rest. The first class always takes part, which changes nothing: ONNX
# Runtime Web 1.30 divides by zero in a TopK that has no rows.
_SELECTION = """
select (float[1,A,4] all_boxes, float[1,A,C] all_scores) => (float[M,4] boxes, float[M] scores, int64[M] labels)
<float min_score = {{{min_score}}}, float[1] iou = {{{iou}}}, float[1] least = {{{min_score}}}, float zero = {{0}},
 int64[1] per_class = {{{per_class}}}, int64[1] candidates = {{{candidates}}}, float many = {{{candidates}}},
 int64[1] most = {{{most}}}, int64[1] flat = {{-1}}, int64[2] corners = {{-1, 4}}, int64[2] column = {{-1, 1}},
 int64 of_class = {{1}}, int64 of_anchor = {{2}}, int64[1] first = {{0}}, int64[1] last = {{1}}>
{{
    by_anchor = Squeeze (all_scores, first)
    by_class = Transpose <perm = [1, 0]> (by_anchor)
    above = Greater (by_class, min_score)
    ones = Cast <to = 1> (above)
    counts = ReduceSum (ones, last)
    too_many = Greater (counts, many)
    nonzero = NonZero (too_many)
    crowded = Gather (nonzero, first)
    crowded_row = Reshape (crowded, flat)
    crowded_classes = Concat <axis = 0> (crowded_row, first)
    crowded_scores = Gather (by_class, crowded_classes)
    top, places = TopK <sorted = 0> (crowded_scores, candidates)
    limit = ReduceMin (top, last)
    rows = Reshape (crowded_classes, column)
    no_limits = Sub (counts, counts)
    limits = ScatterElements (no_limits, rows, limit)
    lower = Less (by_class, limits)
    chosen = Where (lower, zero, by_class)
    each_class = Unsqueeze (chosen, first)
    kept = NonMaxSuppression (all_boxes, each_class, per_class, iou, least)
    class = Gather <axis = 1> (kept, of_class)
    anchor = Gather <axis = 1> (kept, of_anchor)
    boxes_of_image = Reshape (all_boxes, corners)
    kept_scores = GatherND (each_class, kept)
    number = Shape (kept_scores)
    told = Min (number, most)
    scores, order = TopK (kept_scores, told)
    labels = Gather (class, order)
    best_anchor = Gather (anchor, order)
    boxes = Gather (boxes_of_image, best_anchor)
}}
"""


def add_selection(proto: ModelProto, selection: Selection) -> None:
    """Turn a graph for one image that gives ``EVERY_ANCHOR``, boxes [1, A, 4] and scores [1, A, C], into one that gives
    boxes [M, 4], scores [M] and labels [M]: those that ``selection`` lets through, as ``nn.heads.ssd.detections``."""
    from onnx import compose, parser

    anchors = proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    text = _SELECTION.format(
        min_score=selection.min_score,
        iou=selection.iou,
        per_class=min(selection.candidates, selection.most),
        candidates=min(selection.candidates, anchors),
        most=selection.most,
    )
    same = [(name, name) for name in EVERY_ANCHOR]
    proto.graph.CopyFrom(compose.merge_graphs(proto.graph, parser.parse_graph(text), same))
