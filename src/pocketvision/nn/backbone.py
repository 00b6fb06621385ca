"""A table of rows -> a backbone: [B, 3, H, W] -> {stride: features}."""

import operator
from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor, nn

from ..spec.heads import Tap
from ..spec.model import BackboneSpec
from .blocks import InvertedResidualBlock, build_row


class Backbone(nn.Module):
    """The rows of ``spec`` in order; ``rows[i]`` is the module of row i."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        rows = zip(spec.rows, spec.inputs(), strict=True)
        self.rows = nn.ModuleList(build_row(spec, row, c_in) for row, c_in in rows)
        self.strides = [row.stride for row in spec.rows]

    @property
    def stages(self) -> list[int]:
        """Of each row, the stage that it belongs to: log2 of its output stride, at least 1."""
        totals = accumulate(self.strides, operator.mul)
        return [max(1, total.bit_length() - 1) for total in totals]

    def forward(self, x_BCHW: Tensor) -> dict[int, Tensor]:
        """[B, 3, H, W] -> the last features at each total stride, {stride: [B, C, H / stride, W / stride]}."""
        features, total = dict[int, Tensor](), 1
        for row, stride in zip(self.rows, self.strides, strict=True):
            x_BCHW = row(x_BCHW)
            total *= stride
            features[total] = x_BCHW
        return features

    def tapped(self, x_BCHW: Tensor, taps: Sequence[Tap]) -> list[Tensor]:
        """[B, 3, H, W] -> the features [B, C, h, w] at each of ``taps``; rows after the last one are left out."""
        features = dict[Tap, Tensor]()
        for index in range(1 + max(tap.row for tap in taps)):
            row = self.rows[index]
            if (inside := Tap(index, expansion=True)) in taps:
                assert isinstance(row, InvertedResidualBlock)
                features[inside] = row.expand(x_BCHW)
                x_BCHW = row.from_expansion(features[inside], x_BCHW)
            else:
                x_BCHW = row(x_BCHW)
            features[Tap(index)] = x_BCHW
        return [features[tap] for tap in taps]
