"""What networks for segmentation say."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class MaskOutputs:
    """Logits [B, classes, H, W] of an input of H x W pixels; ``aux``: the same of the auxiliary head while training."""

    logits: Tensor
    aux: Tensor | None = None
