"""Segmentation: cross-entropy of every pixel, mean intersection over union."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.loader import Batch
from ..data.mask_transforms import resized_mask
from ..data.masks import VOID, nearest
from ..nn.heads.masks import MaskOutputs
from . import LossOptions

AUX = 0.5  # weight of the auxiliary head's loss, as in TorchVision's references (FACTS H20)


def enlarged(found: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A class map [h, w] at ``size`` (width, height): of each pixel there the one that covers its centre."""
    return resized_mask(found, size[1], size[0])


def confusion(truth: Tensor, found: Tensor, classes: int) -> Tensor:
    """Pixels of each true class (rows) and found class, int64 [classes, classes]; void ones of ``truth`` are left out.

    ``truth``, ``found``: class indices of the same shape; ``found`` below ``classes``.
    """
    counted = truth != VOID
    pairs = truth[counted].long() * classes + found[counted].long()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def ious(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, float64 [classes]; NaN where it is neither there nor found."""
    right = np.diag(matrix).astype(np.float64)
    either = matrix.sum(0) + matrix.sum(1) - right
    return np.divide(right, either, out=np.full(len(right), np.nan), where=either > 0)


def scores(matrix: np.ndarray) -> dict[str, float]:
    """``miou``, the mean over the classes that are there or found, and ``pixel_accuracy``, from 0 to 1; {} where no
    pixel counts."""
    total = int(matrix.sum())
    if not total:
        return {}
    return {"miou": float(np.nanmean(ious(matrix))), "pixel_accuracy": float(np.trace(matrix)) / total}


@dataclass(slots=True)
class SegmentationMeter:
    """One confusion matrix of all pixels seen, int64 [classes, classes], on the device of the outputs.

    Class maps are enlarged to each mask's own size and judged there.
    """

    matrix: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))

    def update(self, outputs: MaskOutputs, batch: Batch) -> None:
        """Outputs for the images of ``batch``, whose masks have any size."""
        classes, device = outputs.logits.shape[1], outputs.logits.device
        if not len(self.matrix):
            self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        found_BHW = outputs.logits.argmax(1)
        for found_HW, mask_HW in zip(found_BHW, batch.masks, strict=True):
            rows, columns = (
                torch.from_numpy(nearest(*sides)).to(device)
                for sides in zip(found_HW.shape, mask_HW.shape, strict=True)
            )
            self.matrix += confusion(mask_HW.to(device), found_HW[rows[:, None], columns], classes)

    def merge(self, gathered: Callable[[Tensor], list[Tensor]]) -> None:
        """Add what the meters of other processes have seen; some may have seen nothing."""
        parts = [part for part in gathered(self.matrix.flatten().cpu()) if len(part)]
        if parts:
            classes = round(len(parts[0]) ** 0.5)
            self.matrix = torch.stack(parts).sum(0).view(classes, classes)

    def compute(self) -> dict[str, float]:
        """``miou`` and ``pixel_accuracy``, from 0 to 1. Empty when no pixel counted."""
        return scores(self.matrix.cpu().numpy())


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A class for every pixel."""

    name: str = "segment"
    metric: str = "miou"

    def loss(self, outputs: MaskOutputs, batch: Batch, options: LossOptions) -> Tensor:
        """Mean cross-entropy over the pixels that are not void, in float32, plus half of the auxiliary head's.

        Where all are void, or there are no images, it is 0.
        """
        shape = (0, *outputs.logits.shape[2:])
        masks = torch.stack(batch.masks) if batch.masks else torch.empty(shape, dtype=torch.uint8)
        target_BHW = masks.to(outputs.logits.device).long()
        count = (target_BHW != VOID).sum().clamp(min=1)

        def of(logits_BCHW: Tensor) -> Tensor:
            smoothing = options.label_smoothing
            total = F.cross_entropy(
                logits_BCHW.float(), target_BHW, ignore_index=VOID, label_smoothing=smoothing, reduction="sum"
            )
            return total / count

        return of(outputs.logits) if outputs.aux is None else of(outputs.logits) + AUX * of(outputs.aux)

    def imitation(self, outputs: MaskOutputs, teachers: Sequence[MaskOutputs], temperature: float) -> Tensor:
        """Kullback-Leibler divergence between the mean of the teachers' probabilities and the student's in the mean
        over all pixels, times temperature^2 (arXiv:1503.02531 §2), plus half of the auxiliary head's."""
        wanted = torch.stack([F.softmax(one.logits.float() / temperature, 1) for one in teachers]).mean(0)
        pixels = wanted.numel() // wanted.shape[1]

        def of(logits_BCHW: Tensor) -> Tensor:
            log = F.log_softmax(logits_BCHW.float() / temperature, 1)
            return F.kl_div(log, wanted, reduction="sum") * temperature**2 / pixels

        return of(outputs.logits) if outputs.aux is None else of(outputs.logits) + AUX * of(outputs.aux)

    def meter(self) -> SegmentationMeter:
        """A new, empty meter."""
        return SegmentationMeter()
