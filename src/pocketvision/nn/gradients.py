"""Operations whose gradients torch computes slowly on a CPU: the same numbers in less time (benchmarks/training.md)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

_PART = 3  # columns of taps that oneDNN's gradient is fast for


class _Clamp6(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x.clamp_(0, 6))
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return torch.ops.aten.hardtanh_backward(grads[0], *ctx.saved_tensors, 0, 6)


def clamp6_(x: Tensor) -> Tensor:
    """min(max(x, 0), 6) in place. torch's ReLU6 copies x for the gradient; the result says where it is 0 as well."""
    if has_torch_function_unary(x):  # somebody watches the operators (nn.rounding)
        return handle_torch_function(clamp6_, (x,), x)
    result = _Clamp6.apply(x)
    assert isinstance(result, Tensor)
    return result


class _Depthwise5(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, columns = ctx.padding

        def gradients(x: Tensor, weight: Tensor, padding: tuple[int, int], *wanted: bool) -> Any:
            rest = (None, ctx.stride, padding, (1, 1), False, (0, 0), len(weight), wanted)
            return torch.ops.aten.convolution_backward(grads[0], x, weight, *rest)

        wants_x, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        grad_x = gradients(x, weight, ctx.padding, True, False, False)[0] if wants_x else None
        grad_bias = grads[0].sum((0, 2, 3)) if wants_bias else None  # oneDNN's comes with the slow weight gradient
        grad_weight = torch.empty_like(weight) if wants_weight else None
        if grad_weight is not None:
            for first in (0, 5 - _PART):
                part = slice(first, first + _PART)
                read = F.pad(x, (columns - first, columns - (5 - _PART) + first))
                grad_weight[..., part] = gradients(read, weight[..., part], (rows, 0), False, True, False)[1]
        return grad_x, grad_weight, grad_bias, None, None


def depthwise5(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """A depthwise convolution 5 columns wide: [B, C, H, W], [C, 1, K, 5] -> [B, C, H', W'].

    oneDNN (torch 2.15, x86) takes about twice as long for the weight gradient of 5 columns of taps as for two times 3,
    so it is asked twice, for the first 3 and the last 3 columns.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(depthwise5, (x,), x, weight, bias, stride, padding)
    result = _Depthwise5.apply(x, weight, bias, stride, padding)
    assert isinstance(result, Tensor)
    return result
