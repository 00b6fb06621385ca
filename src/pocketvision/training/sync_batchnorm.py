"""BatchNorm over the images of all processes, on any device (torch's own needs a GPU)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from . import distributed


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose mean and variance in training are those of the whole batch, of which each process has a part.

    The part may be empty. In a process that is alone, and in eval mode, it is ``nn.BatchNorm2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> the same, normalised"""
        if not self.training or distributed.world() == 1:
            return super().forward(input)
        mean_C, var_C, count = _statistics(input.detach())
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.momentum is not None and self.num_batches_tracked is not None
            self.running_mean.lerp_(mean_C.to(self.running_mean), self.momentum)
            self.running_var.lerp_((var_C * count / (count - 1)).to(self.running_var), self.momentum)
            self.num_batches_tracked += 1
        return _Normalized.apply(input, self.weight, self.bias, mean_C, var_C, count, self.eps)  # type: ignore[return-value]


def synchronise(model: nn.Module) -> None:
    """Make each BatchNorm of ``model`` a synchronised one, with the same names and the same tensors."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d  # it has the same state and another forward


def _statistics(x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C] and variance [C] over all processes, and pixels a channel; from each one's mean and squared distances.

    Sums of squares would be less work and lose digits where the mean is far from 0.
    """
    x_BCHW = x_BCHW.float() if x_BCHW.dtype.itemsize < 4 else x_BCHW
    channels, count = x_BCHW.shape[1], x_BCHW.numel() // x_BCHW.shape[1]
    own = x_BCHW.new_zeros(2 * channels + 1)
    if count:
        var_C, mean_C = torch.var_mean(x_BCHW, (0, 2, 3), correction=0)
        own = torch.cat([mean_C, var_C, var_C.new_tensor([count])])
    all_R = x_BCHW.new_zeros(distributed.world(), len(own))
    all_R[distributed.rank()] = own
    distributed.total(all_R)
    means_RC, vars_RC, counts_R1 = all_R[:, :channels], all_R[:, channels:-1], all_R[:, -1:]
    everyone = counts_R1.sum()  # stays on the device: a GPU need not wait
    mean_C = (means_RC * counts_R1).sum(0) / everyone
    var_C = ((vars_RC + (means_RC - mean_C) ** 2) * counts_R1).sum(0) / everyone
    return mean_C, var_C, everyone


class _Normalized(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, where mean and variance depend on x, here and elsewhere.

    Gradients of ``weight`` and ``bias`` are of this process's images only, as those of every other parameter are.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        x_BCHW, weight_C, bias_C, mean_C, var_C, count, ctx.eps = arguments
        mean_C, var_C = mean_C.to(weight_C), var_C.to(weight_C)
        ctx.save_for_backward(x_BCHW, weight_C, mean_C, var_C, count)
        return F.batch_norm(x_BCHW, mean_C, var_C, weight_C, bias_C, eps=ctx.eps)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch leaves its own to be replaced)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad_BCHW,) = grad_outputs
        x_BCHW, weight_C, mean_C, var_C, count = ctx.saved_tensors
        direct_BCHW, weight_grad_C, bias_grad_C = grad_BCHW, torch.zeros_like(weight_C), torch.zeros_like(weight_C)
        if x_BCHW.numel():  # with nothing in it the call divides by zero and ends the process
            direct_BCHW, weight_grad_C, bias_grad_C = torch.ops.aten.native_batch_norm_backward(
                grad_BCHW, x_BCHW, weight_C, mean_C, var_C, None, None, False, ctx.eps, [True, True, True]
            )
        of_weight_C, of_bias_C = distributed.total(torch.stack([weight_grad_C, bias_grad_C])) / count
        factor_C = (var_C + ctx.eps).rsqrt()
        slope_C = -weight_C * factor_C**2 * of_weight_C
        shift_C = -weight_C * factor_C * of_bias_C - slope_C * mean_C
        slope_C11, shift_C11 = slope_C[:, None, None], shift_C[:, None, None]
        through_BCHW = torch.addcmul(shift_C11, x_BCHW, slope_C11).to(direct_BCHW)
        return direct_BCHW + through_BCHW, weight_grad_C, bias_grad_C, None, None, None, None
