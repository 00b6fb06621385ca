"""What SSD learns from: which anchor is to find which box, and how wrong each anchor is about it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.ops import sigmoid_focal_loss

from ..data.loader import Truth
from ..nn.heads.regions import assign
from ..nn.heads.ssd import SSDOutputs
from ..spec.heads import SSDHead

MATCHED_IOU = 0.5
NEGATIVES = 3  # for each positive anchor of an image


class Targets(NamedTuple):
    """Of each anchor: ``classes`` int64 [B, A], 0 for background and -1 for what is not learned from; ``boxes``
    float32 [B, A, 4], x1, y1, x2, y2 in pixels, which mean something where the class is above 0."""

    classes: Tensor
    boxes: Tensor


def match(anchors_A4: Tensor, truths: tuple[Truth, ...]) -> Targets:
    """Each anchor is to find the box that it overlaps most, from an IoU of 0.5; each box has at least one anchor.

    Anchors of which half lies in an ignored box, and which have no other, are not learned from.
    """
    if not truths:  # a process may have no part of a small batch
        return Targets(anchors_A4.new_zeros(0, len(anchors_A4), dtype=torch.int64), anchors_A4.expand(0, -1, -1))
    device, matcher = anchors_A4.device, SSDMatcher(MATCHED_IOU)
    on_device = [Truth(*(tensor.to(device) for tensor in truth)) for truth in truths]
    classes, boxes = zip(*(assign(anchors_A4, truth, matcher) for truth in on_device), strict=True)
    return Targets(torch.stack(classes), torch.stack(boxes))


def ssd_loss(outputs: SSDOutputs, truths: tuple[Truth, ...]) -> Tensor:
    """Scalar float32: loss of classes plus loss of boxes, divided by the positive anchors of the batch.

    Softmax heads: cross-entropy, of background anchors the three most wrong for each positive one of their image
    (arXiv:1512.02325 §2.2), as ``SSD.compute_loss`` of torchvision; an image without boxes has three. Sigmoid heads:
    focal loss over all anchors (arXiv:1708.02002). Boxes: smooth L1 of their codes.
    """
    logits_BAC, codes_BA4, anchors_A4 = outputs.logits.float(), outputs.codes.float(), outputs.anchors.float()
    targets = match(anchors_A4, truths)
    positive_BA = targets.classes > 0
    if outputs.head.scores == "softmax":
        of_classes = _mined_cross_entropy(logits_BAC, targets.classes)
    else:
        of_classes = _focal(logits_BAC, targets.classes)
    anchors_P4 = anchors_A4.expand_as(targets.boxes)[positive_BA]
    wanted_P4 = box_coder(outputs.head).encode_single(targets.boxes[positive_BA], anchors_P4)
    of_boxes = F.smooth_l1_loss(codes_BA4[positive_BA], wanted_P4, reduction="sum")
    return (of_classes + of_boxes) / positive_BA.sum().clamp(min=1)


def box_coder(head: SSDHead) -> BoxCoder:
    """How the head's codes and boxes become each other."""
    centre, side = head.variances
    return BoxCoder((1 / centre, 1 / centre, 1 / side, 1 / side))


def _mined_cross_entropy(logits_BAC: Tensor, classes_BA: Tensor) -> Tensor:
    losses_BA = F.cross_entropy(logits_BAC.mT, classes_BA, reduction="none", ignore_index=-1)
    positive_BA, background_BA = classes_BA > 0, classes_BA == 0
    wrong_BA = losses_BA.detach().masked_fill(~background_BA, -torch.inf)
    rank_BA = wrong_BA.argsort(1, descending=True).argsort(1)
    wanted_B1 = NEGATIVES * positive_BA.sum(1, keepdim=True).clamp(min=1)
    chosen_BA = positive_BA | (background_BA & (rank_BA < wanted_B1))
    return losses_BA[chosen_BA].sum()


def _focal(logits_BAC: Tensor, classes_BA: Tensor) -> Tensor:
    wanted_BAC = F.one_hot(classes_BA.clamp(min=0), logits_BAC.shape[2])[..., 1:].float()
    losses_BAC = sigmoid_focal_loss(logits_BAC[..., 1:], wanted_BAC)
    return losses_BAC[classes_BA >= 0].sum()
