"""Optimisers against a float64 loop and timm; parameter groups; the average of the weights."""

import math

import pytest
import torch
from torch import nn

from pocketvision.nn.model import Model, build
from pocketvision.training.optim import EMA, RMSpropTF, make_optimizer, parameter_groups, set_rates
from pocketvision.training.recipe import Recipe

from .conftest import SPEC

RATES = [0.1, 0.1, 0.05, 0.02, 0.02, 0.01]  # changing, because lr stands inside of the momentum


def gradients() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 3, generator=generator, dtype=torch.float64) * 10 ** (i - 3) for i in range(len(RATES))]


def train(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> torch.Tensor:
    for lr, gradient in zip(RATES, gradients(), strict=True):
        optimizer.param_groups[0]["lr"] = lr
        weight.grad = gradient.to(weight.dtype)
        optimizer.step()
    return weight.detach()


def start(dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3).to(dtype))


def rmsprop_as_tensorflow_says(weight_decay: float) -> list[float]:
    """Number by number, from the formulas of tf.raw_ops.ApplyRMSProp."""
    result = []
    for w, *grads in zip(start().flatten().tolist(), *(g.flatten().tolist() for g in gradients()), strict=True):
        square, momentum = 1.0, 0.0
        for lr, gradient in zip(RATES, grads, strict=True):
            g = gradient + weight_decay * w
            square = 0.9 * square + (1 - 0.9) * g * g
            momentum = 0.8 * momentum + lr * g / math.sqrt(square + 1e-3)
            w -= momentum
        result.append(w)
    return result


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_rmsprop_equals_a_float64_loop(weight_decay: float):
    weight = start()
    optimizer = RMSpropTF([weight], 1.0, decay=0.9, momentum=0.8, eps=1e-3, weight_decay=weight_decay)
    assert train(optimizer, weight).flatten().tolist() == pytest.approx(rmsprop_as_tensorflow_says(weight_decay))


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_rmsprop_equals_timm(weight_decay: float):
    timm_optim = pytest.importorskip("timm.optim")
    theirs, ours = start(torch.float32), start(torch.float32)
    reference = timm_optim.RMSpropTF([theirs], 1.0, alpha=0.9, eps=1e-3, momentum=0.8, weight_decay=weight_decay)
    optimizer = RMSpropTF([ours], 1.0, decay=0.9, momentum=0.8, eps=1e-3, weight_decay=weight_decay)
    torch.testing.assert_close(train(optimizer, ours), train(reference, theirs), rtol=1e-6, atol=1e-7)


def test_rmsprop_differs_from_torchs_with_the_same_numbers():
    weight, other = start(), start()
    ours = train(RMSpropTF([weight], 1.0, decay=0.9, momentum=0.8, eps=1e-3), weight)
    theirs = train(torch.optim.RMSprop([other], 1.0, alpha=0.9, momentum=0.8, eps=1e-3), other)
    assert (ours - theirs).abs().max() > 0.01


def tiny() -> Model:
    torch.manual_seed(0)
    return build(SPEC)


def test_groups():
    model = tiny()
    groups = parameter_groups(model, Recipe(head_lr=5, layer_decay=0.5))
    found = {id(p): (g["scale"], g["decays"]) for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(found) == len(list(model.parameters()))
    scales = {"backbone.rows.0": 0.5, "backbone.rows.1": 0.5, "backbone.rows.2": 1.0, "backbone.rows.3": 1.0, "head": 5}
    for name, parameter in model.named_parameters():
        scale = next(value for start, value in scales.items() if name.startswith(start))
        assert found[id(parameter)] == (scale, parameter.ndim > 1), name
    assert all(g["decays"] for g in parameter_groups(model, Recipe(decay_norms=True)))


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop", "rmsprop_tf"])
def test_frozen_parameters_stay_and_the_rest_moves(name):
    model = tiny()
    model.backbone.rows[0].requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = make_optimizer(model, Recipe(optimizer=name, lr=0.1, head_lr=2))
    set_rates(optimizer, 0.01, 0.3)
    assert sorted({g["lr"] for g in optimizer.param_groups}) == [0.01, 0.02]
    assert {(g["weight_decay"], g["decays"]) for g in optimizer.param_groups} == {(0.3, True), (0.0, False)}
    model(torch.randn(2, 3, 16, 16)).square().sum().backward()
    optimizer.step()
    after = model.state_dict()
    for part, moves in (("backbone.rows.0.conv.weight", False), ("backbone.rows.3.conv.weight", True)):
        assert torch.equal(after[part], before[part]) is not moves
    assert any(not torch.equal(after[name], before[name]) for name in after if name.startswith("head."))


def test_pytorchs_rmsprop_has_the_root_of_eps():
    optimizer = make_optimizer(tiny(), Recipe(optimizer="rmsprop", rms_eps=1e-3, rms_decay=0.95, momentum=0.8))
    assert isinstance(optimizer, torch.optim.RMSprop)
    for group in optimizer.param_groups:
        assert group["eps"] == pytest.approx(0.0316, abs=1e-4)  # S0's number
        assert (group["alpha"], group["momentum"]) == (0.95, 0.8)


def test_ema_of_weights_and_statistics():
    model = tiny()
    ema = EMA(model, 0.5)
    expected = {name: value.double() for name, value in model.state_dict().items()}
    for step in range(8):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(step + 1)
        ema.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {name: decay * old + (1 - decay) * model.state_dict()[name] for name, old in expected.items()}
    for name, value in ema.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-5)
    counted = [m.backbone.rows[0].bn.num_batches_tracked for m in (ema.model, model)]  # type: ignore[union-attr]
    assert counted[0] == counted[1] == 36
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())
