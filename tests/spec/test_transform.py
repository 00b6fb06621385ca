"""Variants: each changes what it says and nothing else."""

from dataclasses import replace
from math import prod

import pytest

from pocketvision.errors import ConfigurationError
from pocketvision.spec.cost import cost
from pocketvision.spec.model import ModelSpec
from pocketvision.spec.rows import Conv, InvertedResidual, MobileOneBlock, Row
from pocketvision.spec.transform import (
    as_folded,
    dilated,
    reduced_tail,
    with_activation,
    with_branches,
    with_classes,
    with_hidden,
    with_linear_bottleneck,
    with_padding,
    with_shortcut,
    with_size,
    with_width,
    without_se,
)
from pocketvision.zoo import MODELS, model_spec

LARGE, SMALL, V2 = model_spec("mobilenet_v3_large"), model_spec("mobilenet_v3_small"), model_spec("mobilenet_v2")


def acts(spec: ModelSpec) -> list[str]:
    return [row.act for row in spec.backbone.rows]


def total_stride(spec: ModelSpec) -> int:
    return prod(row.stride for row in spec.backbone.rows)


def residual(row: Row) -> InvertedResidual:
    assert isinstance(row, InvertedResidual)
    return row


def differing(a: ModelSpec, b: ModelSpec) -> list[int]:
    pairs = zip(a.backbone.rows, b.backbone.rows, strict=True)
    return [index for index, (one, other) in enumerate(pairs) if one != other]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rule", ["paper", "torchvision"])
def test_width(name: str, rule):
    spec = model_spec(name)
    assert with_width(spec, 1.0, rule) == spec
    half, double = with_width(spec, 0.5, rule), with_width(spec, 2, rule)
    for row in (*half.backbone.rows, *double.backbone.rows):
        assert row.out % 8 == 0
    assert cost(half).madds < cost(spec).madds < cost(double).madds
    assert half.backbone.rows[1].stride == spec.backbone.rows[1].stride


def test_width_rules_of_mobilenet_v3():
    """The paper keeps expansion ratios and the hidden layer; torchvision scales each by itself (FACTS A7)."""
    paper, torchvision = with_width(LARGE, 0.5, "paper"), with_width(LARGE, 0.5, "torchvision")
    assert (paper.head.hidden, torchvision.head.hidden) == (1280, 640)
    # the table's third block: 24 -> 72 -> 24; a rounded input of 16 keeps the ratio of 3 under the paper's rule
    assert residual(paper.backbone.rows[3]).expand == 48
    assert residual(torchvision.backbone.rows[3]).expand == 40
    assert paper.backbone.rows[-1].out == 6 * paper.backbone.rows[-2].out


def test_width_of_the_last_convolution():
    assert with_width(V2, 0.5).backbone.out_channels == 1280  # FACTS A2
    assert with_width(V2, 1.4).backbone.out_channels == 1792
    assert with_width(model_spec("efficientnet_lite0"), 0.5).backbone.out_channels == 1280


@pytest.mark.parametrize(("width", "limit"), [(0, "0.1"), (-1, "0.1"), (5, "4"), ("1.0", "0.1")])
def test_width_out_of_range(width, limit: str):
    with pytest.raises(ConfigurationError, match=f"nearest valid: {limit}"):
        with_width(V2, width)


def test_unknown_rules():
    with pytest.raises(ConfigurationError, match="did you mean 'paper'"):
        with_width(V2, 0.5, "papers")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match="did you mean 'torchvision'"):
        reduced_tail(LARGE, "torchvison")  # pyright: ignore[reportArgumentType]


def test_reduced_tail_begins_at_the_last_stride():
    assert differing(LARGE, reduced_tail(LARGE)) == [13, 14, 15, 16]
    assert reduced_tail(LARGE).head.hidden == 640
    assert [row.out for row in reduced_tail(LARGE).backbone.rows[13:]] == [80, 80, 80, 480]


def test_dilation_keeps_the_resolution():
    spec = dilated(LARGE)
    assert total_stride(LARGE) == 32
    assert total_stride(spec) == 16
    assert [row.dilation for row in spec.backbone.rows[12:]] == [1, 2, 2, 2, 1]  # the last is 1x1
    assert cost(spec).params == cost(LARGE).params

    tensorflows = dilated(LARGE, dilate_first=False)
    assert [row.dilation for row in tensorflows.backbone.rows[12:]] == [1, 1, 2, 2, 1]

    eighth = dilated(V2, 8)
    assert total_stride(eighth) == 8
    assert {row.dilation for row in eighth.backbone.rows} == {1, 2, 4}
    assert dilated(V2, 32) == V2


def test_unknown_output_stride():
    with pytest.raises(ConfigurationError, match="valid: 8, 16, 32"):
        dilated(LARGE, 12)


def test_hard_swish_from_n_channels_on():
    """S1 Table 5: 80 is the paper's choice for Large, so it changes nothing."""
    assert with_activation(LARGE, "h-swish@80") == LARGE
    assert acts(with_activation(LARGE, "h-swish@16")) == ["hard_swish"] * 17
    later = acts(with_activation(LARGE, "h-swish@112"))
    assert later == ["hard_swish", *["relu"] * 10, *["hard_swish"] * 6]


@pytest.mark.parametrize(
    ("name", "act"), [("relu", "relu"), ("relu6", "relu6"), ("swish", "swish"), ("h-swish", "hard_swish")]
)
def test_one_activation_everywhere(name: str, act: str):
    spec = with_activation(SMALL, name)
    assert set(acts(spec)) == {act}
    assert spec.head.act == act
    assert cost(spec) == cost(SMALL)


def test_unknown_placements():
    with pytest.raises(ConfigurationError, match="did you mean 'swish'"):
        with_activation(LARGE, "swisch")
    with pytest.raises(ConfigurationError, match="did you mean 'h-swish"):
        with_activation(LARGE, "h-swish@many")
    with pytest.raises(ConfigurationError, match="nearest valid: h-swish@160"):
        with_activation(LARGE, "h-swish@161")


def test_hidden_layer():
    assert cost(with_hidden(SMALL, 1280)).params == 2_946_568
    without = with_hidden(SMALL, 0)
    assert cost(without).params == cost(SMALL).params - (576 * 1024 + 1024 + 1024 * 1000) + 576 * 1000


def test_linear_bottleneck_and_shortcut():
    activated = with_linear_bottleneck(V2, False)
    assert not any(row.linear for row in activated.backbone.rows if isinstance(row, InvertedResidual))
    assert with_linear_bottleneck(activated, True) == V2
    between = with_shortcut(V2, "expansion")
    assert {row.shortcut for row in between.backbone.rows if isinstance(row, InvertedResidual)} == {"expansion"}
    assert cost(between) == cost(activated) == cost(V2)
    with pytest.raises(ConfigurationError, match="did you mean 'none'"):
        with_shortcut(V2, "non")  # pyright: ignore[reportArgumentType]


def test_branches_leave_the_deploy_form_alone():
    spec = model_spec("mobileone_s1")
    three = with_branches(spec, 3)
    assert all(row.branches == 3 for row in three.backbone.rows if isinstance(row, MobileOneBlock))
    assert three.backbone.rows[0] == spec.backbone.rows[0]  # the stem keeps its one
    assert cost(three).params > cost(spec).params
    assert cost(as_folded(three)) == cost(as_folded(spec))


def test_without_se():
    rebuilt = without_se(model_spec("mobileone_s4"))
    assert rebuilt.backbone.rows == model_spec("mobileone_s4_no_se").backbone.rows
    assert cost(without_se(SMALL)).params < cost(SMALL).params


def test_padding():
    assert with_padding(V2, "same").backbone == replace(V2.backbone, padding="same")


def test_classes_and_labels():
    assert with_classes(V2, 7).head.classes == 7
    named = with_classes(V2, ("cat", "dog"))
    assert (named.head.classes, named.labels) == (2, ("cat", "dog"))
    assert with_classes(named, 2).labels == ()


def test_size_keeps_the_ratio_of_the_resize():
    small = with_size(V2, 112)
    assert (small.preprocessing.size, small.preprocessing.resize) == (112, 128)
    assert with_size(V2, 112, ratio=1.0).preprocessing.resize == 112
    assert cost(small) == cost(V2, 112)


@pytest.mark.parametrize(("size", "limit"), [(8, 16), (5000, 4096)])
def test_size_out_of_range(size: int, limit: int):
    with pytest.raises(ConfigurationError, match=f"nearest valid: {limit}"):
        with_size(V2, size)


def test_variants_leave_the_original_alone():
    before = model_spec("mobilenet_v3_large")
    with_width(LARGE, 0.5), reduced_tail(LARGE), dilated(LARGE), with_activation(LARGE, "relu"), without_se(LARGE)
    assert before == LARGE
    assert isinstance(LARGE.backbone.rows[0], Conv)
