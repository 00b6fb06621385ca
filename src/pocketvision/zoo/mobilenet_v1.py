"""MobileNetV1 (arXiv:1704.04861, Table 1): the baseline of S3 and S4. FACTS A25."""

from ..spec.heads import ClassifierHead
from ..spec.model import BackboneSpec, ModelSpec
from ..spec.rows import Conv, DepthwiseSeparable

# (out, stride)
TABLE = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


def mobilenet_v1() -> ModelSpec:
    """4,231,976 parameters, 568.7 M multiply-adds. ReLU6, as the published weights have."""
    blocks = (DepthwiseSeparable(out, stride=stride, act="relu6") for out, stride in TABLE)
    rows = (Conv(32, stride=2, act="relu6"), *blocks)
    return ModelSpec(BackboneSpec("mobilenet_v1", rows), ClassifierHead(1000))
