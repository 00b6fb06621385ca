"""Do two runs of a detector find the same boxes? Compared as sets: boxes of nearly equal scores change places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..spec.heads import Selection
from ..tasks.coco import Found

MIN_IOU, MAX_ERROR = 0.99, 1e-3
TIE = 1e-3  # share of a score, or of an overlap, below which rounding decides
SAME = 0.01  # pixels: corners this near are one place, however small the box


@dataclass(frozen=True, slots=True)
class BoxParity:
    """How far what a file finds is from what the model finds in ``n`` images.

    ``boxes``: pairs of one class that overlap by an IoU of 0.99 or more. Of them, ``min_iou`` is the least overlap
    and ``max_error`` the largest difference of two scores. ``ties``: boxes without a partner where rounding decides
    whether they are told (``_is_tie``); ``unmatched``: the others without a partner, of both sides.
    """

    n: int
    boxes: int
    min_iou: float
    max_error: float
    ties: int
    unmatched: int

    @property
    def holds(self) -> bool:
        """Whether the file may be used: every box has its partner and no score is off by more than 1e-3."""
        return self.unmatched == 0 and self.max_error <= MAX_ERROR

    def to_dict(self) -> dict[str, float]:
        """The fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.boxes} boxes are the same (IoU at least {self.min_iou:.4f}, max error of a score "
            f"{self.max_error:.1e}), {self.unmatched} are not ({self.ties} ties left out)"
        )


def compare_boxes(expected: Sequence[Found], actual: Sequence[Found], selection: Selection) -> BoxParity:
    """Parity of what was found in the same images by two runs that both follow ``selection``."""
    ious, errors, ties, unmatched = list[float](), list[float](), 0, 0
    for one, other in zip(expected, actual, strict=True):
        iou = _overlaps(one, other)
        pairs = list(_pairs(iou))
        ious += [float(iou[i, j]) for i, j in pairs]
        errors += [abs(float(one.scores[i] - other.scores[j])) for i, j in pairs]
        left = [np.setdiff1d(np.arange(len(found.labels)), used) for found, used in _with_used(one, other, pairs)]
        excused = _ties((one, other), left, iou, selection)
        ties += excused
        unmatched += len(left[0]) + len(left[1]) - excused
    return BoxParity(
        len(expected), len(ious), min(ious, default=1.0), float(np.max(errors, initial=0.0)), ties, unmatched
    )


def _with_used(one: Found, other: Found, pairs: list[tuple[int, int]]) -> Iterator[tuple[Found, list[int]]]:
    yield one, [i for i, _ in pairs]
    yield other, [j for _, j in pairs]


def _pairs(iou_NM: np.ndarray) -> Iterator[tuple[int, int]]:
    """Partners, those first that overlap most; each box has at most one."""
    near = np.argwhere(iou_NM >= MIN_IOU)
    rows, columns = set[int](), set[int]()
    for i, j in near[np.argsort(-iou_NM[near[:, 0], near[:, 1]], kind="stable")].tolist():
        if i not in rows and j not in columns:
            rows.add(i)
            columns.add(j)
            yield i, j


def _ties(found: tuple[Found, Found], left: list[np.ndarray], iou_NM: np.ndarray, selection: Selection) -> int:
    """How many of the boxes ``left`` without a partner are so by rounding, or because of a box that is."""
    excused: tuple[set[int], set[int]] = (set(), set())
    grown = True
    while grown:
        grown = False
        for side in (0, 1):
            own, other = found[side], found[1 - side]
            for i in set(left[side].tolist()) - excused[side]:
                over_M = iou_NM[i] if side == 0 else iou_NM[:, i]
                rivals = [j for j in np.flatnonzero(over_M > selection.iou * (1 - TIE)) if j in excused[1 - side]]
                if rivals or _is_tie(own, i, other, over_M, selection):
                    excused[side].add(i)
                    grown = True
    return len(excused[0]) + len(excused[1])


def _is_tie(own: Found, i: int, other: Found, over_M: np.ndarray, selection: Selection) -> bool:
    """Whether rounding decides that box i of ``own`` is not told on the other side.

    That is: its score is at the threshold, or at the end of a list that is full; or one that is told there suppresses
    it whose score is as high, or whose overlap with it is as large as may just be.
    """
    score = own.scores[i]
    if abs(score - selection.min_score) <= TIE * selection.min_score:
        return True
    full = len(other.scores) == selection.most
    if full and score <= other.scores.min() * (1 + TIE):
        return True
    level = (over_M > selection.iou * (1 - TIE)) & (abs(other.scores - score) <= TIE * score)
    border = (abs(over_M - selection.iou) <= TIE) & (other.scores > score)
    return bool((level | border).any())


def _overlaps(one: Found, other: Found) -> np.ndarray:
    """IoU [N, M]; 0 for boxes of two classes, and 1 for boxes in the same place."""
    a, b = one.boxes[:, None].astype(np.float64), other.boxes[None].astype(np.float64)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides.prod(2)
    union = (a[..., 2:] - a[..., :2]).prod(2) + (b[..., 2:] - b[..., :2]).prod(2) - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    iou[abs(a - b).max(2, initial=0) < SAME] = 1
    return iou * (one.labels[:, None] == other.labels[None])
