"""Image classification: cross-entropy, top-1 and top-5 accuracy."""

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from ..data.loader import Batch
from . import LossOptions


@dataclass(slots=True)
class ClassificationMeter:
    """Cross-entropy without smoothing, top-1 and (with more than 5 classes) top-5 accuracy of what it has seen."""

    n: int = 0
    classes: int = 0
    _loss: float = field(default=0.0, repr=False)
    _hits: list[int] = field(default_factory=lambda: [0, 0], repr=False)

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Logits [B, classes], labels [B]."""
        logits_BC, labels_B = outputs.detach().float(), batch.labels.to(outputs.device)
        self.n, self.classes = self.n + len(labels_B), logits_BC.shape[1]
        self._loss += F.cross_entropy(logits_BC, labels_B, reduction="sum").item()
        ranked_B5 = logits_BC.topk(min(5, self.classes), dim=1).indices
        hits_B5 = ranked_B5 == labels_B[:, None]
        self._hits[0] += int(hits_B5[:, 0].sum())
        self._hits[1] += int(hits_B5.sum())

    def compute(self) -> dict[str, float]:
        """Accuracies from 0 to 1. Empty when nothing was seen."""
        if not self.n:
            return {}
        metrics = {"top1": self._hits[0] / self.n}
        if self.classes > 5:
            metrics["top5"] = self._hits[1] / self.n
        return metrics | {"loss": self._loss / self.n}


@dataclass(frozen=True, slots=True)
class Classification:
    """One label per image."""

    name: str = "classify"
    metric: str = "top1"

    def loss(self, outputs: Tensor, batch: Batch, options: LossOptions) -> Tensor:
        """Mean cross-entropy of logits [B, classes] in float32.

        With label smoothing e the target is 1 - e + e / classes for the label and e / classes elsewhere
        (arXiv:1512.00567 §7).
        """
        labels_B = batch.labels.to(outputs.device)
        return F.cross_entropy(outputs.float(), labels_B, label_smoothing=options.label_smoothing)

    def meter(self) -> ClassificationMeter:
        """A new, empty meter."""
        return ClassificationMeter()
