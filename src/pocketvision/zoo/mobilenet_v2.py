"""MobileNetV2 (arXiv:1801.04381, Table 2). FACTS A1, A2."""

from ..spec.heads import ClassifierHead
from ..spec.model import BackboneSpec, ModelSpec
from ..spec.rows import Conv, InvertedResidual, Row

# (t: expansion, c: out, n: blocks, s: stride of the first)
TABLE = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2() -> ModelSpec:
    """3,504,872 parameters, 300.8 M multiply-adds. ReLU6 everywhere but after the projections."""
    rows: list[Row] = [Conv(32, stride=2, act="relu6")]
    for t, c, n, s in TABLE:
        for index in range(n):
            rows.append(InvertedResidual(c, expand=t * rows[-1].out, stride=s if index == 0 else 1, act="relu6"))
    rows.append(Conv(1280, kernel=1, act="relu6", scaling="not_below_table"))
    return ModelSpec(BackboneSpec("mobilenet_v2", tuple(rows)), ClassifierHead(1000))
