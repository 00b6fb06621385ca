"""``ModelSpec`` -> torch module."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigurationError
from ..spec.heads import ClassifierHead, DeepLabV3Head, FasterRCNNHead, FCNHead, LRASPPHead, SSDHead
from ..spec.model import ModelSpec
from .backbone import Backbone
from .heads.classifier import Classifier
from .heads.deeplabv3 import DeepLabV3
from .heads.faster_rcnn import FasterRCNN
from .heads.fcn import FCN
from .heads.lraspp import LRASPP
from .heads.masks import ClassLayer
from .heads.ssd import SSD
from .rounding import Rounding


class Model(nn.Module):
    """Backbone and head built from ``spec``; takes normalised images (``nn.layers.Normalize``).

    ``rounding``: the ranges of int8 that the weights were trained with; it is switched off in a model that was loaded.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.rounding: Rounding | None = None
        self.backbone = Backbone(spec.backbone)
        match spec.head:
            case ClassifierHead() as head:
                self.head = Classifier(head, spec.backbone.out_channels)
            case SSDHead() as head:
                self.head = SSD(head, spec.backbone)
            case FasterRCNNHead() as head:
                self.head = FasterRCNN(head, spec.backbone)
            case LRASPPHead() as head:
                self.head = LRASPP(head, spec.backbone)
            case DeepLabV3Head() as head:
                self.head = DeepLabV3(head, spec.backbone)
            case FCNHead() as head:
                self.head = FCN(head, spec.backbone)

    def forward(self, x_BCHW: Tensor, truth: Sequence[Any] | None = None) -> Any:
        """Normalised float [B, 3, H, W] -> the head's outputs: logits [B, classes] of a classifier, ``SSDOutputs``,
        ``RegionOutputs`` of Faster R-CNN, ``MaskOutputs`` at H x W of a head for segmentation.

        ``truth``: the boxes of each image (``data.loader.Truth``), for a head whose training needs them.
        """
        if self.rounding is not None and self.rounding.on:
            with self.rounding.applied():
                return self._forward(x_BCHW, truth)
        return self._forward(x_BCHW, truth)

    def _forward(self, x_BCHW: Tensor, truth: Sequence[Any] | None) -> Any:
        head = self.head
        if isinstance(head, Classifier):
            return head(self.backbone(x_BCHW))
        height, width = x_BCHW.shape[2:]
        features = self.backbone.tapped(x_BCHW, head.spec.taps)
        if isinstance(head, FasterRCNN):
            return head(features, (height, width), truth)
        return head(features, (height, width))

    @property
    def classifier(self) -> Classifier:
        """The head of a classifier. Raises ConfigurationError for another network."""
        if not isinstance(self.head, Classifier):
            kind = type(self.spec.head).__name__
            raise ConfigurationError(f"this {self.spec.backbone.name} has a {kind}; a classifier is needed here")
        return self.head


def build(spec: ModelSpec) -> Model:
    """A randomly initialised model in train mode: He's fan-out for convolutions, N(0, 0.01) for linear layers (B13)."""
    model = Model(spec)
    for module in model.modules():
        if isinstance(module, nn.Linear | ClassLayer):
            nn.init.normal_(module.weight, 0, 0.01)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(model.head, SSD | FasterRCNN):
        model.head.initialise()
    return model


def stand_in(spec: ModelSpec) -> Model:
    """A random model in eval mode that takes as long as a trained one: a detector's anchors see background."""
    model = build(spec).eval()
    if isinstance(model.head, SSD):
        model.head.expect_background()
    return model
