"""Optimisers against a float64 loop and timm; parameter groups; the average of the weights."""

import math

import pytest
import torch
from torch import nn

from pocketvision.training.optim import EMA, RMSpropTF, make_optimizer, parameter_groups, set_learning_rate
from pocketvision.training.recipe import Recipe

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


def tiny() -> nn.Module:
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model.head = nn.Linear(4, 2)
    return model


def test_groups():
    model = tiny()
    groups = parameter_groups(model, Recipe(weight_decay=0.1, head_lr=5))
    found = {(tuple(p.shape), g["weight_decay"], g["scale"]) for g in groups for p in g["params"]}
    body = {((4, 3, 3, 3), 0.1, 1.0), ((4,), 0.0, 1.0)}
    assert found == body | {((2, 4), 0.1, 5), ((2,), 0.0, 5)}
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    everywhere = parameter_groups(model, Recipe(weight_decay=0.1, decay_norms=True))
    assert {g["weight_decay"] for g in everywhere} == {0.1}


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop_tf"])
def test_frozen_parameters_stay_and_the_rest_moves(name):
    model = tiny()
    model.backbone[0].requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = make_optimizer(model, Recipe(optimizer=name, lr=0.1, head_lr=2))
    set_learning_rate(optimizer, 0.01)
    assert sorted({g["lr"] for g in optimizer.param_groups}) == [0.01, 0.02]
    model.head(model.backbone(torch.randn(2, 3, 5, 5)).mean((2, 3))).square().sum().backward()
    optimizer.step()
    after = model.state_dict()
    assert torch.equal(after["backbone.0.weight"], before["backbone.0.weight"])
    assert not torch.equal(after["backbone.1.weight"], before["backbone.1.weight"])
    assert not torch.equal(after["head.weight"], before["head.weight"])


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
    assert ema.model.backbone[1].num_batches_tracked == model.backbone[1].num_batches_tracked == 36
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())
