"""Anchors fitted to boxes."""

import math

import numpy as np
import pytest
import torch

from pocketvision.data.boxes import Boxes
from pocketvision.errors import ConfigurationError
from pocketvision.nn.model import build
from pocketvision.spec.detectors import with_ssd
from pocketvision.spec.heads import SSDHead
from pocketvision.training.anchors import coverage, fit_anchors, grids, with_fitted_anchors
from pocketvision.zoo import model_spec

SPEC = with_ssd(model_spec("mobilenet_v3_small", width=0.35), 2, size=320)
MAPS = [20, 10, 5, 3, 2, 1]


def scattered(count: int, side: float, rng: np.random.Generator, label: int = 0, ratio: float = 1.0) -> Boxes:
    """Boxes of about ``side`` pixels in an image of 400 x 200."""
    widths, heights = (side * math.sqrt(r) * rng.uniform(0.9, 1.1, count) for r in (ratio, 1 / ratio))
    x, y = rng.uniform(0, 400 - widths), rng.uniform(0, 200 - heights)
    corners = np.stack([x, y, x + widths, y + heights], 1).tolist()
    return Boxes((400, 200), tuple((a, b, c, d) for a, b, c, d in corners), (label,) * count, (False,) * count)


def test_small_boxes_get_anchors_that_reach_them():
    """20 pixels in 400 x 200: torchvision's smallest anchors are 0.2 x 0.2 of an image, 80 x 40 pixels."""
    rng = np.random.default_rng(0)
    images = [scattered(20, 20, rng), scattered(2, 90, rng, label=1, ratio=0.5)]
    spec, fit = with_fitted_anchors(SPEC, images)
    assert fit is not None and isinstance(spec.head, SSDHead)
    assert spec.head.anchors == fit.anchors
    assert fit.before[0] < 0.2 and fit.before[1] < 0.15
    assert fit.after[0] > 0.5 and fit.after[1] > 0.4
    assert fit.after == coverage(np.array([c for i in images for c in i.corners]) / ([400, 200] * 2), fit.anchors, MAPS)
    assert "-> 0.5" in str(fit) or "-> 0.6" in str(fit)


def test_each_size_gets_an_anchor_on_the_map_whose_cells_it_has_three_of():
    """One size a map. Large ones need no margin: their middles are near an anchor's."""
    sides = np.array([[0.2, 0.2], [0.4, 0.35], [0.9, 0.8]])
    anchors = fit_anchors(sides, np.ones(3), MAPS)
    assert [len(sizes) for sizes in anchors] == [1] * 6
    assert anchors[0] == ((pytest.approx(0.2, rel=0.11),) * 2,)
    assert anchors[1] == (pytest.approx((0.4, 0.35), rel=0.21),)
    assert anchors[2] == (pytest.approx((0.9, 0.8), rel=0.11),)
    assert all(0 < side <= 1 for sizes in anchors for size in sizes for side in size)


def test_different_shapes_get_anchors_of_their_own_however_rare():
    rng = np.random.default_rng(1)
    wide, high = np.array([[0.3, 0.05]]), np.array([[0.05, 0.3]])
    sides = np.concatenate([wide * rng.uniform(0.9, 1.1, (200, 2)), high * rng.uniform(0.9, 1.1, (4, 2))])
    finest = fit_anchors(sides, np.repeat([1 / math.sqrt(200), 1 / math.sqrt(4)], [200, 4]), MAPS)[0]
    assert {width > height for width, height in finest} == {True, False}


def test_the_order_of_the_boxes_does_not_matter():
    rng = np.random.default_rng(2)
    sides, weights = rng.uniform(0.02, 0.8, (300, 2)), rng.uniform(0.1, 1, 300)
    order = rng.permutation(300)
    assert fit_anchors(sides, weights, MAPS) == fit_anchors(sides[order], weights[order], MAPS)


@pytest.mark.parametrize("size", [224, 300, 320])
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobileone_s0"])
def test_grids_are_those_of_the_network(name, size):
    spec = with_ssd(model_spec(name), 1, size=size)
    with torch.inference_mode():
        outputs = build(spec).eval()(torch.zeros(1, 3, size, size))
    assert isinstance(spec.head, SSDHead)
    cells = [g * g * len(sizes) for g, sizes in zip(grids(spec), spec.head.anchors, strict=True)]
    assert outputs.logits.shape[1] == sum(cells)


def test_without_boxes_nothing_changes():
    ignored = Boxes((10, 10), ((1.0, 1.0, 5.0, 5.0),), (0,), (True,))
    assert with_fitted_anchors(SPEC, [ignored, Boxes((10, 10), (), (), ())]) == (SPEC, None)
    assert with_fitted_anchors(SPEC, []) == (SPEC, None)


@pytest.mark.parametrize("after", [(0.6, 0.7), (0.501, 0.59), (0.49, 0.9), (0.5, 0.6)])
def test_others_are_taken_only_when_neither_figure_falls(after: tuple[float, float], monkeypatch: pytest.MonkeyPatch):
    figures = iter([(0.5, 0.6), after])
    monkeypatch.setattr("pocketvision.training.anchors.coverage", lambda *_: next(figures))
    spec, fit = with_fitted_anchors(SPEC, [Boxes((100, 100), ((0.0, 0.0, 100.0, 100.0),), (0,), (False,))])
    assert (fit is not None) == (spec != SPEC) == (after == (0.6, 0.7))


def test_one_box_is_enough():
    _, fit = with_fitted_anchors(SPEC, [Boxes((100, 100), ((0.0, 0.0, 100.0, 100.0),), (0,), (False,))])
    assert fit is not None and fit.after[0] == pytest.approx(1)


def test_a_head_without_anchors_is_refused():
    with pytest.raises(ConfigurationError, match="nearest valid: an SSDHead"):
        with_fitted_anchors(model_spec("mobilenet_v3_small"), [])
