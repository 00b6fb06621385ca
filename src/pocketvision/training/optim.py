"""Optimisers and the moving average of weights."""

import copy
import math
from collections.abc import Callable, Iterable
from itertools import compress
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from ..nn.model import Model
from .recipe import Recipe


class RMSpropTF(Optimizer):
    """RMSProp with momentum exactly as TensorFlow 1 computes it, which the MobileNet papers used.

    For a gradient g (with weight_decay x w added): s = decay s + (1 - decay) g^2, starting at s = 1;
    m = momentum m + lr g / sqrt(s + eps); w = w - m. torch.optim.RMSprop differs in three ways: eps stands outside
    of the root (so its eps must be the root of this one), s starts at 0, and lr multiplies m, so that a
    change of lr also rescales the past (FACTS T3, C-9).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        decay: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change the weights by their gradients."""
        loss = None
        if closure:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group)
        return loss

    def _move(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state |= {"square_avg": torch.ones_like(p), "momentum_buffer": torch.zeros_like(p)}
        square, momentum = state["square_avg"], state["momentum_buffer"]
        if group["weight_decay"]:
            grad = grad.add(p, alpha=group["weight_decay"])
        square.mul_(group["decay"]).addcmul_(grad, grad, value=1 - group["decay"])
        momentum.mul_(group["momentum"]).addcdiv_(grad, (square + group["eps"]).sqrt_(), value=group["lr"])
        p.sub_(momentum)


def parameter_groups(model: Model, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters that train, by where they stand and whether weight decay applies.

    Those of one dimension (BatchNorm's and biases) have no decay unless ``recipe.decay_norms``. Each group's ``scale``
    multiplies the learning rate: ``recipe.head_lr`` for the head, a power of ``recipe.layer_decay`` for a stage.
    """
    stages = model.backbone.stages
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part, _, rest = name.partition(".")
            row = rest.split(".")[1] if part == "backbone" else ""
            scale = recipe.layer_decay ** (stages[-1] - stages[int(row)]) if row else recipe.head_lr
            groups.setdefault((scale, parameter.ndim > 1 or recipe.decay_norms), []).append(parameter)
    return [{"params": parameters, "scale": scale, "decays": decays} for (scale, decays), parameters in groups.items()]


def make_optimizer(model: Model, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser over ``parameter_groups``."""
    groups, lr = parameter_groups(model, recipe), recipe.lr
    decay, momentum, eps = recipe.rms_decay, recipe.momentum, recipe.rms_eps
    match recipe.optimizer:
        case "sgd":
            return SGD(groups, lr, momentum, nesterov=recipe.nesterov)
        case "adamw":
            return AdamW(groups, lr)
        case "rmsprop":
            return RMSprop(groups, lr, alpha=decay, eps=math.sqrt(eps), momentum=momentum)
        case "rmsprop_tf":
            return RMSpropTF(groups, lr, decay=decay, momentum=momentum, eps=eps)


def set_rates(optimizer: Optimizer, lr: float, weight_decay: float) -> None:
    """Give each group ``lr`` times its ``scale``, and ``weight_decay`` where it decays."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


M = TypeVar("M", bound=nn.Module)


class EMA(Generic[M]):
    """Exponential moving average of a model's weights and BatchNorm statistics, in a copy in eval mode.

    Step t (from 0) moves the average by 1 - min(decay, (1 + t) / (10 + t)): the shorter memory of the first steps is
    TensorFlow's ExponentialMovingAverage with num_updates. BatchNorm's statistics are averaged alike, so that they
    belong to the averaged weights; integer buffers are copied.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after step ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, new = ([*m.parameters(), *m.buffers()] for m in (self.model, model))
        floats = [average.is_floating_point() for average in averages]
        new_floats = list(compress(new, floats))
        torch._foreach_lerp_(list(compress(averages, floats)), new_floats, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for average, value, is_float in zip(averages, new, floats, strict=True):
            if not is_float:
                average.copy_(value)
