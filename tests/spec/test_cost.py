"""Parameters and multiply-adds from the rows, against the papers and the published code."""

import pytest

from pocketvision.spec.cost import cost, row_costs
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec
from pocketvision.spec.rows import Conv, DepthwiseSeparable, InvertedResidual, MobileOneBlock, SqueezeExcite
from pocketvision.spec.transform import as_folded, dilated, reduced_tail
from pocketvision.zoo import model_spec

# model, its options, pixels, parameters, M multiply-adds; the shared table has more (tests/nn/test_counts.py)
KEY_FIGURES = [
    ("mobilenet_v1", {}, 224, 4_231_976, 568.74),
    ("mobilenet_v2", {}, 224, 3_504_872, 300.77),
    ("mobilenet_v2", {"width": 1.4}, 224, 6_108_776, 582.20),
    ("mobilenet_v2", {"width": 0.35}, 96, 1_677_128, 11.93),
    ("mnasnet_a1", {}, 224, 3_887_038, 311.58),
    ("mnasnet_b1", {}, 224, 4_383_312, 314.42),
    ("mnasnet_small", {}, 224, 2_030_264, 68.34),
    ("mobilenet_v3_large", {}, 224, 5_483_032, 216.59),
    ("mobilenet_v3_large", {"width": 0.75}, 224, 3_377_576, 140.03),
    ("mobilenet_v3_large", {"width": 0.75, "width_rule": "paper"}, 224, 3_993_528, 154.56),
    ("mobilenet_v3_small", {}, 224, 2_542_856, 56.51),
    ("mobilenet_v3_small", {"hidden": 1280}, 224, 2_946_568, 56.91),
    ("mobilenet_v3_small", {"width": 0.35, "width_rule": "paper"}, 224, 1_655_232, 13.10),
    ("mobilenet_v3_small", {"width": 0.35, "width_rule": "paper", "hidden": 1024}, 224, 1_349_824, 12.80),
    ("mobileone_s0", {}, 224, 5_293_272, 1051.94),
    ("mobileone_s4", {}, 224, 14_951_248, 2986.80),
    ("efficientnet_lite0", {}, 224, 4_652_008, 385.19),
]
FOLDED = [
    ("mobileone_s0", 2_078_504, 275.11),
    ("mobileone_s1", 4_764_840, 825.06),
    ("mobileone_s2", 7_808_168, 1298.43),
    ("mobileone_s3", 10_078_312, 1895.79),
    ("mobileone_s4", 14_838_352, 2979.27),
    ("mobileone_s4_no_se", 13_197_544, 2977.64),
    ("mobileone_mu0", 558_760, 68.91),
    ("mobileone_mu1", 969_704, 139.03),
    ("mobileone_mu2", 1_262_632, 214.09),
]


@pytest.mark.parametrize(("name", "options", "size", "params", "madds"), KEY_FIGURES)
def test_key_figures(name: str, options: dict, size: int, params: int, madds: float):
    total = cost(model_spec(name, **options), size)
    assert total.params == params
    assert total.madds / 1e6 == pytest.approx(madds, abs=0.01)


@pytest.mark.parametrize(("name", "params", "madds"), FOLDED)
def test_deploy_forms(name: str, params: int, madds: float):
    total = cost(as_folded(model_spec(name)))
    assert total.params == params
    assert total.madds / 1e6 == pytest.approx(madds, abs=0.01)


def test_reduced_tails_and_dilation():
    """FACTS A10 and A11: torchvision's numbers."""
    large, small = model_spec("mobilenet_v3_large"), model_spec("mobilenet_v3_small")
    for spec, params, madds in (
        (reduced_tail(large), 2_569_352, 182.3),
        (reduced_tail(small), 1_099_672, 43.8),
        (dilated(large), 5_483_032, 354.8),
        (dilated(small), 2_542_856, 106.5),
    ):
        assert cost(spec).params == params
        assert cost(spec).madds / 1e6 == pytest.approx(madds, abs=0.05)


def test_the_papers_reduced_tail_also_halves_the_first_expansion():
    """FACTS C-8: 672 -> 336 in Large, 288 -> 144 in Small."""
    for name, index, expand in (("mobilenet_v3_large", 13, 336), ("mobilenet_v3_small", 9, 144)):
        spec = model_spec(name)
        row, torchvisions = reduced_tail(spec, "paper").backbone.rows[index], reduced_tail(spec).backbone.rows[index]
        assert isinstance(row, InvertedResidual) and isinstance(torchvisions, InvertedResidual)
        assert (row.expand, torchvisions.expand) == (expand, 2 * expand)
        assert row.out == torchvisions.out


def test_a_network_counted_by_hand():
    rows = (
        Conv(4, stride=2),
        DepthwiseSeparable(6),
        InvertedResidual(6, expand=12, se=SqueezeExcite(divisor=1)),
        MobileOneBlock(6, branches=2),
    )
    spec = ModelSpec(BackboneSpec("by hand", rows), ClassifierHead(10, hidden=8))
    counts = cost(spec, (7, 10))  # 4 x 5 after the stem
    pixels = 20
    stem = (3 * 4 * 9 + 2 * 4, 3 * 4 * 9 * pixels, 4 * pixels)
    separable = (4 * 9 + 8 + 4 * 6 + 12, (4 * 9 + 4 * 6) * pixels, (4 + 6) * pixels)
    se = 2 * 12 * 3 + 3 + 12
    inverted = (
        6 * 12 + 24 + 12 * 9 + 24 + se + 12 * 6 + 12,
        (6 * 12 + 12 * 9 + 12 * 6) * pixels + 2 * 12 * 3,
        (12 + 12 + 12 + 6) * pixels + 3 + 12,
    )
    depthwise = 2 * (6 * 9 + 12) + (6 + 12) + 12  # two branches, scale, skip
    pointwise = 2 * (6 * 6 + 12) + 12  # two branches, skip
    one = (depthwise + pointwise, (2 * 6 * 9 + 6 + 2 * 36) * pixels, (2 * 6 + 6 + 6 + 2 * 6 + 6) * pixels)
    head = (6 * 8 + 8 + 8 * 10 + 10, 6 * 8 + 8 * 10, 6 + 8 + 10)
    assert [(row.params, row.madds, row.activations) for row in counts.rows] == [stem, separable, inverted, one, head]
    assert counts.params == sum(row.params for row in counts.rows)
    assert [row.out_shape for row in counts.rows] == [(4, 4, 5), (6, 4, 5), (6, 4, 5), (6, 4, 5), (10, 1, 1)]


def test_sizes_follow_the_strides():
    rows = row_costs(model_spec("mobilenet_v2").backbone, (225, 97))
    assert rows[0].out_shape == (32, 113, 49)
    assert rows[-1].out_shape == (1280, 8, 4)
