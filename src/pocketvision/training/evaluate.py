"""Accuracy of anything that predicts: a torch model, or an exported file in its runtime."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.loader import ImageLoader
from ..data.sources import Item
from ..errors import ConfigurationError, DataError
from ..nn.layers import Normalize
from ..nn.model import Model
from ..spec.model import Preprocessing
from .memory import keep_freed_memory

Predict = Callable[[np.ndarray], np.ndarray]
MISTAKES = 50  # of the worst ones, kept


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image whose label (index of the class) is not the predicted one; ``score``: the probability of the latter."""

    image: str
    label: int
    predicted: int
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationResult:
    """What an evaluation counted. ``confusion``: integers [classes, classes], rows are the labels, columns the
    predictions. ``top5``: None with 5 classes or fewer. ``mistakes``: those of the highest score, worst first."""

    classes: tuple[str, ...]
    confusion: np.ndarray
    top5: float | None
    mistakes: tuple[Mistake, ...]

    @property
    def n(self) -> int:
        """Images."""
        return int(self.confusion.sum())

    @property
    def metric(self) -> str:
        """Name of the figure that decides."""
        return "top1"

    @property
    def value(self) -> float:
        """The figure that decides, 0 to 1."""
        return self.top1

    @property
    def top1(self) -> float:
        """Share of the images whose highest score is their label's, 0 to 1."""
        return float(np.trace(self.confusion)) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of ``top1`` for images like these."""
        return wilson(int(np.trace(self.confusion)), self.n)

    def table(self) -> list[dict[str, Any]]:
        """One row per class: ``precision`` (None when never predicted), ``recall`` (None without images), ``n``."""
        right, labelled, predicted = np.diag(self.confusion), self.confusion.sum(1), self.confusion.sum(0)
        return [
            {
                "class": name,
                "precision": float(right[i] / predicted[i]) if predicted[i] else None,
                "recall": float(right[i] / labelled[i]) if labelled[i] else None,
                "n": int(labelled[i]),
            }
            for i, name in enumerate(self.classes)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; classes of mistakes by name."""
        mistakes = [
            {"file": m.image, "label": self.classes[m.label], "predicted": self.classes[m.predicted], "score": m.score}
            for m in self.mistakes
        ]
        return {
            "top1": self.top1,
            "top5": self.top5,
            "n": self.n,
            "interval": list(self.interval),
            "classes": self.table(),
            "confusion": self.confusion.tolist(),
            "mistakes": mistakes,
        }

    def __str__(self) -> str:
        low, high = self.interval
        top5 = "" if self.top5 is None else f", top-5 {self.top5:.2%}"
        width = max(5, *map(len, self.classes))
        lines = [
            f"top-1 {self.top1:.2%} (95% interval {low:.1%} to {high:.1%}){top5}, {self.n} images",
            f"{'class':{width}}  precision  recall  images",
        ]
        for row in self.table():
            precision, recall = ("-" if row[key] is None else f"{row[key]:.1%}" for key in ("precision", "recall"))
            lines.append(f"{row['class']:{width}}  {precision:>9}  {recall:>6}  {row['n']:>6}")
        return "\n".join(lines)


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95% confidence interval of a share ``right / n`` (Wilson 1927), which holds for few images too."""
    z = 1.959964
    centre, half = right + z * z / 2, z * math.sqrt(right * (n - right) / n + z * z / 4)
    return max(0.0, (centre - half) / (n + z * z)), min(1.0, (centre + half) / (n + z * z))


def evaluate(
    predict: Predict,
    items: Sequence[Item],
    preprocessing: Preprocessing,
    classes: Sequence[str],
    *,
    batch: int = 32,
    workers: int = 0,
) -> ClassificationResult:
    """Count right and wrong predictions over ``items``, prepared as ``preprocessing`` says.

    ``predict``: uint8 [B, S, S, 3] RGB -> scores [B, classes], logits or probabilities. Raises DataError for an
    image that cannot be read or no images, ConfigurationError for scores of another shape or that are not finite.
    """
    if not items:
        raise DataError("there are no images to evaluate on; choose a split that has some")
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    within5, worst = 0, list[Mistake]()
    for images in ImageLoader(items, preprocessing, batch=batch, workers=workers).epoch():
        pixels_BSS3 = np.ascontiguousarray(images.images.permute(0, 2, 3, 1).numpy())
        scores_BC = np.asarray(predict(pixels_BSS3))
        _check(scores_BC, (len(pixels_BSS3), len(classes)))
        labels_B, predicted_B = images.labels.numpy(), scores_BC.argmax(1)
        np.add.at(confusion, (labels_B, predicted_B), 1)
        own_B1 = np.take_along_axis(scores_BC, labels_B[:, None], 1)
        within5 += int(((scores_BC > own_B1).sum(1) < 5).sum())
        probability_BC = probabilities(scores_BC)
        for i in np.flatnonzero(labels_B != predicted_B).tolist():
            score = float(probability_BC[i, predicted_B[i]])
            mistake = Mistake(images.items[i].image, int(labels_B[i]), int(predicted_B[i]), score)
            worst.append(mistake)
        worst = sorted(worst, key=lambda mistake: (-mistake.score, mistake.image))[:MISTAKES]
    top5 = within5 / len(items) if len(classes) > 5 else None
    return ClassificationResult(tuple(classes), confusion, top5, tuple(worst))


def _check(scores: np.ndarray, shape: tuple[int, int]) -> None:
    if scores.shape != shape:
        raise ConfigurationError(
            f"the model gives scores of shape {scores.shape}, the data needs {shape} (images, classes); "
            "evaluate it on the classes that it was trained for"
        )
    if not np.isfinite(scores).all():
        raise ConfigurationError("the model gives scores that are not finite; its weights are damaged, train it again")


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Scores [B, classes] as probabilities: softmax, unless each row is one already (not negative, sum 1)."""
    if scores.min() >= 0 and np.allclose(scores.sum(1), 1, atol=1e-3):
        return scores
    exponentials = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def torch_predictor(model: Model, device: str = "cpu") -> Predict:
    """``model`` as a function uint8 [B, S, S, 3] -> logits float32 [B, classes], normalising as its spec says.

    Moves the model to ``device`` and channels_last and switches it to eval mode.
    """
    if device == "cpu":
        keep_freed_memory()
    normalize = Normalize(model.spec.preprocessing).to(device)
    model.to(device).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def predict(pixels_BSS3: np.ndarray) -> np.ndarray:
        images_B3SS = torch.from_numpy(pixels_BSS3).to(device).permute(0, 3, 1, 2)  # which is channels_last
        return model(normalize(images_B3SS)).float().cpu().numpy()

    return predict
