"""``ModelSpec`` -> torch module."""

from torch import Tensor, nn

from ..spec.model import ModelSpec
from .backbone import Backbone
from .heads.classifier import Classifier


class Model(nn.Module):
    """Backbone and head built from ``spec``; takes normalised images (``nn.layers.Normalize``)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = Backbone(spec.backbone)
        self.head = Classifier(spec.head, spec.backbone.out_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalised float [B, 3, H, W] -> the head's outputs (classification: logits [B, classes])."""
        return self.head(self.backbone(x_BCHW))


def build(spec: ModelSpec) -> Model:
    """A randomly initialised model in train mode: He's fan-out for convolutions, N(0, 0.01) for linear layers (B13)."""
    model = Model(spec)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
    return model
