"""SSDLite and SSD: a class and a box for every anchor of several feature maps (S4 §6.2, arXiv:1512.02325)."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...spec.heads import Selection, SSDHead
from ...spec.model import BackboneSpec
from ..layers import ConvNorm, conv2d
from .detections import Detections

BN_EPS, BN_MOMENTUM = 1e-3, 0.03  # of the head's own BatchNorms, as torchvision's SSDLite (FACTS H6)
CERTAIN = 12.0  # difference of two logits
LARGEST_STRETCH = math.log(1000 / 16)  # of an anchor's side, so that no code overflows exp


@dataclass(frozen=True, slots=True)
class SSDOutputs:
    """What SSD says of a batch: ``logits`` [B, A, 1 + classes], background first; ``codes`` [B, A, 4]: dx, dy, dw, dh
    relative to ``anchors`` [A, 4], which are x1, y1, x2, y2 in pixels of the input of ``size`` (height, width)."""

    logits: Tensor
    codes: Tensor
    anchors: Tensor
    size: tuple[int, int]
    head: SSDHead


class SSD(nn.Module):
    """The extra feature maps and the two predictions on every map."""

    def __init__(self, head: SSDHead, backbone: BackboneSpec) -> None:
        super().__init__()
        self.spec = head
        spec = replace(backbone, bn_eps=BN_EPS, bn_momentum=BN_MOMENTUM, folded=head.folded)
        channels = [backbone.tapped_channels(tap) for tap in head.taps]
        extra_inputs = [channels[-1], *head.extras[:-1]]
        extras = (_extra(spec, head, c_in, out) for c_in, out in zip(extra_inputs, head.extras, strict=False))
        self.extras = nn.ModuleList(extras)
        maps = list(zip([*channels, *head.extras], head.anchors, strict=True))
        self.classes = nn.ModuleList(_prediction(spec, head, c, len(a) * (1 + head.classes)) for c, a in maps)
        self.boxes = nn.ModuleList(_prediction(spec, head, c, len(a) * 4) for c, a in maps)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> SSDOutputs:
        """``features``: [B, C, H, W] at each of the head's taps; ``size``: height and width of the input in pixels."""
        maps = list(features)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        grids = [(map_.shape[2], map_.shape[3]) for map_ in maps]
        anchors_A4 = anchor_boxes(self.spec.anchors, grids, size, maps[0].device)
        logits = _per_anchor(self.classes, maps, 1 + self.spec.classes)
        return SSDOutputs(logits, _per_anchor(self.boxes, maps, 4), anchors_A4, size, self.spec)

    @torch.no_grad()
    def expect_background(self) -> None:
        """Let every anchor see background, as nearly all of a trained detector's do.

        The selection of random scores, which takes in every anchor, costs many times what a trained network's does.
        """
        for prediction in self.classes:
            assert isinstance(prediction, nn.Sequential)
            bias = prediction[-1].bias
            assert isinstance(bias, Tensor)
            bias.view(-1, 1 + self.spec.classes)[:, 1:] -= CERTAIN

    def initialise(self) -> None:
        """Weights of N(0, 0.03), as torchvision's; biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.03)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _extra(spec: BackboneSpec, head: SSDHead, c_in: int, out: int) -> nn.Sequential:
    """[B, c_in, H, W] -> [B, out, H / 2, W / 2], through half as many channels."""
    half = max(1, out // 2)
    reduce = ConvNorm(spec, conv2d(spec, c_in, half), head.act)
    if not head.separable:
        return nn.Sequential(reduce, ConvNorm(spec, conv2d(spec, half, out, kernel=3, stride=2), head.act))
    depthwise = ConvNorm(spec, conv2d(spec, half, half, kernel=3, stride=2, groups=half), head.act)
    return nn.Sequential(reduce, depthwise, ConvNorm(spec, conv2d(spec, half, out), head.act))


def _prediction(spec: BackboneSpec, head: SSDHead, channels: int, out: int) -> nn.Sequential:
    """[B, channels, H, W] -> [B, out, H, W]: depthwise 3x3 and 1x1, or one 3x3 (FACTS H1)."""
    if not head.separable:
        return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1))
    depthwise = ConvNorm(spec, conv2d(spec, channels, channels, kernel=3, groups=channels), head.act)
    return nn.Sequential(depthwise, nn.Conv2d(channels, out, 1))


def _per_anchor(predictions: nn.ModuleList, maps: list[Tensor], values: int) -> Tensor:
    """Of each map [B, anchors * values, H, W], all together: [B, A, values]."""
    predicted = [prediction(x_BCHW) for prediction, x_BCHW in zip(predictions, maps, strict=True)]
    batch = maps[0].shape[0]  # len() would fix the batch of an exported graph
    return torch.cat([y_BCHW.permute(0, 2, 3, 1).reshape(batch, -1, values) for y_BCHW in predicted], 1)


def anchor_boxes(
    anchors: tuple[tuple[tuple[float, float], ...], ...],
    grids: list[tuple[int, int]],
    size: tuple[int, int],
    device: torch.device | None = None,
) -> Tensor:
    """[A, 4]: x1, y1, x2, y2 in pixels of an input of ``size`` (height, width): for each map of ``grids`` (its height
    and width) row by row the boxes of each cell, around its middle."""
    boxes = list[Tensor]()
    for sides, (rows, columns) in zip(anchors, grids, strict=True):
        wh_A2 = torch.tensor(sides, device=device)
        y_H = (torch.arange(rows, device=device) + 0.5) / rows
        x_W = (torch.arange(columns, device=device) + 0.5) / columns
        centres_HW12 = torch.stack(torch.meshgrid(x_W, y_H, indexing="xy"), -1)[:, :, None]
        boxes.append(torch.cat([centres_HW12 - 0.5 * wh_A2, centres_HW12 + 0.5 * wh_A2], -1).reshape(-1, 4))
    height, width = size
    return torch.cat(boxes) * torch.tensor([width, height, width, height], device=device)


def decode(outputs: SSDOutputs) -> tuple[Tensor, Tensor]:
    """Boxes [B, A, 4] (x1, y1, x2, y2 in pixels, inside the input) and scores [B, A, classes] of every anchor.

    Static code without loops over images or classes, so that it can be exported.
    """
    x1_A, y1_A, x2_A, y2_A = outputs.anchors.unbind(1)
    width_A, height_A = x2_A - x1_A, y2_A - y1_A
    of_centre, of_size = outputs.head.variances
    dx_BA, dy_BA, dw_BA, dh_BA = outputs.codes.float().unbind(2)
    x_BA = x1_A + 0.5 * width_A + dx_BA * of_centre * width_A
    y_BA = y1_A + 0.5 * height_A + dy_BA * of_centre * height_A
    half_w_BA = 0.5 * width_A * (dw_BA * of_size).clamp(max=LARGEST_STRETCH).exp()
    half_h_BA = 0.5 * height_A * (dh_BA * of_size).clamp(max=LARGEST_STRETCH).exp()
    height, width = map(float, outputs.size)
    left_BA, right_BA = (x_BA - half_w_BA).clamp(0.0, width), (x_BA + half_w_BA).clamp(0.0, width)
    top_BA, bottom_BA = (y_BA - half_h_BA).clamp(0.0, height), (y_BA + half_h_BA).clamp(0.0, height)
    logits = outputs.logits.float()
    scores = logits.softmax(2) if outputs.head.scores == "softmax" else logits.sigmoid()
    return torch.stack([left_BA, top_BA, right_BA, bottom_BA], 2), scores[:, :, 1:]


@torch.no_grad()
def detections(outputs: SSDOutputs) -> list[Detections]:
    """Of each image the boxes that the head's Selection lets through, best first."""
    return [selected(*image, outputs.head.selection) for image in zip(*decode(outputs), strict=True)]


@torch.no_grad()
def selected(boxes_A4: Tensor, scores_AC: Tensor, selection: Selection) -> Detections:
    """Of one image's decoded boxes those that ``selection`` lets through, best first."""
    from torchvision.ops import batched_nms

    count = min(selection.candidates, len(boxes_A4))
    scores_CK, anchors_CK = scores_AC.T.contiguous().topk(count, dim=1)
    labels_N, places_N = torch.nonzero(scores_CK > selection.min_score, as_tuple=True)
    scores_N, boxes_N4 = scores_CK[labels_N, places_N], boxes_A4[anchors_CK[labels_N, places_N]]
    kept = batched_nms(boxes_N4, scores_N, labels_N, selection.iou)[: selection.most]
    return Detections(boxes_N4[kept], scores_N[kept], labels_N[kept])
