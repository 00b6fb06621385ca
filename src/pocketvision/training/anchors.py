"""Anchors fitted to the boxes of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..data.boxes import Boxes
from ..errors import ConfigurationError
from ..nn.heads.ssd import anchor_boxes
from ..spec.detectors import Anchors
from ..spec.heads import SSDHead
from ..spec.model import ModelSpec

# cells of a map in the side of a box, from which on it has an anchor with an IoU of 0.5 wherever it lies: half a cell
# away in x and y, (1 - 1/6)^2 / (2 - (1 - 1/6)^2) = 0.53
CELLS = 3.0
EACH = 6  # anchors of a cell at most, as torchvision's
GAIN = 0.005  # in mean IoU that one more must bring
ROUNDS = 100
OFFSETS = (1 / 12, 3 / 12, 5 / 12)  # how many cells the middle of a box may be away from that of an anchor
SCALES = np.array([(w, h) for w in (1, 1.1, 1.2, 1.3, 1.4, 1.5) for h in (1, 1.1, 1.2, 1.3, 1.4, 1.5)])


@dataclass(frozen=True, slots=True)
class AnchorFit:
    """``before``, ``after``: of the boxes' best anchors, where they lie, the mean IoU and the share of at least 0.5."""

    anchors: Anchors
    before: tuple[float, float]
    after: tuple[float, float]

    def __str__(self) -> str:
        (mean, reached), (mean_after, reached_after) = self.before, self.after
        return (
            f"anchors fitted to the boxes: best IoU {mean:.2f} -> {mean_after:.2f} on average, "
            f"at least 0.5 for {reached:.0%} -> {reached_after:.0%} of them"
        )


def with_fitted_anchors(spec: ModelSpec, boxes: Sequence[Boxes]) -> tuple[ModelSpec, AnchorFit | None]:
    """The network with anchors for ``boxes`` of its training images; unchanged unless they raise the mean IoU or the
    share of at least 0.5, and lower neither.

    Raises ConfigurationError for a head without such anchors.
    """
    head = spec.head
    if not isinstance(head, SSDHead):
        raise ConfigurationError(f"a {type(head).__name__} has no anchors to be fitted; nearest valid: an SSDHead")
    corners_n4, weights_n = _shares(boxes)
    if not len(corners_n4):
        return spec, None
    maps = grids(spec)
    anchors = fit_anchors(corners_n4[:, 2:] - corners_n4[:, :2], weights_n, maps)
    fit = AnchorFit(anchors, coverage(corners_n4, head.anchors, maps), coverage(corners_n4, anchors, maps))
    if fit.after == fit.before or any(after < before for after, before in zip(fit.after, fit.before, strict=True)):
        return spec, None
    return replace(spec, head=replace(head, anchors=anchors)), fit


def grids(spec: ModelSpec) -> list[int]:
    """Cells in the side of each feature map of an SSD, finest first."""
    head, backbone, size = spec.head, spec.backbone, spec.preprocessing.size
    assert isinstance(head, SSDHead)
    strides = backbone.strides()
    sides = [-(-size // (strides[tap.row - 1] if tap.expansion else strides[tap.row])) for tap in head.taps]
    for _ in head.extras:
        sides.append(-(-sides[-1] // 2))
    return sides


def fit_anchors(sides_n2: np.ndarray, weights_n: np.ndarray, maps: Sequence[int]) -> Anchors:
    """For each of ``maps`` (cells in its side, finest first) the (width, height) of its anchors, as shares.

    ``sides_n2``: width and height of boxes, as shares of their images; ``weights_n``: how much each counts. A box
    belongs to the coarsest map of whose cells it has three in its side, or to the finest one. On each map, k-means by
    IoU (arXiv:1612.08242 §2), with as many anchors as still raise the mean IoU by 0.005, up to six. Maps without boxes
    have one square anchor of a size between their neighbours'. The same for the same boxes in any order.
    """
    order = np.lexsort((sides_n2[:, 1], sides_n2[:, 0], sides_n2.prod(1)))
    sides_n2, weights_n = sides_n2[order], weights_n[order]
    side_n = np.sqrt(sides_n2.prod(1))
    map_n = np.maximum(0, (side_n[:, None] >= CELLS / np.array(maps)).sum(1) - 1)
    anchors = list[tuple[tuple[float, float], ...]]()
    for number, cells in enumerate(maps):
        own = map_n == number
        if own.any():
            means = _enough(sides_n2[own], weights_n[own], cells)
            anchors.append(tuple((float(w), float(h)) for w, h in means.round(4)))
        else:
            side = round(min(0.9, 1.4 * CELLS / cells), 4)
            anchors.append(((side, side),))
    return tuple(anchors)


def coverage(corners_n4: np.ndarray, anchors: Anchors, maps: Sequence[int]) -> tuple[float, float]:
    """Of the boxes' best anchors, where both lie, the mean IoU and the share of at least 0.5."""
    from torchvision.ops import box_iou

    anchors_A4 = anchor_boxes(anchors, [(cells, cells) for cells in maps], (1, 1)).double()
    parts = torch.from_numpy(corners_n4).split(500)  # which bounds the memory
    best_n = torch.cat([box_iou(part, anchors_A4).amax(1) for part in parts])
    return float(best_n.mean()), float((best_n >= 0.5).double().mean())


def _shares(boxes: Sequence[Boxes]) -> tuple[np.ndarray, np.ndarray]:
    """Corners [n, 4] of the boxes that count, as shares of their images, and weights [n] with which rare classes have
    a say: 1 / sqrt(boxes of the class)."""
    rows, labels = list[list[float]](), list[int]()
    for image in boxes:
        width, height = image.size
        for (x1, y1, x2, y2), label, ignored in zip(image.corners, image.labels, image.ignored, strict=True):
            if not ignored:
                rows.append([x1 / width, y1 / height, x2 / width, y2 / height])
                labels.append(label)
    count = np.bincount(labels) if labels else np.zeros(0)
    return np.array(rows, np.float64).reshape(-1, 4), 1 / np.sqrt(count[labels]) if labels else np.zeros(0)


def _enough(sides_n2: np.ndarray, weights_n: np.ndarray, cells: int) -> np.ndarray:
    """The sizes [k, 2] of the anchors of a map, the smallest first."""
    means, mean_iou = _means(sides_n2, weights_n, cells, 1)
    for count in range(2, EACH + 1):
        more, better = _means(sides_n2, weights_n, cells, count)
        if better < mean_iou + GAIN:
            break
        means, mean_iou = more, better
    return means[np.argsort(means.prod(1))]


def _means(sides_n2: np.ndarray, weights_n: np.ndarray, cells: int, count: int) -> tuple[np.ndarray, float]:
    """``count`` sizes [count, 2] and the mean IoU with them: k-means that starts from equal shares of the weight."""
    cumulated = (weights_n.cumsum() - weights_n / 2) / weights_n.sum()
    means_k2 = sides_n2[np.searchsorted(cumulated, (np.arange(count) + 0.5) / count).clip(0, len(sides_n2) - 1)]
    for _ in range(ROUNDS):
        nearest_n = _iou(sides_n2, means_k2, cells).argmax(1)
        moved_k2 = means_k2.copy()
        for k in np.unique(nearest_n):
            own = nearest_n == k
            mean_2 = np.average(sides_n2[own], axis=0, weights=weights_n[own])
            tried_g2 = mean_2 * SCALES
            moved_k2[k] = tried_g2[(weights_n[own] @ _iou(sides_n2[own], tried_g2, cells)).argmax()]
        if np.allclose(moved_k2, means_k2, rtol=1e-6):
            break
        means_k2 = moved_k2
    return means_k2, float(np.average(_iou(sides_n2, means_k2, cells).max(1), weights=weights_n))


def _iou(a_n2: np.ndarray, b_k2: np.ndarray, cells: int) -> np.ndarray:
    """IoU [n, k] of boxes with anchors, on average over where in a cell the middle of a box may lie."""
    ends = (a_n2[:, None] + b_k2[None]) / 2  # farther apart, they do not meet
    least = np.minimum(a_n2[:, None], b_k2[None])
    shared = [np.minimum(least, ends - away / cells).clip(0) for away in OFFSETS]
    product = [x[..., 0] * y[..., 1] for x in shared for y in shared]
    areas = a_n2.prod(1)[:, None] + b_k2.prod(1)[None]
    return np.mean([p / (areas - p) for p in product], axis=0)
