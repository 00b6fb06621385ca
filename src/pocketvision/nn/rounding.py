"""Rounding to 8 bits inside a float network: what training and a search for causes see of int8.

The operators of the forward pass are intercepted, so that the network itself stays as it is: its layers, its dropout,
its BatchNorms with their epsilon and momentum. Each int8 runtime rounds at the same places:

- weights of convolutions and linear layers: int8, symmetric, one step for each output channel. That commutes with the
  factor of a BatchNorm behind a convolution, whose weights therefore need no folding here;
- what convolutions, linear layers, sums, products, means, joints and hard-swish read: 8 bits with one range for the
  tensor. A ReLU, which only cuts, is part of what comes before it; hard-swish is an operator of its own, before which
  -3 is the least value; a hard-sigmoid's output is 0 to 1. The image, which is bytes, and the last outputs are not
  rounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

LEVELS = 255  # steps between the 256 values of 8 bits
PREFIX = "rounding."  # of the ranges' names among a model's tensors
_WEIGHTED = {"conv2d": "conv", "depthwise5": "conv", "linear": "linear"}
_READERS = {"mean": "pool", "adaptive_avg_pool2d": "pool", "hardswish": "hard_swish", "add": "add", "mul": "mul"}
_CUTS = ("batch_norm", "relu", "relu_", "relu6", "clamp6_", "clamp", "clamp_", "hardtanh", "hardtanh_")
_SAME = {*_CUTS, "dropout", "pad", "contiguous", "flatten", "reshape"}
_NAME = "_made_by"  # attribute of tensors

Visit = Callable[[str, Tensor, float], Tensor]
Weigh = Callable[[str, Tensor], Tensor]


class Rounding(nn.Module):
    """The ranges of a network's activations, by the names of ``watched``; while ``on``, ``Model.forward`` rounds."""

    def __init__(self, ranges: Mapping[str, tuple[float, float] | Tensor], *, on: bool = False) -> None:
        super().__init__()
        self.on = on
        for name, ends in sorted(ranges.items()):  # an order that a file keeps
            self.register_buffer(name, torch.as_tensor(ends, dtype=torch.float32).clone())

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of each tensor."""
        return {name: (float(ends[0]), float(ends[1])) for name, ends in self.named_buffers()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Round what is calculated meanwhile."""
        ranges = self.ranges
        with watched(
            lambda name, x, _: rounded(x, *ranges[name]) if name in ranges else x, lambda _, w: whole_steps(w)
        ):
            yield


def ranges_in(state: dict[str, Any]) -> dict[str, Tensor]:
    """Takes the ranges out of a model's tensors."""
    return {name.removeprefix(PREFIX): state.pop(name) for name in list(state) if name.startswith(PREFIX)}


def rounded(x: Tensor, low: float, high: float) -> Tensor:
    """What 8 bits with that range, which holds 0, leave of ``x``; the gradient passes, but where ``x`` is cut off."""
    step = max((high - low) / LEVELS, 1e-8)
    zero = round(-low / step)
    result = _Rounded.apply(x, -zero * step, (LEVELS - zero) * step, step)
    assert isinstance(result, Tensor)
    return result


class _Rounded(Function):
    """torch.fake_quantize_per_tensor_affine in a quarter of its time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float, step: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.ends = low, high
        return x.clamp(low, high).div_(step).round_().mul_(step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return torch.ops.aten.hardtanh_backward(grads[0], *ctx.saved_tensors, *ctx.ends), None, None, None


def whole_steps(weight: Tensor) -> Tensor:
    """What int8 leaves of weights [O, ...]: whole numbers up to 127 of a step of each output channel."""
    steps = (weight.detach().abs().flatten(1).amax(1) / 127).clamp(min=1e-12)
    return torch.fake_quantize_per_channel_affine(weight, steps, torch.zeros_like(steps).int(), 0, -127, 127)


@contextmanager
def watched(visit: Visit, weigh: Weigh = lambda _, weight: weight) -> Iterator[None]:
    """Meanwhile operators read what ``visit(name, x, floor)`` makes of an activation and ``weigh(name, weight)`` of
    weights.

    A name is the operator that made the tensor and how many of its kind came before: conv0, add2, hard_swish5; the same
    in train and eval mode, folded or not (but MobileOne's branches), and in an exported graph. ``floor``: what is
    below counts as that.
    """
    with _Watch(visit, weigh):
        yield


class _Watch(TorchFunctionMode):
    def __init__(self, visit: Visit, weigh: Weigh) -> None:
        super().__init__()
        self.visit, self.weigh, self.made = visit, weigh, Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if operator in _WEIGHTED:
            x, weight, *rest = args
            name = self._name(_WEIGHTED[operator])
            return _named(func(self._read(x), self.weigh(name, weight), *rest, **kwargs), name)
        if operator in _READERS and self._is_quantized(operator, args):
            floor = -3.0 if operator == "hardswish" else float("-inf")
            read = [self._read(x, floor) if isinstance(x, Tensor) else x for x in args]
            return _named(func(*read, **kwargs), self._name(_READERS[operator]))
        if operator == "cat" and all(hasattr(x, _NAME) and x.ndim == 4 for x in args[0]):
            return _named(func([self._read(x) for x in args[0]], *args[1:], **kwargs), self._name("concat"))
        if operator == "hardsigmoid" and hasattr(args[0], _NAME):
            return _named(rounded(func(*args, **kwargs), 0.0, 1.0), self._name("gate"))
        result = func(*args, **kwargs)
        if operator in _SAME and hasattr(args[0], _NAME):
            _named(result, getattr(args[0], _NAME))
        return result

    def _is_quantized(self, operator: str, args: Any) -> bool:
        """Whether 8-bit operators give all that is read, and it is a map of features."""
        tensors = [x for x in args if isinstance(x, Tensor)]
        two = operator not in ("add", "mul") or len(tensors) == 2
        return two and all(hasattr(x, _NAME) and (x.ndim == 4 or operator == "hardswish") for x in tensors)

    def _name(self, kind: str) -> str:
        self.made[kind] += 1
        return f"{kind}{self.made[kind] - 1}"

    def _read(self, x: Tensor, floor: float = float("-inf")) -> Tensor:
        name = getattr(x, _NAME, "gate")
        return x if name.startswith("gate") else self.visit(name, x, floor)


def _named(x: Tensor, name: str) -> Tensor:
    setattr(x, _NAME, name)
    return x
