"""MnasNet A1, B1 and small (arXiv:1807.11626, Fig. 7; small: §4.1). FACTS A18, C-30."""

from ..spec.heads import ClassifierHead
from ..spec.model import BackboneSpec, ModelSpec
from ..spec.rows import Conv, InvertedResidual, Row, SqueezeExcite

SE, __ = SqueezeExcite(of="input", divisor=1, gate="sigmoid"), None  # a quarter of the bottleneck's input (FACTS B9)

# (t: expansion, c: out, n: blocks, s: stride of the first, k: kernel, SE)
A1 = (
    (1, 16, 1, 1, 3, __),
    (6, 24, 2, 2, 3, __),
    (3, 40, 3, 2, 5, SE),
    (6, 80, 4, 2, 3, __),
    (6, 112, 2, 1, 3, SE),
    (6, 160, 3, 2, 5, SE),
    (6, 320, 1, 1, 3, __),
)
B1 = (
    (1, 16, 1, 1, 3, __),
    (3, 24, 3, 2, 3, __),
    (3, 40, 3, 2, 5, __),
    (6, 80, 3, 2, 5, __),
    (6, 96, 2, 1, 3, __),
    (6, 192, 4, 2, 5, __),
    (6, 320, 1, 1, 3, __),
)
SMALL = (
    (1, 8, 1, 1, 3, __),
    (3, 16, 1, 2, 3, __),
    (6, 16, 2, 2, 3, __),
    (6, 32, 4, 2, 5, SE),
    (6, 32, 3, 1, 3, SE),
    (6, 88, 3, 2, 5, SE),
    (6, 144, 1, 1, 3, __),
)
Table = tuple[tuple[int, int, int, int, int, SqueezeExcite | None], ...]


def _spec(name: str, table: Table, stem: int) -> ModelSpec:
    rows: list[Row] = [Conv(stem, stride=2)]
    for t, c, n, s, k, se in table:
        for index in range(n):
            rows.append(InvertedResidual(c, k, s if index == 0 else 1, expand=t * rows[-1].out, se=se))
    rows.append(Conv(1280, kernel=1, scaling="fixed"))
    # TensorFlow's BatchNorm decay of 0.9997 as torchvision keeps it
    return ModelSpec(BackboneSpec(name, tuple(rows), bn_momentum=0.0003), ClassifierHead(1000))


def mnasnet_a1() -> ModelSpec:
    """3,887,038 parameters, 311.6 M multiply-adds: the seed of MobileNetV3-Large (S1 §4.1)."""
    return _spec("mnasnet_a1", A1, stem=32)


def mnasnet_b1() -> ModelSpec:
    """4,383,312 parameters, 314.4 M multiply-adds: torchvision's mnasnet1_0."""
    return _spec("mnasnet_b1", B1, stem=32)


def mnasnet_small() -> ModelSpec:
    """2,030,264 parameters, 68.3 M multiply-adds."""
    return _spec("mnasnet_small", SMALL, stem=8)
