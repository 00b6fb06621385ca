"""Faster gradients are the gradients that torch computes."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketvision.nn.gradients import clamp6_, depthwise5
from pocketvision.nn.layers import ConvNorm, Depthwise, DepthwiseSame, conv2d
from pocketvision.nn.model import build
from pocketvision.spec.rows import MobileOneBlock, MobileOneConv
from pocketvision.spec.transform import with_padding
from pocketvision.zoo import model_spec


def gradients(f: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The result and the gradient of every input, for a loss that tells all pixels apart."""
    leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
    result = f(*leaves)
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).reshape(result.shape)
    return [result.detach(), *torch.autograd.grad((result * weights).sum(), leaves)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width", "stride", "padding"), [(7, 7, 1, 2), (8, 9, 2, 2), (11, 8, 2, 0)])
def test_depthwise(dtype: torch.dtype, layout: torch.memory_format, height: int, width: int, stride: int, padding: int):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator, dtype=dtype) for shape in [(3, 16, height, width), (16, 1, 5, 5), (16,)]
    )
    x, steps, pads = x.contiguous(memory_format=layout), (stride, stride), (padding, padding)
    ours = gradients(lambda x, w, b: depthwise5(x, w, b, steps, pads), x, weight, bias)
    expected = gradients(lambda x, w, b: F.conv2d(x, w, b, stride, padding, groups=16), x, weight, bias)
    limits = {} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    for value, right in zip(ours, expected, strict=True):
        torch.testing.assert_close(value, right, **limits)
    unbiased = gradients(lambda x, w: depthwise5(x, w, None, steps, pads), x, weight)
    torch.testing.assert_close(unbiased[2], expected[2], **limits)


def test_clamp6():
    x = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 3.0, 5.9999, 6.0, 7.0], dtype=torch.float64)
    # in place needs a tensor that is no leaf; the product's gradient also shows a wrong saved value
    ours = gradients(lambda x: clamp6_(x * 1.0), x)
    for value, right in zip(ours, gradients(lambda x: F.hardtanh(x * 1.0, 0, 6), x), strict=True):
        assert torch.equal(value, right)


def test_networks_use_it():
    spec = model_spec("mobilenet_v3_small").backbone
    same = with_padding(model_spec("mobilenet_v3_small"), "same").backbone
    assert type(conv2d(spec, 8, 8, 5, groups=8)) is Depthwise
    assert type(conv2d(same, 8, 8, 5, stride=2, groups=8)) is DepthwiseSame
    x = torch.randn(2, 8, 9, 9)
    for conv in (conv2d(spec, 8, 8, 5, groups=8), conv2d(same, 8, 8, 5, stride=2, groups=8)):
        assert "Depthwise5" in str(conv(x).grad_fn)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "mnasnet_a1", "efficientnet_lite0"])
def test_a_whole_network_trains_the_same(name: str, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    model = build(model_spec(name)).double()
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, x: x)
    other = copy.deepcopy(model)
    for kind in ("ReLU6", "Hardswish", "Depthwise"):
        monkeypatch.delattr(f"pocketvision.nn.layers.{kind}.{'_conv_' if kind == 'Depthwise' else ''}forward")
    model_grads, other_grads = [], []
    other(x).square().sum().backward()
    other_grads = [p.grad for p in other.parameters()]
    monkeypatch.undo()
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, x: x)
    model(x).square().sum().backward()
    model_grads = [p.grad for p in model.parameters()]
    for ours, theirs in zip(model_grads, other_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


class TestFrozen:
    """A frozen BatchNorm that is part of the convolution has the function and the gradients of the layer."""

    @staticmethod
    def trained(module: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
                    assert tensor is not None
                    tensor.uniform_(0.5, 1.5)
        return module.double()

    @pytest.mark.parametrize("padding", ["symmetric", "same"])
    def test_unit(self, padding: str):
        spec = replace(model_spec("mobilenet_v3_small").backbone, padding=padding)
        unit = self.trained(ConvNorm(spec, conv2d(spec, 6, 6, 5, 2, groups=6), "hard_swish"))
        self.same(unit, torch.randn(2, 6, 9, 9, dtype=torch.float64))

    @pytest.mark.parametrize("row", [MobileOneConv(8, branches=2, stride=2), MobileOneBlock(8, branches=2)])
    def test_mobileone(self, row: MobileOneConv | MobileOneBlock):
        from pocketvision.nn.blocks import build_row

        module = self.trained(build_row(model_spec("mobileone_s0").backbone, row, 8))
        self.same(module, torch.randn(2, 8, 8, 8, dtype=torch.float64))

    @staticmethod
    def same(module: nn.Module, x: Tensor) -> None:
        results = []
        for frozen in (False, True):
            module.eval()
            for child in module.modules():
                if frozen and not isinstance(child, nn.BatchNorm2d):
                    child.training = True
            module.zero_grad()
            results.append([*gradients(module, x)[:2]])
            output = module(x)
            output.square().sum().backward()
            results[-1] += [p.grad for p in module.parameters()]
        for ours, layers in zip(results[1], results[0], strict=True):
            torch.testing.assert_close(ours, layers, rtol=1e-9, atol=1e-9)
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms and all(norm.num_batches_tracked == 0 for norm in norms)
