"""One row of a table -> one module."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..spec.model import BackboneSpec
from ..spec.rows import (
    Activation,
    Conv,
    DepthwiseSeparable,
    InvertedResidual,
    MobileOneBlock,
    MobileOneConv,
    Row,
)
from .layers import ConvNorm, SqueezeExcitation, activation, batch_norm, conv2d, scale_and_shift
from .split import in_parts


def build_row(spec: BackboneSpec, row: Row, c_in: int) -> nn.Module:
    """The module of one row: [B, c_in, H, W] -> [B, row.out, H / stride, W / stride]."""
    match row:
        case MobileOneBlock():
            return nn.Sequential(
                MobileOneUnit(spec, row, c_in, c_in, row.kernel, row.stride, groups=c_in),
                MobileOneUnit(spec, row, c_in, row.out, kernel=1, stride=1, groups=1),
            )
        case MobileOneConv():
            return MobileOneUnit(spec, row, c_in, row.out, row.kernel, row.stride, groups=1)
        case Conv():
            return ConvNorm(spec, conv2d(spec, c_in, row.out, row.kernel, row.stride, row.dilation), row.act)
        case DepthwiseSeparable():
            return nn.Sequential(
                depthwise(spec, c_in, row, row.act), ConvNorm(spec, conv2d(spec, c_in, row.out), row.act)
            )
        case InvertedResidual():
            return InvertedResidualBlock(spec, row, c_in)


def depthwise(spec: BackboneSpec, channels: int, row: Row, act: Activation) -> ConvNorm:
    """The row's spatial convolution on ``channels`` separate channels."""
    conv = conv2d(spec, channels, channels, row.kernel, row.stride, row.dilation, groups=channels)
    return ConvNorm(spec, conv, act)


class InvertedResidualBlock(nn.Module):
    """[expand] -> depthwise -> activation -> [SE] -> project (FACTS B3, B6, B7, B8)."""

    def __init__(self, spec: BackboneSpec, row: InvertedResidual, c_in: int) -> None:
        super().__init__()
        self.expand = (
            ConvNorm(spec, conv2d(spec, c_in, row.expand), row.act) if row.has_expansion(c_in) else nn.Identity()
        )
        self.depthwise = depthwise(spec, row.expand, row, row.act)
        self.se = SqueezeExcitation(row.se, c_in, row.expand) if row.se else nn.Identity()
        self.project = ConvNorm(spec, conv2d(spec, row.expand, row.out), "none" if row.linear else row.act)
        joins = row.shortcut if row.stride == 1 else "none"
        self.joins_bottlenecks = joins == "bottleneck" and c_in == row.out
        self.joins_expansions = joins == "expansion"
        self.parts = row.parts if spec.folded else 1
        self.drop_path = 0.0  # share of training samples that skip this block (arXiv:1603.09382)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, out, H / stride, W / stride]"""
        if self.parts > 1:
            expand = self.expand if isinstance(self.expand, ConvNorm) else None
            y_BCHW = in_parts(x_BCHW, expand, self.depthwise, self.project, self.parts)
            return y_BCHW + x_BCHW if self.joins_bottlenecks else y_BCHW
        return self.from_expansion(self.expand(x_BCHW), x_BCHW)

    def from_expansion(self, expanded: Tensor, x_BCHW: Tensor) -> Tensor:
        """The rest of the block: its expansion [B, expand, H, W] and its input [B, c_in, H, W] -> its output."""
        filtered = self.se(self.depthwise(expanded))
        y_BCHW = self.project(filtered + expanded if self.joins_expansions else filtered)
        if self.training and self.drop_path and self.joins_bottlenecks:
            kept_B111 = y_BCHW.new_empty(len(y_BCHW), 1, 1, 1).bernoulli_(1 - self.drop_path)
            y_BCHW = y_BCHW * kept_B111 / (1 - self.drop_path)
        return y_BCHW + x_BCHW if self.joins_bottlenecks else y_BCHW


class MobileOneUnit(nn.Module):
    """Parallel branches summed, SE, activation; one plain convolution when folded (S3 §3.3, Fig. 3)."""

    def __init__(
        self, spec: BackboneSpec, row: MobileOneConv, c_in: int, out: int, kernel: int, stride: int, groups: int
    ) -> None:
        super().__init__()

        def branch(size: int) -> ConvNorm:
            dilation = row.dilation if size > 1 else 1
            return ConvNorm(spec, conv2d(spec, c_in, out, size, stride, dilation, groups))

        self.branches = nn.ModuleList(branch(kernel) for _ in range(1 if spec.folded else row.branches))
        self.scale = branch(1) if kernel > 1 and not spec.folded else None
        self.skip = batch_norm(spec, out) if c_in == out and stride == 1 and not spec.folded else None
        self.se = SqueezeExcitation(row.se, c_in, out) if row.se else nn.Identity()
        self.act = activation(row.act)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, out, H / stride, W / stride]"""
        first = cast(ConvNorm, self.branches[0])
        if first.is_frozen:
            return self.act(self.se(first.conv._conv_forward(x_BCHW, *self.kernel_and_bias())))
        # in the order of Apple's and timm's code, so that sums are rounded as there
        paths = [path for path in (self.scale, *self.branches, self.skip) if path is not None]
        y_BCHW = paths[0](x_BCHW)
        for path in paths[1:]:
            y_BCHW = y_BCHW + path(x_BCHW)
        return self.act(self.se(y_BCHW))

    @property
    def is_folded(self) -> bool:
        """Whether the branches are merged."""
        return cast(ConvNorm, self.branches[0]).is_folded

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that all branches add up to (FACTS B16)."""
        kernels, biases = zip(*(cast(ConvNorm, branch).kernel_and_bias() for branch in self.branches), strict=True)
        weight, bias = sum(kernels), sum(biases)
        assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
        margin = weight.shape[-1] // 2
        if self.scale is not None:
            scale_weight, scale_bias = self.scale.kernel_and_bias()
            weight = weight + F.pad(scale_weight, [margin] * 4)
            bias = bias + scale_bias
        if self.skip is not None:
            scale, shift = scale_and_shift(self.skip)
            identity = torch.zeros_like(weight)
            channels = torch.arange(weight.shape[0], device=weight.device)
            identity[channels, channels % weight.shape[1], margin, margin] = scale
            weight, bias = weight + identity, bias + shift
        return weight, bias
