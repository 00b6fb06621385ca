"""COCO's metrics of detection, by faster-coco-eval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ..data.boxes import Boxes

Area = Literal["all", "small", "medium", "large"]
AREAS: tuple[Area, ...] = ("all", "small", "medium", "large")  # apart at 32 x 32 and 96 x 96 pixels
MOST = 100  # boxes of an image that count, the best ones


class Found(NamedTuple):
    """What a detector found in one image: ``boxes`` [n, 4], x1, y1, x2, y2 in pixels; ``scores`` [n], 0 to 1;
    ``labels`` [n], whole numbers from 0."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def stretched(self, size: tuple[int, int], to: tuple[int, int]) -> "Found":
        """Boxes of an image of ``size`` (width, height) where it is stretched ``to`` another one."""
        scale_4 = np.array([to[0] / size[0], to[1] / size[1]] * 2)
        return self._replace(boxes=self.boxes * scale_4)

    def at(self, places: np.ndarray) -> "Found":
        """Only some of them."""
        return Found(self.boxes[places], self.scores[places], self.labels[places])


@dataclass(frozen=True, slots=True, eq=False)
class CocoScores:
    """``precision`` [10 IoUs from 0.50 to 0.95, 101 recalls from 0 to 1, classes, 4 areas]; -1: there are no boxes."""

    precision: np.ndarray

    def ap(self, iou: float | None = None, area: Area = "all", label: int | None = None) -> float | None:
        """Average precision, 0 to 1: the mean over all IoUs and classes, or of one; None where there are no boxes."""
        ious = slice(None) if iou is None else [round((iou - 0.5) / 0.05)]
        labels = slice(None) if label is None else [label]
        values = self.precision[ious][:, :, labels, AREAS.index(area)]
        values = values[values >= 0]
        return float(values.mean()) if values.size else None

    def metrics(self) -> dict[str, float]:
        """``map`` first; areas without boxes are absent."""
        values = {"map": self.ap(), "ap50": self.ap(0.5), "ap75": self.ap(0.75)}
        values |= {f"map_{area}": self.ap(area=area) for area in AREAS[1:]}
        return {name: value for name, value in values.items() if value is not None}


def coco_scores(truths: Sequence[Boxes], found: Sequence[Found], classes: int) -> CocoScores:
    """Compare what was found in each image, in pixels of the original, with what is there.

    Ignored boxes are COCO's crowds: whatever lies at least half in one is not counted.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    images, annotations = list[Any](), list[Any]()
    for image, truth in enumerate(truths, 1):
        images.append({"id": image, "width": truth.size[0], "height": truth.size[1]})
        for (x1, y1, x2, y2), label, ignored in zip(truth.corners, truth.labels, truth.ignored, strict=True):
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": int(ignored)}
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": label} | box)
    if not annotations:
        return CocoScores(np.full((10, 101, classes, len(AREAS)), -1.0))
    categories = [{"id": label, "name": str(label)} for label in range(classes)]
    image_N = np.repeat(np.arange(len(found)) + 1, [len(one.boxes) for one in found])
    rows_N7 = np.column_stack([image_N, *map(np.concatenate, zip(*found, strict=True))]).astype(np.float64)
    rows_N7[:, 3:5] -= rows_N7[:, 1:3]  # COCO's boxes are x, y, width, height
    reference = COCO({"images": images, "annotations": annotations, "categories": categories})
    evaluation = COCOeval_faster(reference, reference.loadRes(rows_N7), "bbox")
    evaluation.params.maxDets = [MOST]
    evaluation.evaluate()
    evaluation.accumulate()
    return CocoScores(np.asarray(evaluation.eval["precision"])[..., 0])


WRONG, UNCOUNTED = -1, -2


def matches(truth: Boxes, found: Found, iou: float = 0.5) -> np.ndarray:
    """Of each box that was found the number of the true box that it is, as COCO has it; WRONG, or UNCOUNTED: it lies in
    an ignored one, or 100 of its class score higher.

    The best boxes choose first: the one of their class that they overlap most, from ``iou``, and that nobody has.
    """
    overlap_nm, ignored_m = _overlaps(truth, found), np.array(truth.ignored, bool)
    same_nm = found.labels[:, None] == np.array(truth.labels, np.int64)
    result, free_m, seen = np.full(len(found.labels), WRONG), ~ignored_m, dict[int, int]()
    for i in np.argsort(-found.scores, kind="stable").tolist():
        label = int(found.labels[i])
        seen[label] = seen.get(label, 0) + 1
        candidates_m = np.where(same_nm[i] & (overlap_nm[i] >= iou), overlap_nm[i], 0)
        own_m = np.where(free_m, candidates_m, 0)
        if seen[label] > MOST:
            result[i] = UNCOUNTED
        elif own_m.any():
            result[i] = own_m.argmax()
            free_m[result[i]] = False
        elif (candidates_m * ignored_m).any():
            result[i] = UNCOUNTED
    return result


def _overlaps(truth: Boxes, found: Found) -> np.ndarray:
    """IoU [n, m] of what was found and what is there; of ignored boxes the share of the found box that lies in them."""
    a_n14, b_m4 = found.boxes[:, None], np.asarray(truth.corners, np.float64).reshape(-1, 4)
    sides_nm2 = np.minimum(a_n14[..., 2:], b_m4[:, 2:]) - np.maximum(a_n14[..., :2], b_m4[:, :2])
    shared_nm = sides_nm2.clip(0).prod(2)
    area_n1, area_m = (a_n14[..., 2:] - a_n14[..., :2]).prod(2), (b_m4[:, 2:] - b_m4[:, :2]).prod(1)
    joint_nm = area_n1 + np.where(np.array(truth.ignored, bool), 0, area_m - shared_nm)
    return shared_nm / np.maximum(joint_nm, 1e-12)
