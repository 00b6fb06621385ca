"""FCN on a backbone's last features, as torchvision has it (S0; FACTS H20)."""

from collections.abc import Sequence

from torch import Tensor, nn

from ...spec.heads import FCNHead
from ...spec.model import BackboneSpec
from .masks import MaskOutputs, Prediction, auxiliary, head_layers, mask_outputs


class FCN(nn.Module):
    """A prediction on the coarsest features and, while training, an auxiliary one."""

    def __init__(self, head: FCNHead, backbone: BackboneSpec) -> None:
        super().__init__()
        self.spec = head
        channels = backbone.tapped_channels(head.tap)
        self.prediction = Prediction(head_layers(backbone, head.folded), channels, head.classes, head.dropout)
        self.aux = auxiliary(backbone, head.aux, head.classes)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> MaskOutputs:
        """``features``: [B, C, h, w] at each of the head's taps; ``size``: height and width of the input in pixels."""
        return mask_outputs(self.prediction(features[-1]), self.aux, features, size)
