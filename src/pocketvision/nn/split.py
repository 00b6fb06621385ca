"""A bottleneck in parts: its expanded channels are computed group by group, so that few of them exist at a time."""

import copy
from itertools import pairwise

from torch import Tensor

from .layers import ConvNorm


def in_parts(x_BCHW: Tensor, expand: ConvNorm | None, depthwise: ConvNorm, project: ConvNorm, parts: int) -> Tensor:
    """expand -> depthwise -> project of folded units, [B, c_in, H, W] -> [B, out, H / stride, W / stride].

    The projection is linear and everything before it knows only its own channel, so that the sum over ``parts`` groups
    of channels is the same function with the same multiply-adds (S4 §5.1; FACTS M3): F(x) = sum of
    (project_i ∘ depthwise_i ∘ expand_i)(x). More parts than channels are one for each channel.
    """
    channels = depthwise.conv.out_channels
    parts = min(parts, channels)
    y_BCHW: Tensor | None = None
    for start, end in pairwise(channels * part // parts for part in range(parts + 1)):
        hidden = x_BCHW[:, start:end] if expand is None else _some_outputs(expand, x_BCHW, start, end)
        hidden = _some_outputs(depthwise, hidden, start, end)
        bias = None if start else project.conv.bias
        term = project.conv._conv_forward(hidden, project.conv.weight[:, start:end], bias)
        y_BCHW = term if y_BCHW is None else y_BCHW + term
    assert y_BCHW is not None
    return project.act(y_BCHW)


def _some_outputs(unit: ConvNorm, x_BCHW: Tensor, start: int, end: int) -> Tensor:
    """The output channels from ``start`` to ``end`` of a unit; of a depthwise one from these inputs."""
    conv = unit.conv
    if conv.groups > 1:
        conv = copy.copy(conv)
        conv.groups = end - start
    bias = None if conv.bias is None else conv.bias[start:end]
    return unit.act(conv._conv_forward(x_BCHW, conv.weight[start:end], bias))
