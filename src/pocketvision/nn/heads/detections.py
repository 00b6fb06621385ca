"""What detectors say of an image."""

from typing import NamedTuple

from torch import Tensor


class Detections(NamedTuple):
    """Found boxes of one image, best first: ``boxes`` float32 [n, 4], x1, y1, x2, y2 in pixels of the network's input;
    ``scores`` float32 [n], 0 to 1; ``labels`` int64 [n], from 0 (without background)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
