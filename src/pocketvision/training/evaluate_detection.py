"""Average precision of any detector: a torch model, or an exported file in its runtime."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.boxes import Boxes
from ..data.loader import ImageLoader
from ..data.sources import Item
from ..errors import ConfigurationError, DataError
from ..nn.layers import Normalize
from ..nn.model import Model
from ..spec.model import Preprocessing
from ..tasks.coco import WRONG, CocoScores, Found, coco_scores, matches
from ..tasks.detection import found_in, to_arrays
from .memory import keep_freed_memory

Detect = Callable[[np.ndarray], Sequence[Found]]
WORST = 50  # images with the most errors, kept


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What a class has at an IoU of 0.5 when only boxes from a score on are taken: ``scores`` falling, and at each of
    them ``recall`` and ``precision`` [n], 0 to 1. ``boxes``: how many there are to find."""

    scores: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    boxes: int

    @property
    def best(self) -> tuple[float, float, float]:
        """Score, recall and precision where their harmonic mean (F1) is highest; 1, 0, 0 where nothing is right."""
        total = self.recall + self.precision
        if not total.any():
            return 1.0, 0.0, 0.0
        at = int(np.argmax(self.recall * self.precision / np.maximum(total, 1e-12)))
        return float(self.scores[at]), float(self.recall[at]), float(self.precision[at])


@dataclass(frozen=True, slots=True, eq=False)
class Errors:
    """An image, what is in it and what was found there from each class's best score on; ``missed``: numbers of true
    boxes, ``wrong``: numbers of found ones."""

    image: str
    truth: Boxes
    found: Found
    missed: tuple[int, ...]
    wrong: tuple[int, ...]

    @property
    def weight(self) -> float:
        """How bad it is: the missed boxes, and the scores of the wrong ones."""
        return len(self.missed) + float(self.found.scores[list(self.wrong)].sum())


@dataclass(frozen=True, slots=True, eq=False)
class DetectionResult:
    """What an evaluation counted. ``n``: images; ``curves``: one per class; ``worst``: images with errors, the worst
    first."""

    classes: tuple[str, ...]
    n: int
    scores: CocoScores
    curves: tuple[Curve, ...]
    worst: tuple[Errors, ...]

    @property
    def metric(self) -> str:
        """Name of the figure that decides."""
        return "map"

    @property
    def value(self) -> float:
        """The figure that decides, 0 to 1."""
        return self.metrics.get("map", 0.0)

    @property
    def metrics(self) -> dict[str, float]:
        """COCO's: ``map`` (of IoUs from 0.50 to 0.95), ``ap50``, ``ap75``, ``map_small``, ``_medium``, ``_large``, each
        0 to 1, and absent where there is no such box."""
        return self.scores.metrics()

    def table(self) -> list[dict[str, Any]]:
        """One row per class: ``ap``, ``ap50`` (None without boxes), ``precision`` and ``recall`` from ``score`` on,
        where F1 is best at an IoU of 0.5, and how many ``boxes`` there are."""
        rows = list[dict[str, Any]]()
        for label, (name, curve) in enumerate(zip(self.classes, self.curves, strict=True)):
            score, recall, precision = curve.best
            row = {"class": name, "ap": self.scores.ap(label=label), "ap50": self.scores.ap(0.5, label=label)}
            row |= {"precision": precision, "recall": recall, "score": score, "boxes": curve.boxes}
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; classes by name."""
        curves = [
            {"class": name, "score": c.scores.tolist(), "recall": c.recall.tolist(), "precision": c.precision.tolist()}
            for name, c in zip(self.classes, self.curves, strict=True)
        ]
        return {**self.metrics, "n": self.n, "classes": self.table(), "curves": curves, "worst": self._worst()}

    def _worst(self) -> list[dict[str, Any]]:
        return [
            {
                "file": errors.image,
                "missed": [
                    {"class": self.classes[errors.truth.labels[i]], "box": list(errors.truth.corners[i])}
                    for i in errors.missed
                ],
                "wrong": [
                    {
                        "class": self.classes[int(errors.found.labels[i])],
                        "box": errors.found.boxes[i].tolist(),
                        "score": float(errors.found.scores[i]),
                    }
                    for i in errors.wrong
                ],
            }
            for errors in self.worst
        ]

    def __str__(self) -> str:
        names = {"map": "mAP", "ap50": "AP50", "ap75": "AP75"}
        names |= {f"map_{area}": area for area in ("small", "medium", "large")}
        numbers = ", ".join(f"{names[key]} {value:.1%}" for key, value in self.metrics.items())
        boxes = sum(curve.boxes for curve in self.curves)
        width = max(5, *map(len, self.classes))
        lines = [
            f"{numbers or 'no boxes to find'}; {self.n} images, {boxes} boxes",
            f"{'class':{width}}     AP   AP50  precision  recall  from score  boxes",
        ]
        for row in self.table():
            ap, ap50 = ("-" if row[key] is None else f"{row[key]:.1%}" for key in ("ap", "ap50"))
            best = f"{row['precision']:>9.1%}  {row['recall']:>6.1%}  {row['score']:>10.2f}"
            lines.append(f"{row['class']:{width}}  {ap:>5}  {ap50:>5}  {best}  {row['boxes']:>5}")
        return "\n".join(lines)


def evaluate_detector(
    predict: Detect,
    items: Sequence[Item],
    preprocessing: Preprocessing,
    classes: Sequence[str],
    *,
    batch: int = 32,
    workers: int = 0,
) -> DetectionResult:
    """Compare what ``predict`` finds in ``items``, prepared as ``preprocessing`` says, with their boxes.

    ``predict``: uint8 [B, S, S, 3] RGB -> of each image what was found, in pixels of that input. Raises DataError for
    an image that cannot be read or has no list of boxes and for no images, ConfigurationError for classes that are not
    there or numbers that are not finite.
    """
    if not items:
        raise DataError("there are no images to evaluate on; choose a split that has some")
    truths, everything = [_truth(item) for item in items], list[Found]()
    for images in ImageLoader(items, preprocessing, batch=batch, workers=workers).epoch():
        pixels_BSS3 = np.ascontiguousarray(images.images.permute(0, 2, 3, 1).numpy())
        side = (pixels_BSS3.shape[2], pixels_BSS3.shape[1])
        for item, found in zip(images.items, predict(pixels_BSS3), strict=True):
            _check(found, len(classes))
            everything.append(found.stretched(side, _truth(item).size))
    return compare([item.image for item in items], truths, everything, classes)


def compare(
    images: Sequence[str], truths: Sequence[Boxes], found: Sequence[Found], classes: Sequence[str]
) -> DetectionResult:
    """The result of ``found``, in pixels of the originals, against ``truths``."""
    matched = [matches(truth, one) for truth, one in zip(truths, found, strict=True)]
    curves = tuple(_curve(truths, found, matched, label) for label in range(len(classes)))
    thresholds_C = np.array([curve.best[0] for curve in curves])
    errors = [
        _errors(image, truth, one, match, thresholds_C)
        for image, truth, one, match in zip(images, truths, found, matched, strict=True)
    ]
    worst = sorted((e for e in errors if e.missed or e.wrong), key=lambda e: (-e.weight, e.image))[:WORST]
    scores = coco_scores(truths, found, len(classes))
    return DetectionResult(tuple(classes), len(images), scores, curves, tuple(worst))


def _truth(item: Item) -> Boxes:
    if item.boxes is None:
        raise DataError(
            f"{item.image}: nothing says which boxes are in it; evaluate a detector on a detection data set"
        )
    return item.boxes


def _check(found: Found, classes: int) -> None:
    if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        raise ConfigurationError("the model gives boxes that are not finite; its weights are damaged, train it again")
    if len(found.labels) and not 0 <= found.labels.min() <= found.labels.max() < classes:
        raise ConfigurationError(
            f"the model finds class number {found.labels.max()}, the data has {classes} classes; "
            "evaluate it on the classes that it was trained for"
        )


def _curve(truths: Sequence[Boxes], found: Sequence[Found], matched: Sequence[np.ndarray], label: int) -> Curve:
    boxes = sum(
        one == label and not ignored
        for truth in truths
        for one, ignored in zip(truth.labels, truth.ignored, strict=True)
    )
    scores, right = list[np.ndarray](), list[np.ndarray]()
    for one, match in zip(found, matched, strict=True):
        counted = (one.labels == label) & (match >= WRONG)
        scores.append(one.scores[counted])
        right.append(match[counted] >= 0)
    scores_n = np.concatenate(scores)
    order = np.argsort(-scores_n, kind="stable")
    right_n = np.concatenate(right)[order].cumsum()
    return Curve(scores_n[order], right_n / max(1, boxes), right_n / np.arange(1, len(order) + 1), boxes)


def _errors(image: str, truth: Boxes, found: Found, match: np.ndarray, thresholds_C: np.ndarray) -> Errors:
    shown = np.flatnonzero(found.scores >= thresholds_C[found.labels])
    hit = set(match[shown].tolist())
    missed = tuple(i for i, ignored in enumerate(truth.ignored) if not ignored and i not in hit)
    wrong = tuple(np.flatnonzero(match[shown] == WRONG).tolist())
    return Errors(image, truth, found.at(shown), missed, wrong)


def torch_detector(model: Model, device: str = "cpu") -> Detect:
    """``model`` as a function uint8 [B, S, S, 3] -> what it finds in each, normalising as its spec says.

    Moves the model to ``device`` and channels_last and switches it to eval mode.
    """
    if device == "cpu":
        keep_freed_memory()
    normalize = Normalize(model.spec.preprocessing).to(device)
    model.to(device).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def predict(pixels_BSS3: np.ndarray) -> list[Found]:
        images_B3SS = torch.from_numpy(pixels_BSS3).to(device).permute(0, 3, 1, 2)  # which is channels_last
        return [to_arrays(found) for found in found_in(model(normalize(images_B3SS)))]

    return predict
