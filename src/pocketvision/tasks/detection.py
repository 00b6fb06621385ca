"""Object detection: the losses of SSD and Faster R-CNN, COCO's metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.boxes import Boxes
from ..data.loader import Batch
from ..errors import ConfigurationError
from ..nn.heads import faster_rcnn, ssd
from ..nn.heads.detections import Detections
from ..nn.heads.faster_rcnn import RegionOutputs, region_losses
from ..nn.heads.ssd import SSDOutputs
from . import LossOptions
from .coco import Found, coco_scores
from .ssd_loss import ssd_loss

SEEN = 0.1  # probability of a class from which on a teacher sees something in an anchor


def found_in(outputs: SSDOutputs | RegionOutputs) -> list[Detections]:
    """The boxes that a detector reports of each image."""
    return faster_rcnn.detections(outputs) if isinstance(outputs, RegionOutputs) else ssd.detections(outputs)


def to_arrays(found: Detections) -> Found:
    """The same as NumPy arrays."""
    return Found(found.boxes.double().cpu().numpy(), found.scores.double().cpu().numpy(), found.labels.cpu().numpy())


@dataclass(slots=True)
class DetectionMeter:
    """COCO's metrics of the images that it has seen, in pixels of the originals."""

    classes: int = 0
    _truths: list[Boxes] = field(default_factory=list, repr=False)
    _found: list[Found] = field(default_factory=list, repr=False)

    def update(self, outputs: SSDOutputs | RegionOutputs, batch: Batch) -> None:
        """Outputs of a detector in eval mode for the images of ``batch``, whose items say what is to be found."""
        self.classes = outputs.head.classes
        height, width = batch.images.shape[2:]
        for item, found in zip(batch.items, found_in(outputs), strict=True):
            assert item.boxes is not None
            self._truths.append(item.boxes)
            self._found.append(to_arrays(found).stretched((width, height), item.boxes.size))

    def merge(self, gathered: Callable[[Tensor], list[Tensor]]) -> None:
        """Take in what the meters of other processes have seen."""
        parts = gathered(self._packed())
        self._truths, self._found = [], []
        for part in parts:
            self._unpack(part)

    def _packed(self) -> Tensor:
        """Everything as one row of numbers: the number of classes, then of each image its size, how many boxes it has,
        how many were found, and all of these."""
        values = [np.array([float(self.classes)])]
        for truth, found in zip(self._truths, self._found, strict=True):
            values.append(np.array([*truth.size, len(truth.labels), len(found.labels)], np.float64))
            boxes = [np.asarray(truth.corners, np.float64).reshape(-1, 4), truth.labels, truth.ignored]
            values.append(np.column_stack(boxes).ravel())
            values.append(np.column_stack(found).ravel())
        return torch.from_numpy(np.concatenate(values))

    def _unpack(self, packed: Tensor) -> None:
        values = packed.cpu().numpy()
        self.classes, at = max(self.classes, int(values[0])), 1
        while at < len(values):
            width, height, truths, found = map(int, values[at : at + 4])
            at += 4
            rows = values[at : at + 6 * truths].reshape(-1, 6)
            at += 6 * truths
            corners = tuple((row[0], row[1], row[2], row[3]) for row in rows[:, :4].tolist())
            labels, ignored = rows[:, 4].astype(int).tolist(), rows[:, 5].astype(bool).tolist()
            self._truths.append(Boxes((width, height), corners, tuple(labels), tuple(ignored)))
            rows = values[at : at + 6 * found].reshape(-1, 6)
            at += 6 * found
            self._found.append(Found(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64)))

    def compute(self) -> dict[str, float]:
        """``map``, ``ap50``, ``ap75``, and ``map_small``, ``_medium``, ``_large`` where there are such boxes, from 0 to
        1. Empty when there was no box in any image."""
        return coco_scores(self._truths, self._found, self.classes).metrics()


@dataclass(frozen=True, slots=True)
class Detection:
    """Boxes with a class each."""

    name: str = "detect"
    metric: str = "map"

    def loss(self, outputs: SSDOutputs | RegionOutputs, batch: Batch, options: LossOptions) -> Tensor:
        """SSD: ``ssd_loss``; Faster R-CNN: the sum of the losses of its two stages."""
        if isinstance(outputs, RegionOutputs):
            return torch.stack(list(region_losses(outputs).values())).sum()
        return ssd_loss(outputs, batch.boxes)

    def imitation(self, outputs: Any, teachers: Sequence[Any], temperature: float) -> Tensor:
        """How far an SSD's classes and boxes are from the mean of its teachers', which must have the same anchors.

        Kullback-Leibler divergence of the classes' probabilities times temperature^2 (arXiv:1503.02531 §2), plus the
        distance (L1) of box codes, weighted by how surely the teachers see something there; divided by how much
        they see.
        """
        everyone = (outputs, *teachers)
        softmax = all(isinstance(one, SSDOutputs) and one.head.scores == "softmax" for one in everyone)
        if not softmax or not all(torch.equal(teacher.anchors, outputs.anchors) for teacher in teachers):
            raise ConfigurationError(
                "distillation of detectors needs SSD heads with softmax scores and the same anchors; "
                "train the teacher with the same head, or train without teachers"
            )
        seen_BA = torch.stack([1 - F.softmax(one.logits.float(), 2)[..., 0] for one in teachers]).mean(0)
        weight_BA = seen_BA.where(seen_BA >= SEEN, 0)
        wanted_BAC = torch.stack([F.softmax(one.logits.float() / temperature, 2) for one in teachers]).mean(0)
        log_BAC = F.log_softmax(outputs.logits.float() / temperature, 2)
        of_classes = F.kl_div(log_BAC, wanted_BAC, reduction="sum") * temperature**2
        codes_BA4 = torch.stack([one.codes.float() for one in teachers]).mean(0)
        of_boxes = ((outputs.codes.float() - codes_BA4).abs().sum(2) * weight_BA).sum()
        return (of_classes + of_boxes) / weight_BA.sum().clamp(min=1)

    def meter(self) -> DetectionMeter:
        """A new, empty meter."""
        return DetectionMeter()
