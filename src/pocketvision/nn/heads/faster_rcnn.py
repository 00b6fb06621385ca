"""Faster R-CNN with a feature pyramid (S0, FACTS H11 to H15; arXiv:1506.01497, arXiv:1612.03144)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign, clip_boxes_to_image

from ...spec.heads import FasterRCNNHead
from ...spec.model import BackboneSpec
from .detections import Detections
from .fpn import FeaturePyramid
from .regions import REGION_CODER, Targets, Truth, anchor_targets, region_targets
from .rpn import AnchorOutputs, ProposalNetwork, chosen_boxes, propose

SAMPLES = 2  # points a side in each cell of a region
BETA = 1 / 9  # where the loss of boxes turns from square to linear
SMALLEST = 1e-2  # pixels; a narrower box is not reported


@dataclass(slots=True)
class RegionOutputs:
    """What Faster R-CNN says of B images of ``image_size`` (height, width) pixels.

    ``regions``: of each image, boxes [n_i, 4] where something may be; of all their N, ``logits`` float32
    [N, 1 + classes], the first the background's, and ``codes`` float32 [N, 1 + classes, 4]. With truth the regions are
    a sample, true boxes among them, and ``anchor_targets`` and ``region_targets`` say what should have been said.
    """

    head: FasterRCNNHead
    image_size: tuple[int, int]
    anchors: AnchorOutputs
    regions: list[Tensor]
    logits: Tensor
    codes: Tensor
    anchor_targets: Targets | None = None
    region_targets: Targets | None = None


class RegionHead(nn.Module):
    """The features in a region, two hidden layers, a class and for each class a box.

    A region's size says from which stride its features come (arXiv:1612.03144 §4.2); of two maps with the same stride,
    as torchvision takes them (FACTS C-15), all come from the first, and the second only proposes.
    """

    def __init__(self, head: FasterRCNNHead) -> None:
        super().__init__()
        self.align = MultiScaleRoIAlign([str(level) for level in range(len(head.taps))], head.region, SAMPLES)
        self.hidden1 = nn.Linear(head.channels * head.region**2, head.hidden)
        self.hidden2 = nn.Linear(head.hidden, head.hidden)
        self.logits = nn.Linear(head.hidden, 1 + head.classes)
        self.codes = nn.Linear(head.hidden, 4 * (1 + head.classes))

    def initialise(self) -> None:
        """As torch does: N(0, 0.01) would be too much for so many inputs."""
        for layer in (self.hidden1, self.hidden2, self.logits, self.codes):
            layer.reset_parameters()

    def forward(
        self, maps: Sequence[Tensor], regions: list[Tensor], image_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Maps of the pyramid, and boxes of each image -> logits [N, 1 + classes], codes [N, 1 + classes, 4]."""
        x_NC = maps[0].new_zeros(0, self.hidden1.in_features)  # of no images, which MultiScaleRoIAlign does not take
        if regions:
            self.align.scales = None  # it would keep those of the first input it has seen
            named = {str(level): x for level, x in enumerate(maps)}
            x_NC = self.align(named, regions, [image_size] * len(regions)).flatten(1)
        return self.classified(x_NC)

    def classified(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is seen in the cells of N regions [N, channels, region, region] -> their logits and codes."""
        x_NC = F.relu(self.hidden2(F.relu(self.hidden1(x.flatten(1)))))
        return self.logits(x_NC).float(), self.codes(x_NC).float().unflatten(1, (-1, 4))


class FasterRCNN(nn.Module):
    """Pyramid, proposals and what they are, on the features of a backbone."""

    def __init__(self, head: FasterRCNNHead, backbone: BackboneSpec) -> None:
        super().__init__()
        self.spec = head
        self.pyramid = FeaturePyramid([backbone.tapped_channels(tap) for tap in head.taps], head.channels)
        self.proposals = ProposalNetwork(head)
        self.regions = RegionHead(head)

    def initialise(self) -> None:
        """Random weights as torchvision's Faster R-CNN starts with."""
        for part in (self.pyramid, self.proposals, self.regions):
            part.initialise()

    def forward(
        self, features: Sequence[Tensor], image_size: tuple[int, int], truth: Sequence[Truth] | None = None
    ) -> RegionOutputs:
        """Features of the head's taps, finest first, of images of ``image_size`` (height, width) pixels.

        With ``truth``, one for each image, outputs to learn from (``region_losses``), else to report (``detections``).
        """
        maps = self.pyramid(features)
        anchors = self.proposals(maps, image_size)
        selection = self.spec.proposals if truth is None else self.spec.training_proposals
        regions, of_anchors, of_regions = propose(anchors, image_size, selection), None, None
        if truth is not None:
            of_anchors = anchor_targets(anchors.anchors, truth)
            regions, of_regions = region_targets(regions, truth, anchors.anchors)
        logits, codes = self.regions(maps, regions, image_size)
        return RegionOutputs(self.spec, image_size, anchors, regions, logits, codes, of_anchors, of_regions)


def region_losses(outputs: RegionOutputs) -> dict[str, Tensor]:
    """``objectness`` and ``anchor_boxes`` of the proposal network, ``classes`` and ``boxes`` of the regions: scalars,
    whose plain sum is trained. ``outputs`` must come from a forward pass with truth."""
    assert outputs.anchor_targets is not None and outputs.region_targets is not None, "outputs without truth"
    anchors, target = outputs.anchors, outputs.anchor_targets
    used, objects = target.labels >= 0, target.labels == 1
    objectness = F.binary_cross_entropy_with_logits(
        anchors.objectness[used], target.labels[used].float(), reduction="sum"
    )
    ways = F.smooth_l1_loss(anchors.codes[objects], target.codes[objects], beta=BETA, reduction="sum")
    regions = outputs.region_targets
    found = regions.labels.nonzero().squeeze(1)
    classes = F.cross_entropy(outputs.logits, regions.labels, reduction="sum")
    codes = outputs.codes[found, regions.labels[found]]
    boxes = F.smooth_l1_loss(codes, regions.codes[found], beta=BETA, reduction="sum")
    of_anchors, of_regions = used.sum().clamp(min=1), max(1, len(regions.labels))  # of nothing: 0
    return {
        "objectness": objectness / of_anchors,
        "anchor_boxes": ways / of_anchors,
        "classes": classes / of_regions,
        "boxes": boxes / of_regions,
    }


@torch.no_grad()
def detections(outputs: RegionOutputs) -> list[Detections]:
    """What is found in each image, as the head's selection says; ``outputs`` of a forward pass without truth."""
    assert outputs.region_targets is None, "these regions are a sample that the truth is part of"
    selection, count = outputs.head.selection, [len(boxes) for boxes in outputs.regions]
    scores_NC = outputs.logits.softmax(-1)[:, 1:]
    regions = torch.cat([outputs.anchors.anchors[:0], *outputs.regions])  # of no images: none
    boxes = REGION_CODER.decode_single(outputs.codes.flatten(1), regions)
    boxes_NC4 = clip_boxes_to_image(boxes.view_as(outputs.codes), outputs.image_size)[:, 1:]
    found = list[Detections]()
    for boxes_nC4, scores_nC in zip(boxes_NC4.split(count), scores_NC.split(count), strict=True):
        best = scores_nC.topk(min(selection.candidates, len(scores_nC)), dim=0).indices
        scores, labels = scores_nC.gather(0, best), torch.arange(scores_nC.shape[1], device=best.device)
        boxes, scores, labels = (
            boxes_nC4[best, labels].flatten(0, 1),
            scores.flatten(),
            labels.expand_as(best).flatten(),
        )
        keep = chosen_boxes(boxes, scores, labels, selection, SMALLEST)
        found.append(Detections(boxes[keep], scores[keep], labels[keep]))
    return found
