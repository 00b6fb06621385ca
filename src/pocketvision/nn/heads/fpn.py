"""The feature pyramid of Faster R-CNN (arXiv:1612.03144)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """Maps of one number of channels, each with what the coarser ones know, and one more of half the side."""

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c_in, channels, 1) for c_in in inputs)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)

    def initialise(self) -> None:
        """Convolutions as wide as their inputs are (torchvision's); they have no activation."""
        for conv in (*self.lateral, *self.output):
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """n maps [B, C_i, H_i, W_i], finest first -> n + 1 maps [B, channels, ...]."""
        levels, above = list[Tensor](), None
        for lateral, output, x in reversed(list(zip(self.lateral, self.output, features, strict=True))):
            x = lateral(x)
            if above is not None:
                x = x + F.interpolate(above, size=x.shape[-2:], mode="nearest")
            above = x
            levels.insert(0, output(x))
        return [*levels, F.max_pool2d(levels[-1], 1, stride=2)]
