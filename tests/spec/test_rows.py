"""Rows refuse what no network can be built from, and name the nearest valid value."""

import pytest

from pocketvision.errors import ConfigurationError
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import Conv, InvertedResidual, MobileOneBlock, SqueezeExcite, round8


@pytest.mark.parametrize(
    ("channels", "rounded"), [(1, 8), (8.8, 8), (11.9, 16), (12, 16), (34, 32), (35.5, 32), (35.6, 40), (67.2, 64)]
)
def test_round8(channels: float, rounded: int):
    assert round8(channels) == rounded
    assert rounded >= 0.9 * channels


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv(16, act="relu66"), "did you mean 'relu6'"),
        (lambda: Conv(16, scaling="width "), "did you mean 'width'"),
        (lambda: Conv(0), "out=0 .* nearest valid: 1"),
        (lambda: Conv(16.5), "out=16.5"),
        (lambda: Conv(True), "out=True"),
        (lambda: Conv(16, kernel=4), "kernel=4 must be odd; nearest valid: 3"),
        (lambda: Conv(16, stride=0), "stride=0"),
        (lambda: InvertedResidual(16, expand=0), "expand=0"),
        (lambda: InvertedResidual(16, expand=16, shortcut="bottle"), "did you mean 'bottleneck'"),
        (lambda: MobileOneBlock(16, branches=0), "branches=0"),
        (lambda: SqueezeExcite(gate="hardsigmoid"), "did you mean 'hard_sigmoid'"),
        (lambda: SqueezeExcite(of="inputs"), "did you mean 'input'"),
        (lambda: SqueezeExcite(divisor=4), "SqueezeExcite.divisor=4"),
        (lambda: SqueezeExcite(reduction=0), "reduction=0"),
        (lambda: ClassifierHead(0), "classes=0"),
        (lambda: ClassifierHead(10, hidden=-1), "hidden=-1"),
        (lambda: ClassifierHead(10, dropout=1), "dropout=1 .* nearest valid: 0.2"),
        (lambda: Preprocessing(size=0), "size=0"),
        (lambda: Preprocessing(size=224, resize=200), "nearest valid: 224"),
        (lambda: Preprocessing(interpolation="cubic"), "did you mean 'bicubic'"),
        (lambda: Preprocessing(std=(1, 1, 0)), "std above 0"),
        (lambda: BackboneSpec("none", ()), "has no rows"),
        (lambda: BackboneSpec("one", (Conv(8),), padding="sam"), "did you mean 'same'"),
        (lambda: BackboneSpec("one", (MobileOneBlock(8),), padding="same"), 'nearest valid: "symmetric"'),
        (lambda: BackboneSpec("one", (Conv(8),), expansion="ratios"), "did you mean 'ratio'"),
        (
            lambda: ModelSpec(BackboneSpec("one", (Conv(8),)), ClassifierHead(3), labels=("a", "b")),
            "2 labels for 3 classes",
        ),
    ],
)
def test_errors_name_the_nearest_valid(make, message: str):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_squeezed_channels():
    assert SqueezeExcite().channels(c_in=24, expand=72) == 24  # MobileNetV3: a multiple of 8 near a quarter
    assert SqueezeExcite(of="input", divisor=1).channels(c_in=24, expand=72) == 6  # MnasNet
    assert SqueezeExcite(divisor=1, reduction=16).channels(c_in=24, expand=8) == 1


def test_no_expansion_layer_where_it_would_change_nothing():
    row = InvertedResidual(24, expand=16)
    assert not row.has_expansion(16)
    assert row.has_expansion(24)


def test_a_field_that_does_not_exist_is_a_type_error():
    with pytest.raises(TypeError, match="strid"):
        Conv(16, strid=2)  # pyright: ignore[reportCallIssue]
