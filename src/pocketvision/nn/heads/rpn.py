"""Where something may be: the region proposal network of Faster R-CNN (arXiv:1506.01497)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from ...spec.heads import FasterRCNNHead, Selection

ANCHOR_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))
SMALLEST = 1e-3  # pixels; a proposal that is narrower, cut off at the border, is none


class AnchorOutputs(NamedTuple):
    """What is said of the anchors: ``objectness`` float32 [B, A] logits, ``codes`` float32 [B, A, 4] on ``anchors``
    [A, 4], x1, y1, x2, y2 in pixels; the first ``counts[0]`` of the A are those of the finest map, and so on."""

    objectness: Tensor
    codes: Tensor
    anchors: Tensor
    counts: tuple[int, ...]


class ProposalNetwork(nn.Module):
    """For each anchor of each map whether it is on an object, and the way from it to the object's box."""

    def __init__(self, head: FasterRCNNHead) -> None:
        super().__init__()
        levels, count = len(head.taps) + 1, len(head.sizes) * len(head.ratios)
        self.conv = nn.Conv2d(head.channels, head.channels, 3, padding=1)
        self.objectness = nn.Conv2d(head.channels, count, 1)
        self.codes = nn.Conv2d(head.channels, 4 * count, 1)
        self.generator = AnchorGenerator((head.sizes,) * levels, (head.ratios,) * levels)

    def initialise(self) -> None:
        """N(0, 0.01), so that nothing is thought to be anything at first."""
        for conv in (self.conv, self.objectness, self.codes):
            assert conv.bias is not None
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor], image_size: tuple[int, int]) -> AnchorOutputs:
        """Maps [B, C, H_i, W_i] of images of ``image_size`` (height, width) pixels."""
        hidden = [F.relu(self.conv(x)) for x in maps]
        objectness = [_by_anchor(self.objectness(x), 1) for x in hidden]
        codes = [_by_anchor(self.codes(x), 4) for x in hidden]
        anchors = self.anchors([(x.shape[-2], x.shape[-1]) for x in maps], image_size, maps[0].device)
        counts = tuple(len(level) for level in anchors)
        return AnchorOutputs(
            torch.cat(objectness, 1).squeeze(-1).float(), torch.cat(codes, 1).float(), torch.cat(anchors), counts
        )

    def anchors(
        self, grids: Sequence[tuple[int, int]], image_size: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        """Of each grid (height, width), its anchors float32 [h * w * sizes * ratios, 4] in pixels."""
        self.generator.set_cell_anchors(torch.float32, device)
        # strides that are rounded down, as torchvision's: weights trained there need the same
        strides = [
            [torch.tensor(side // n, device=device) for side, n in zip(image_size, g, strict=True)] for g in grids
        ]
        return self.generator.grid_anchors([list(grid) for grid in grids], strides)


def _by_anchor(x: Tensor, width: int) -> Tensor:
    """[B, anchors * width, H, W] -> [B, H * W * anchors, width]"""
    return x.unflatten(1, (-1, width)).permute(0, 3, 4, 1, 2).flatten(1, 3)


@torch.no_grad()
def propose(outputs: AnchorOutputs, image_size: tuple[int, int], selection: Selection) -> list[Tensor]:
    """The best boxes of each image, float32 [n, 4] in pixels, within it. No gradients go through them."""
    boxes, scores, levels = best_anchors(outputs, image_size, selection)
    chosen = list[Tensor]()
    for one, score in zip(boxes, scores, strict=True):
        keep = chosen_boxes(one, score, levels, selection, SMALLEST)
        chosen.append(one[keep])
    return chosen


def best_anchors(
    outputs: AnchorOutputs, image_size: tuple[int, int], selection: Selection
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each map the ``selection.candidates`` anchors that score best: boxes [B, T, 4] in pixels, within the image,
    scores [B, T], and the number of the map [T]. Static code, which can be exported."""
    starts = [sum(outputs.counts[:level]) for level in range(len(outputs.counts))]
    scored = outputs.objectness.split(outputs.counts, dim=1)
    best = [level.topk(min(selection.candidates, level.shape[1])).indices for level in scored]
    levels = torch.cat([torch.full(index.shape[1:], level, device=index.device) for level, index in enumerate(best)])
    index = torch.cat([index + start for index, start in zip(best, starts, strict=True)], dim=1)
    scores = outputs.objectness.gather(1, index).sigmoid()
    codes = outputs.codes.gather(1, index[..., None].expand(-1, -1, 4))
    boxes = ANCHOR_CODER.decode_single(codes.flatten(0, 1), outputs.anchors[index.flatten()]).view_as(codes)
    return clip_boxes_to_image(boxes, image_size), scores, levels


def chosen_boxes(boxes: Tensor, scores: Tensor, groups: Tensor, selection: Selection, smallest: float) -> Tensor:
    """Indices of the boxes [n, 4] that score enough, have sides of ``smallest`` pixels and overlap with no better one
    of their group [n], best first."""
    large = remove_small_boxes(boxes, smallest)
    keep = large[scores[large] > selection.min_score]
    return keep[batched_nms(boxes[keep], scores[keep], groups[keep], selection.iou)[: selection.most]]
