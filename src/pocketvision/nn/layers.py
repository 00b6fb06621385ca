"""The layers that every block is made of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..spec.model import BackboneSpec, Preprocessing
from ..spec.rows import Activation, SqueezeExcite
from .gradients import clamp6_, depthwise5


def activation(name: Activation) -> nn.Module:
    """The module of an activation's name (FACTS B10, B11)."""
    match name:
        case "none":
            return nn.Identity()
        case "relu":
            return nn.ReLU(inplace=True)
        case "relu6":
            return ReLU6(inplace=True)
        case "hard_swish":
            return Hardswish(inplace=True)
        case "swish":
            return nn.SiLU(inplace=True)


class ReLU6(nn.ReLU6):
    """ReLU6 whose training copies nothing."""

    def forward(self, input: Tensor) -> Tensor:
        return clamp6_(input) if _records(input) else super().forward(input)


class Hardswish(nn.Hardswish):
    """hard-swish, in place only in evaluation: where a gradient is recorded, torch would copy the input first."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input) if _records(input) else super().forward(input)


def _records(input: Tensor) -> bool:
    return torch.is_grad_enabled() and input.requires_grad


class Depthwise(nn.Conv2d):
    """A depthwise convolution, trained faster on a CPU where its kernel is 5 wide."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        faster = self.kernel_size[1] == 5 and self.dilation == (1, 1) and input.device.type == "cpu"
        if faster and torch.is_grad_enabled() and weight.requires_grad and not torch.is_autocast_enabled("cpu"):
            assert not isinstance(self.padding, str)
            return depthwise5(input, weight, bias, self.stride, self.padding)  # pyright: ignore[reportArgumentType]
        return super()._conv_forward(input, weight, bias)


class Conv2dSame(nn.Conv2d):
    """A strided convolution padded as TensorFlow's SAME: the odd pixel goes to the right and the bottom."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """[B, C, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)]"""
        pads = list[int]()
        for axis in (1, 0):
            size, kernel, stride, dilation = (
                input.shape[2 + axis],
                self.kernel_size[axis],
                self.stride[axis],
                self.dilation[axis],
            )
            total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            pads += [total // 2, total - total // 2]
        return super()._conv_forward(F.pad(input, pads), weight, bias)


class DepthwiseSame(Conv2dSame, Depthwise):
    """Both."""


class Conv2dSubsampled(nn.Conv2d):
    """A strided 1x1 convolution, while gradients are recorded as one without stride on every stride-th pixel.

    Not a matter of speed: oneDNN's backward pass of the strided one, with 3 channels in channels_last (MobileOne's
    stem), writes outside of its memory and kills the process (torch 2.15, x86).
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """[B, C, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)]"""
        if not torch.is_grad_enabled():
            return super()._conv_forward(input, weight, bias)
        rows, columns = self.stride
        pixels = input[:, :, ::rows, ::columns].contiguous(memory_format=torch.channels_last)
        return F.conv2d(pixels, weight, bias, groups=self.groups)


def conv2d(
    spec: BackboneSpec, c_in: int, out: int, kernel: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution padded as ``spec`` says; it has a bias only in a folded network."""
    same = spec.padding == "same" and stride > 1
    padding = 0 if same else (kernel - 1) // 2 * dilation
    if kernel == 1 and stride > 1:
        make = Conv2dSubsampled
    elif groups == c_in == out:
        make = DepthwiseSame if same else Depthwise
    else:
        make = Conv2dSame if same else nn.Conv2d
    return make(c_in, out, kernel, stride, padding, dilation, groups, bias=spec.folded)


class ConvNorm(nn.Module):
    """Convolution, BatchNorm (absent in a folded network), activation.

    A frozen BatchNorm (in eval mode, the unit in train mode) is part of the convolution: the same function and
    gradients without its passes over the activations.
    """

    def __init__(self, spec: BackboneSpec, conv: nn.Conv2d, act: Activation = "none") -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.Identity() if spec.folded else batch_norm(spec, conv.out_channels)
        self.act = activation(act)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.is_frozen:
            return self.act(self.conv._conv_forward(x_BCHW, *self.kernel_and_bias()))
        return self.act(self.bn(self.conv(x_BCHW)))

    @property
    def is_frozen(self) -> bool:
        """Whether the unit trains, but not with the statistics of batches."""
        return self.training and isinstance(self.bn, nn.BatchNorm2d) and not self.bn.training

    @property
    def is_folded(self) -> bool:
        """Whether the unit has no BatchNorm (any more)."""
        return not isinstance(self.bn, nn.BatchNorm2d)

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that this pair computes in eval mode (S3 §3.3; FACTS B16)."""
        assert isinstance(self.bn, nn.BatchNorm2d)
        scale, bias = scale_and_shift(self.bn)
        return self.conv.weight * scale[:, None, None, None], bias


def batch_norm(spec: BackboneSpec, channels: int) -> nn.BatchNorm2d:
    """BatchNorm with the network's epsilon and momentum."""
    return nn.BatchNorm2d(channels, eps=spec.bn_eps, momentum=spec.bn_momentum)


def scale_and_shift(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The per-channel factor and offset that a BatchNorm applies in eval mode."""
    assert bn.running_mean is not None and bn.running_var is not None
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return scale, bn.bias - bn.running_mean * scale


class SqueezeExcitation(nn.Module):
    """Pool to 1x1, ``reduce`` with ReLU, ``expand`` with the gate, multiply (S1 §5.3)."""

    def __init__(self, se: SqueezeExcite, c_in: int, channels: int) -> None:
        super().__init__()
        squeezed = se.channels(c_in, channels)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid() if se.gate == "hard_sigmoid" else nn.Sigmoid()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        pooled = x_BCHW.mean((2, 3), keepdim=True)
        return x_BCHW * self.gate(self.expand(F.relu(self.reduce(pooled))))


class Normalize(nn.Module):
    """[B, 3, H, W] pixels, uint8 or float in 0 to 255 -> float32 (x / 255 - mean) / std."""

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        std, mean = torch.tensor(preprocessing.std), torch.tensor(preprocessing.mean)
        self.register_buffer("scale", (1 / (255 * std)).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return torch.addcmul(self.shift, pixels_BCHW.float(), self.scale)
