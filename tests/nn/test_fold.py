"""Folding computes the same function; unfolding gives BatchNorm back without changing it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pocketvision.errors import ConfigurationError
from pocketvision.nn.fold import fold, has_identity_norms, recalibrate, unfold
from pocketvision.nn.model import Model, build
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec
from pocketvision.spec.rows import (
    Conv,
    DepthwiseSeparable,
    InvertedResidual,
    MobileOneBlock,
    MobileOneConv,
    Row,
    SqueezeExcite,
)
from pocketvision.zoo import model_spec

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
SE = SqueezeExcite(reduction=2)


def mobileone(branches: int) -> ModelSpec:
    """Every kind of MobileOne convolution: with and without skip, scale branch and SE, dense, depthwise, dilated."""
    rows = (
        MobileOneConv(8, stride=2, branches=branches),
        MobileOneConv(8, branches=branches, se=SE),  # dense with skip
        MobileOneBlock(8, branches=branches),  # skips in both halves
        MobileOneBlock(16, stride=2, branches=branches, se=SE),  # no skip in either half
        MobileOneBlock(16, kernel=5, dilation=2, branches=branches),
        MobileOneConv(24, kernel=1, branches=branches),  # no scale branch
    )
    return ModelSpec(BackboneSpec("test", rows), ClassifierHead(5))


def everything_else() -> ModelSpec:
    rows: tuple[Row, ...] = (
        Conv(8, stride=2, act="hard_swish"),
        DepthwiseSeparable(16, act="relu6"),
        InvertedResidual(16, expand=32, se=SE),
        InvertedResidual(24, expand=16, stride=2, linear=False, act="swish"),
        InvertedResidual(24, expand=48, shortcut="expansion", dilation=2),
        Conv(32, kernel=1, act="none"),
    )
    return ModelSpec(BackboneSpec("test", rows, padding="same", bn_eps=1e-3), ClassifierHead(5, hidden=16))


def settled(spec: ModelSpec, dtype: torch.dtype = torch.float32) -> Model:
    """A model in eval mode whose BatchNorms have random parameters and statistics of some images."""
    torch.manual_seed(0)
    model = build(spec).to(dtype)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = None
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.3)
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64, dtype=dtype))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
                module.running_var.clamp_(min=0.05)  # a dead channel would blow rounding errors up
    return model.eval()


def error(model: Model, other: Model, dtype: torch.dtype = torch.float32, size: int = 65) -> float:
    """Largest difference of outputs, relative to the largest output."""
    x_BCHW = torch.randn(2, 3, size, size, dtype=dtype)
    with torch.inference_mode():
        expected, got = model(x_BCHW), other(x_BCHW)
    assert expected.std() > 0.01
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "spec", [*(mobileone(k) for k in range(1, 6)), everything_else()], ids=[*"12345", "other rows"]
)
def test_folding_keeps_the_function(spec: ModelSpec, dtype: torch.dtype):
    model = settled(spec, dtype)
    deploy = fold(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deploy.modules())
    assert deploy.spec.backbone.folded
    assert error(model, deploy, dtype) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobileone_s0", "mnasnet_a1"])
def test_folding_networks_of_the_zoo(name: str):
    for dtype, tolerance in TOLERANCE.items():
        model = settled(model_spec(name, classes=10), dtype)
        assert error(model, fold(model), dtype) < tolerance


def test_folding_leaves_the_model_alone():
    model = settled(mobileone(2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    deploy = fold(model)
    for tensor in deploy.state_dict().values():
        tensor.zero_()
    assert not model.spec.backbone.folded
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())


def test_folding_twice_is_folding_once():
    once = fold(settled(mobileone(2)))
    twice = fold(once)
    assert twice is not once
    assert error(once, twice) == 0


def test_train_mode_is_refused():
    with pytest.raises(ConfigurationError, match=r"train mode: call model.eval\(\)"):
        fold(build(mobileone(1)))


@pytest.mark.parametrize("spec", [mobileone(3), everything_else()], ids=["mobileone", "everything else"])
def test_unfolding_keeps_the_function(spec: ModelSpec):
    deploy = fold(settled(spec))
    model = unfold(deploy, [torch.randn(8, 3, 65, 65) for _ in range(2)])
    assert error(deploy, model) < 1e-5
    assert not model.spec.backbone.folded
    assert error(model, fold(model)) < 1e-5


def norm_inputs(model: Model, x_BCHW: torch.Tensor) -> dict[nn.BatchNorm2d, torch.Tensor]:
    inputs = dict[nn.BatchNorm2d, torch.Tensor]()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(lambda norm, args: inputs.update({norm: args[0]})) for norm in norms]
    with torch.no_grad():
        model(x_BCHW)
    for hook in hooks:
        hook.remove()
    return inputs


@pytest.mark.parametrize("prepare", [fold, lambda model: model], ids=["unfolded", "recalibrated"])
def test_statistics_are_those_of_the_images(prepare: Callable[[Model], Model]):
    images = torch.randn(8, 3, 64, 64)
    model = unfold(prepare(settled(everything_else())), images.split(3))
    for norm, x_BCHW in norm_inputs(model, images).items():
        assert norm.running_mean is not None and norm.running_var is not None
        torch.testing.assert_close(norm.running_mean, x_BCHW.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norm.running_var, x_BCHW.var((0, 2, 3), correction=0), rtol=1e-3, atol=1e-4)


def test_after_unfolding_train_mode_computes_nearly_the_same():
    """The reason for unfolding: a fresh BatchNorm in train mode would change every activation."""
    images = torch.randn(16, 3, 64, 64)
    deploy = fold(settled(replace(mobileone(2), head=ClassifierHead(5, dropout=0))))
    with torch.no_grad():
        expected = deploy(images)
        got = unfold(deploy, [images]).train()(images)
    assert (got - expected).std() < 0.01 * expected.std()


def test_recalibrating_changes_statistics_but_not_the_function():
    model = settled(everything_else())
    reference = settled(everything_else())
    recalibrate(model, [2 + 3 * torch.randn(8, 3, 64, 64)])
    assert not torch.allclose(
        model.state_dict()["backbone.rows.0.bn.running_mean"],
        reference.state_dict()["backbone.rows.0.bn.running_mean"],
        atol=0.1,
    )
    assert error(reference, model) < 1e-5


def test_recalibrating_without_images_is_an_error():
    with pytest.raises(ConfigurationError, match="at least one batch"):
        unfold(fold(settled(mobileone(1))), [])


def test_identity_norms_are_seen():
    model = settled(everything_else())
    assert not has_identity_norms(model)
    assert not has_identity_norms(fold(model))  # there is none to see
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
            nn.init.ones_(norm.weight)
    assert has_identity_norms(model)


def test_dequantised_weights_have_identity_norms(shared: Path):
    from pocketvision.nn.load import load_model

    path = shared / "data" / "weights" / "mobilenet_v3_small_tfptq_imagenet_deq_fp16.safetensors"
    model, info = load_model(model_spec("mobilenet_v3_small"), path)
    assert info.folded
    assert has_identity_norms(model)
