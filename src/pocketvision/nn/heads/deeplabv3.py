"""DeepLabV3, and R-ASPP: the same without atrous convolutions (arXiv:1706.05587 §3.3; FACTS H19 to H21)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...spec.heads import DeepLabV3Head
from ...spec.model import BackboneSpec
from ..layers import ConvNorm, conv2d
from .masks import ClassLayer, MaskOutputs, auxiliary, head_layers, mask_outputs


class DeepLabV3(nn.Module):
    """The coarsest features seen at several dilations, and the mean of the whole map, joined."""

    def __init__(self, head: DeepLabV3Head, backbone: BackboneSpec) -> None:
        super().__init__()
        self.spec = head
        layers, c_in, out = head_layers(backbone, head.folded), backbone.tapped_channels(head.tap), head.channels

        def unit(inputs: int, kernel: int = 1, dilation: int = 1) -> ConvNorm:
            return ConvNorm(layers, conv2d(layers, inputs, out, kernel, dilation=dilation), "relu")

        self.branches = nn.ModuleList([unit(c_in), *(unit(c_in, 3, rate) for rate in head.rates)])
        self.pooled = unit(c_in)
        self.project = unit(out * (len(self.branches) + 1))
        self.dropout = nn.Dropout(head.dropout)
        self.refined = unit(out, 3) if head.refined else nn.Identity()
        self.classes = ClassLayer(out, head.classes)
        self.aux = auxiliary(backbone, head.aux, head.classes)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> MaskOutputs:
        """``features``: [B, C, h, w] at each of the head's taps; ``size``: height and width of the input in pixels."""
        x_BChw = features[-1]
        seen = [branch(x_BChw) for branch in self.branches]
        seen.append(self.whole(x_BChw).expand_as(seen[0]))
        logits = self.classes(self.refined(self.dropout(self.project(torch.cat(seen, 1)))))
        return mask_outputs(logits, self.aux, features, size, self.spec.align_corners)

    def whole(self, x_BChw: Tensor) -> Tensor:
        """What the mean of each image says: [B, channels, 1, 1]."""
        mean_BC11 = F.adaptive_avg_pool2d(x_BChw, 1)
        if self.training and len(mean_BC11) == 1 and not self.pooled.is_folded:
            # one value has no deviation, so that BatchNorm, which would fail, keeps to its running statistics
            return self.pooled.act(self.pooled.conv._conv_forward(mean_BC11, *self.pooled.kernel_and_bias()))
        return self.pooled(mean_BC11)
