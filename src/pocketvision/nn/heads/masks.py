"""What networks for segmentation say, and what their heads share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional as F

from ...spec.heads import Tap
from ...spec.model import BackboneSpec
from ..layers import ConvNorm, conv2d


@dataclass(frozen=True, slots=True)
class MaskOutputs:
    """Logits [B, classes, H, W] of an input of H x W pixels; ``aux``: the same of the auxiliary head while training."""

    logits: Tensor
    aux: Tensor | None = None


class ClassLayer(nn.Conv2d):
    """The 1x1 convolution that tells classes apart; it begins near 0 as a linear classifier does (``build``)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, classes, 1)


class Prediction(nn.Module):
    """[B, c_in, h, w] -> logits [B, classes, h, w]: a 3x3 convolution to a quarter of the channels, then 1x1."""

    def __init__(self, spec: BackboneSpec, c_in: int, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        inner = max(1, c_in // 4)
        self.inner = ConvNorm(spec, conv2d(spec, c_in, inner, kernel=3), "relu")
        self.dropout = nn.Dropout(dropout)
        self.classes = ClassLayer(inner, classes)

    def forward(self, x_BChw: Tensor) -> Tensor:
        return self.classes(self.dropout(self.inner(x_BChw)))


def head_layers(backbone: BackboneSpec, folded: bool) -> BackboneSpec:
    """What holds for a head's own layers: torch's BatchNorm, as torchvision's heads have it."""
    return replace(backbone, bn_eps=1e-5, bn_momentum=0.1, folded=folded)


def auxiliary(backbone: BackboneSpec, tap: Tap | None, classes: int) -> Prediction | None:
    """The prediction on finer features that only training makes (FACTS H20), if there is one; never folded."""
    return Prediction(head_layers(backbone, False), backbone.tapped_channels(tap), classes) if tap else None


def mask_outputs(
    logits: Tensor,
    aux: Prediction | None,
    features: Sequence[Tensor],
    size: tuple[int, int],
    align_corners: bool = False,
) -> MaskOutputs:
    """Logits [B, classes, h, w], and in train mode what ``aux`` says of the first features, enlarged to ``size``."""
    whole = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    if aux is None or not aux.training:
        return MaskOutputs(whole)
    return MaskOutputs(whole, F.interpolate(aux(features[0]), size, mode="bilinear", align_corners=align_corners))
