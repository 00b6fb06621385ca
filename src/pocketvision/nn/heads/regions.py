"""What Faster R-CNN learns from: boxes paired with the truth, and a sample of them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import box_area, box_iou

from .rpn import ANCHOR_CODER

# arXiv:1506.01497 §3.1.2 and arXiv:1504.08083 §2.3, numbers as in torchvision
ANCHOR_MATCHER = Matcher(0.7, 0.3, allow_low_quality_matches=True)
ANCHOR_SAMPLER = BalancedPositiveNegativeSampler(256, 0.5)
REGION_MATCHER = Matcher(0.5, 0.5)
REGION_SAMPLER = BalancedPositiveNegativeSampler(512, 0.25)
REGION_CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))
COVERED = 0.5  # share of a box that lies in an ignored one: then it is not background


class Truth(Protocol):
    """What is in one image: ``data.loader.Truth``, on the device of the network."""

    @property
    def boxes(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def ignored(self) -> Tensor: ...


class Targets(NamedTuple):
    """What boxes should have been. ``labels`` int64 [n]: the class from 1 on, 0 background, -1 not in the sample;
    ``codes`` float32 [n, 4]: the way to the object's box, meaningless where there is none."""

    labels: Tensor
    codes: Tensor


def assign(boxes: Tensor, truth: Truth, matcher: Matcher) -> tuple[Tensor, Tensor]:
    """Of each box [n, 4] its class from 1 on (0: background, -1: neither) int64 [n], and its object's box [n, 4].

    What lies in an ignored box is no background. Objects without area are no objects: every box would match them.
    """
    real = _real(truth)
    objects, classes = truth.boxes[real], truth.labels[real] + 1
    if len(objects):
        index = matcher(box_iou(objects, boxes))
        labels, nearest = classes[index.clamp(min=0)], objects[index.clamp(min=0)]
        labels[index == matcher.BELOW_LOW_THRESHOLD] = 0
        labels[index == matcher.BETWEEN_THRESHOLDS] = -1
    else:
        labels, nearest = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device), boxes
    labels[(labels == 0) & _covered(boxes, truth.boxes[truth.ignored])] = -1
    return labels, nearest


def _real(truth: Truth) -> Tensor:
    """Which of the true boxes are learned: bool [m]."""
    return ~truth.ignored & (box_area(truth.boxes) > 0)


def _covered(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Whether an ignored box [m, 4] covers a good part of a box [n, 4]: bool [n]."""
    corners = torch.cat(
        [
            torch.maximum(boxes[:, None, :2], ignored[None, :, :2]),
            torch.minimum(boxes[:, None, 2:], ignored[None, :, 2:]),
        ],
        dim=-1,
    )
    shared = (corners[..., 2:] - corners[..., :2]).clamp(min=0).prod(-1)
    return (shared >= COVERED * box_area(boxes)[:, None]).any(1)


@torch.no_grad()
def anchor_targets(anchors: Tensor, truth: Sequence[Truth]) -> Targets:
    """For the anchors [A, 4] of each of B images: labels [B, A] 1, 0 or -1, and codes [B, A, 4]."""
    pairs = [assign(anchors, image, ANCHOR_MATCHER) for image in truth]
    labels = [classes.clamp(max=1) for classes, _ in pairs]
    codes = [ANCHOR_CODER.encode_single(boxes, anchors) for _, boxes in pairs]
    chosen = _sampled(labels, ANCHOR_SAMPLER)
    sampled = [label.where(mask, -1) for label, mask in zip(labels, chosen, strict=True)]
    labels, shape = [_no_labels(anchors), *sampled], (len(truth), len(anchors))
    return Targets(torch.cat(labels).view(shape), torch.cat([anchors[:0], *codes]).view(*shape, 4))


@torch.no_grad()
def region_targets(
    proposals: Sequence[Tensor], truth: Sequence[Truth], anchors: Tensor
) -> tuple[list[Tensor], Targets]:
    """A sample of the proposals [n_i, 4] of each image, the true boxes being proposals too, and what they should be:
    for all images one after the other. ``anchors`` [A, 4] say on which device no images at all are."""
    pools = [torch.cat([some, image.boxes[_real(image)]]) for some, image in zip(proposals, truth, strict=True)]
    pairs = [assign(pool, image, REGION_MATCHER) for pool, image in zip(pools, truth, strict=True)]
    chosen = _sampled([classes for classes, _ in pairs], REGION_SAMPLER)
    regions, labels, codes = list[Tensor](), [_no_labels(anchors)], [anchors[:0]]
    for pool, (classes, boxes), mask in zip(pools, pairs, chosen, strict=True):
        regions.append(pool[mask])
        labels.append(classes[mask])
        codes.append(REGION_CODER.encode_single(boxes[mask], pool[mask]))
    return regions, Targets(torch.cat(labels), torch.cat(codes))


def _no_labels(boxes: Tensor) -> Tensor:
    return torch.zeros(0, dtype=torch.int64, device=boxes.device)


def _sampled(labels: list[Tensor], sampler: BalancedPositiveNegativeSampler) -> list[Tensor]:
    """Of each image, which boxes are in the sample: bool [n]."""
    positive, negative = sampler(labels)
    return [(a | b).bool() for a, b in zip(positive, negative, strict=True)]
