"""LR-ASPP: two maps and a gate (S1 §6.4, Figure 10; FACTS H17, H18)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ...spec.heads import LRASPPHead
from ...spec.model import BackboneSpec
from ..layers import ConvNorm, conv2d
from .masks import ClassLayer, MaskOutputs, head_layers, mask_outputs


class LRASPP(nn.Module):
    """Coarse features, gated by what is seen around them, tell classes apart together with fine ones."""

    def __init__(self, head: LRASPPHead, backbone: BackboneSpec) -> None:
        super().__init__()
        self.spec = head
        low, high = (backbone.tapped_channels(tap) for tap in head.taps)
        layers = head_layers(backbone, head.folded)
        self.project = ConvNorm(layers, conv2d(layers, high, head.channels), "relu")
        self.gate = nn.Conv2d(high, head.channels, 1, bias=False)
        self.low_classes = ClassLayer(low, head.classes)
        self.high_classes = ClassLayer(head.channels, head.classes)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> MaskOutputs:
        """``features``: [B, C, h, w] at each of the head's taps; ``size``: height and width of the input in pixels."""
        low, high = features
        gate_BChw = self.gate(self.pooled(high)).sigmoid()
        if self.spec.pool:
            gate_BChw = F.interpolate(gate_BChw, high.shape[2:], mode="bilinear", align_corners=False)
        # classes before enlarging: the same sums as the other way round, on fewer channels and a quarter of the pixels
        coarse_BKhw = self.high_classes(self.project(high) * gate_BChw)
        coarse_BKhw = F.interpolate(coarse_BKhw, low.shape[2:], mode="bilinear", align_corners=False)
        return mask_outputs(self.low_classes(low) + coarse_BKhw, None, features, size)

    def pooled(self, high_BChw: Tensor) -> Tensor:
        """The means that the gate is made of: of the whole map [B, C, 1, 1], or of windows of ``spec.pool``."""
        if self.spec.pool is None:
            return F.adaptive_avg_pool2d(high_BChw, 1)
        kernel, stride = self.spec.pool
        height, width = high_BChw.shape[2:]
        return F.avg_pool2d(high_BChw, (min(kernel[0], height), min(kernel[1], width)), stride)
