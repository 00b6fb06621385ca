"""What each kind of row, padding, activation and shortcut computes, against a few plain torch operations."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketvision.nn.backbone import Backbone
from pocketvision.nn.blocks import InvertedResidualBlock, MobileOneUnit, build_row
from pocketvision.nn.layers import Conv2dSame, Normalize, SqueezeExcitation, activation, conv2d
from pocketvision.nn.model import Model, build
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import (
    Conv,
    DepthwiseSeparable,
    InvertedResidual,
    MobileOneBlock,
    MobileOneConv,
    Row,
    SqueezeExcite,
)
from pocketvision.spec.transform import (
    dilated,
    with_activation,
    with_hidden,
    with_linear_bottleneck,
    with_padding,
    with_shortcut,
)
from pocketvision.zoo import model_spec

SPEC = BackboneSpec("test", (Conv(8),))
X_BCHW = torch.randn(2, 8, 9, 9, generator=torch.Generator().manual_seed(0))


def made(row: Row, c_in: int = 8, spec: BackboneSpec = SPEC) -> nn.Module:
    torch.manual_seed(0)
    return build_row(spec, row, c_in).eval()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", lambda x: x),
        ("relu", lambda x: x.clamp(min=0)),
        ("relu6", lambda x: x.clamp(0, 6)),
        ("hard_swish", lambda x: x * (x + 3).clamp(0, 6) / 6),
        ("swish", lambda x: x / (1 + torch.exp(-x))),
    ],
)
def test_activations(name, expected):
    x = torch.linspace(-8, 8, 101)
    torch.testing.assert_close(activation(name)(x.clone()), expected(x))


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
def test_squeeze_excite(gate):
    se = SqueezeExcitation(SqueezeExcite(gate=gate), 8, 8)
    pooled = X_BCHW.mean((2, 3), keepdim=True)
    raw = se.expand(F.relu(se.reduce(pooled)))
    factor = torch.sigmoid(raw) if gate == "sigmoid" else (raw + 3).clamp(0, 6) / 6
    torch.testing.assert_close(se(X_BCHW), X_BCHW * factor)


@pytest.mark.parametrize("size", [1, 7, 8, 15, 16])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_puts_the_odd_pixel_right_and_below(size: int, kernel: int, dilation: int):
    conv = Conv2dSame(1, 1, kernel, stride=2, dilation=dilation, bias=False)
    nn.init.ones_(conv.weight)
    x_BCHW = torch.arange(1.0, size * (size + 1) + 1).reshape(1, 1, size, size + 1)
    reach = (kernel - 1) * dilation
    pads = [max((-(-n // 2) - 1) * 2 + reach + 1 - n, 0) for n in (size, size + 1)]
    expected = torch.zeros(1, 1, -(-size // 2), -(-(size + 1) // 2))
    for row in range(expected.shape[2]):
        for column in range(expected.shape[3]):
            for i in range(0, reach + 1, dilation):
                for j in range(0, reach + 1, dilation):
                    y, x = 2 * row + i - pads[0] // 2, 2 * column + j - pads[1] // 2
                    if 0 <= y < size and 0 <= x < size + 1:
                        expected[0, 0, row, column] += x_BCHW[0, 0, y, x]
    torch.testing.assert_close(conv(x_BCHW), expected)


def test_same_padding_only_differs_on_strides():
    same = replace(SPEC, padding="same")
    for stride, equal in ((1, True), (2, False)):
        row, x_BCHW = Conv(8, stride=stride), torch.randn(1, 8, 8, 8)
        outputs = made(row)(x_BCHW), made(row, spec=same)(x_BCHW)
        assert torch.allclose(*outputs) == equal
        assert outputs[0].shape == outputs[1].shape


def residual(**changes) -> tuple[InvertedResidualBlock, InvertedResidual]:
    row = InvertedResidual(8, expand=16, **changes)
    block = made(row)
    assert isinstance(block, InvertedResidualBlock)
    return block, row


def test_inverted_residual_step_by_step():
    block, _ = residual(se=SqueezeExcite())
    expanded = block.expand(X_BCHW)
    assert expanded.min() == 0  # activated
    filtered = block.se(block.depthwise(expanded))
    projected = block.project(filtered)
    assert projected.min() < 0  # linear
    torch.testing.assert_close(block(X_BCHW), projected + X_BCHW)


def test_shortcuts():
    joined, _ = residual()
    without, _ = residual(shortcut="none")
    torch.testing.assert_close(joined(X_BCHW), without(X_BCHW) + X_BCHW)
    between, _ = residual(shortcut="expansion")
    expanded = between.expand(X_BCHW)
    torch.testing.assert_close(between(X_BCHW), between.project(between.depthwise(expanded) + expanded))
    strided, _ = residual(shortcut="expansion", stride=2)
    torch.testing.assert_close(strided(X_BCHW), strided.project(strided.depthwise(strided.expand(X_BCHW))))


def test_shortcut_does_not_overwrite_its_input():
    block, before = residual()[0], X_BCHW.clone()
    block(X_BCHW)
    assert torch.equal(before, X_BCHW)


def test_a_bottleneck_that_is_not_linear_is_activated():
    block, _ = residual(linear=False, shortcut="none")
    assert block(X_BCHW).min() == 0


def test_depthwise_separable():
    block = made(DepthwiseSeparable(16, stride=2))
    assert isinstance(block, nn.Sequential)
    y_BCHW = block(X_BCHW)
    assert y_BCHW.shape == (2, 16, 5, 5)
    assert block[0].conv.groups == 8
    torch.testing.assert_close(y_BCHW, block[1](block[0](X_BCHW)))


def test_mobileone_sums_its_branches():
    unit = made(MobileOneConv(8, branches=3))
    assert isinstance(unit, MobileOneUnit) and unit.scale is not None and unit.skip is not None
    paths: list[nn.Module] = [*unit.branches, unit.scale, unit.skip]
    total = torch.stack([path(X_BCHW) for path in paths]).sum(0)
    torch.testing.assert_close(unit(X_BCHW), total.clamp(min=0))


@pytest.mark.parametrize(
    ("row", "scale", "skip"),
    [
        (MobileOneConv(8), True, True),
        (MobileOneConv(8, stride=2), True, False),
        (MobileOneConv(16), True, False),
        (MobileOneConv(8, kernel=1), False, True),
    ],
)
def test_which_mobileone_branches_there_are(row: MobileOneConv, scale: bool, skip: bool):
    unit = made(row)
    assert isinstance(unit, MobileOneUnit)
    assert (unit.scale is not None, unit.skip is not None) == (scale, skip)
    folded = made(row, spec=replace(SPEC, folded=True))
    assert isinstance(folded, MobileOneUnit)
    assert (len(folded.branches), folded.scale, folded.skip) == (1, None, None)


@pytest.mark.parametrize("row", [Conv(12, stride=2), InvertedResidual(12, expand=24), MobileOneBlock(12, stride=2)])
@pytest.mark.parametrize("size", [8, 9])
def test_shapes(row: Row, size: int):
    side = -(-size // row.stride)
    assert made(row)(torch.randn(1, 8, size, size)).shape == (1, 12, side, side)


def test_normalize_is_the_written_formula():
    pixels = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    p = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    mean, std = (torch.tensor(values)[:, None, None] for values in (p.mean, p.std))
    expected = (pixels.float() / 255 - mean) / std
    for image in (pixels, pixels.float()):
        torch.testing.assert_close(Normalize(p)(image), expected)
    assert not list(Normalize(p).state_dict())


def test_features_by_stride():
    spec = model_spec("mobilenet_v3_small").backbone
    features = Backbone(spec).eval()(torch.randn(1, 3, 64, 64))
    assert {stride: tuple(map_.shape[1:]) for stride, map_ in features.items()} == {
        2: (16, 32, 32),
        4: (16, 16, 16),
        8: (24, 8, 8),
        16: (48, 4, 4),
        32: (576, 2, 2),
    }


def output(spec: ModelSpec) -> Tensor:
    """Logits of the network with the weights of one seed."""
    torch.manual_seed(0)
    model = build(spec).eval()
    with torch.inference_mode():
        return model(torch.randn(2, 3, 64, 64))


V3, V2 = model_spec("mobilenet_v3_small", classes=10), model_spec("mobilenet_v2", classes=10)


@pytest.mark.parametrize(
    ("base", "variant"),
    [
        (V3, with_activation(V3, "relu")),
        (V3, with_activation(V3, "swish")),
        (V3, with_activation(V3, "h-swish@96")),
        (V3, with_padding(V3, "same")),
        (V3, dilated(V3)),
        (V3, with_hidden(V3, 0)),
        (V2, with_linear_bottleneck(V2, False)),
        (V2, with_shortcut(V2, "expansion")),
        (V2, with_shortcut(V2, "none")),
    ],
    ids=["relu", "swish", "h-swish@96", "same", "dilated", "hidden", "linear", "expansion", "none"],
)
def test_every_variant_computes_something_else(base: ModelSpec, variant: ModelSpec):
    assert not torch.allclose(output(base), output(variant), rtol=1e-3, atol=0)
    assert torch.equal(output(variant), output(variant))


def test_hidden_layer_of_the_head():
    model = Model(V3).eval()
    features = {32: torch.randn(2, 576, 3, 4)}
    assert model.head.hidden is not None
    hidden = F.hardswish(model.head.hidden(features[32].mean((2, 3))))
    torch.testing.assert_close(model.head.embed(features), hidden)
    torch.testing.assert_close(model.head(features), model.head.linear(hidden))


def test_batch_norm_takes_the_specs_numbers():
    norms = [module for module in Model(V3).modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_strided_pointwise_convolution_is_the_plain_one():
    plain = nn.Conv2d(6, 4, 1, stride=2, bias=False)
    ours = conv2d(model_spec("mobileone_s0").backbone, 6, 4, kernel=1, stride=2)
    ours.load_state_dict(plain.state_dict())
    for side in (8, 9):
        x = torch.randn(2, 6, side, side)
        assert torch.allclose(ours(x), plain(x), atol=1e-6)


def test_mobileone_trains_at_full_size():
    """In a process of its own: the strided 1x1 branch of the stem once corrupted memory in the backward pass."""
    program = """
import torch
from pocketvision.nn.model import build
from pocketvision.zoo import model_spec
model = build(model_spec("mobileone_mu0", classes=4)).to(memory_format=torch.channels_last)
for _ in range(2):
    model(torch.randn(4, 3, 224, 224).contiguous(memory_format=torch.channels_last)).square().mean().backward()
print("trained")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
