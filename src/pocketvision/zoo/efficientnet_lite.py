"""EfficientNet-Lite0: EfficientNet-B0 (arXiv:1905.11946, Table 1) without SE and with ReLU6, stem and head unscaled."""

from dataclasses import replace

from ..spec.heads import ClassifierHead
from ..spec.model import BackboneSpec, ModelSpec, Preprocessing
from ..spec.rows import Conv, InvertedResidual, Row

# (t: expansion, k: kernel, c: out, n: blocks, s: stride of the first)
TABLE = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


def efficientnet_lite0() -> ModelSpec:
    """4,652,008 parameters, 385 M multiply-adds. TensorFlow's padding, as its published weights need."""
    rows: list[Row] = [Conv(32, stride=2, act="relu6")]
    for t, k, c, n, s in TABLE:
        for index in range(n):
            rows.append(InvertedResidual(c, k, s if index == 0 else 1, "relu6", expand=t * rows[-1].out))
    rows.append(Conv(1280, kernel=1, act="relu6", scaling="fixed"))
    backbone = BackboneSpec("efficientnet_lite0", tuple(rows), padding="same", bn_eps=1e-3, bn_momentum=0.01)
    # the published preprocessing is (x - 127) / 128
    preprocessing = replace(Preprocessing(), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, interpolation="bicubic")
    return ModelSpec(backbone, ClassifierHead(1000), preprocessing)
