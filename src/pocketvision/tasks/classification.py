"""Image classification: cross-entropy, top-1 and top-5 accuracy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
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

    def merge(self, gathered: Callable[[Tensor], list[Tensor]]) -> None:
        """Add what the meters of other processes have seen."""
        parts = gathered(torch.tensor([self.n, self._loss, *self._hits], dtype=torch.float64))
        n, self._loss, *hits = torch.stack(parts).sum(0).tolist()
        self.n, self._hits = round(n), [round(hit) for hit in hits]

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
        (arXiv:1512.00567 §7). Of blended images it is the blend of both labels' losses, of no images 0.
        """
        if not batch.items:
            return outputs.sum()
        logits_BC, smoothing = outputs.float(), options.label_smoothing
        loss = F.cross_entropy(logits_BC, batch.labels.to(outputs.device), label_smoothing=smoothing)
        if batch.mixed is None:
            return loss
        labels_B, share = batch.mixed
        other = F.cross_entropy(logits_BC, labels_B.to(outputs.device), label_smoothing=smoothing)
        return (1 - share) * loss + share * other

    def imitation(self, outputs: Tensor, teachers: Sequence[Tensor], temperature: float) -> Tensor:
        """Cross-entropy between the mean of the teachers' probabilities and the student's, less its least value.

        That is their Kullback-Leibler divergence, times temperature^2, which keeps gradients as large at every
        temperature (arXiv:1503.02531 §2).
        """
        targets_BC = torch.stack([F.softmax(logits.float() / temperature, 1) for logits in teachers]).mean(0)
        log_BC = F.log_softmax(outputs.float() / temperature, 1)
        return F.kl_div(log_BC, targets_BC, reduction="batchmean") * temperature**2

    def meter(self) -> ClassificationMeter:
        """A new, empty meter."""
        return ClassificationMeter()
