"""MobileNetV3 Large and Small (arXiv:1905.02244, Tables 1 and 2). FACTS A5, A6, A12, C-1, C-3."""

from ..spec.heads import ClassifierHead
from ..spec.model import BackboneSpec, ModelSpec
from ..spec.rows import Activation, Conv, InvertedResidual, SqueezeExcite

RE, HS = "relu", "hard_swish"
SE, __ = SqueezeExcite(), None
Table = tuple[tuple[int, int, int, SqueezeExcite | None, Activation, int], ...]

# (k: kernel, exp: expansion, out, SE, NL: activation, s: stride)
LARGE: Table = (
    (3, 16, 16, __, RE, 1),
    (3, 64, 24, __, RE, 2),
    (3, 72, 24, __, RE, 1),
    (5, 72, 40, SE, RE, 2),
    (5, 120, 40, SE, RE, 1),
    (5, 120, 40, SE, RE, 1),
    (3, 240, 80, __, HS, 2),
    (3, 200, 80, __, HS, 1),
    (3, 184, 80, __, HS, 1),
    (3, 184, 80, __, HS, 1),
    (3, 480, 112, SE, HS, 1),
    (3, 672, 112, SE, HS, 1),
    (5, 672, 160, SE, HS, 2),
    (5, 960, 160, SE, HS, 1),
    (5, 960, 160, SE, HS, 1),
)
SMALL: Table = (
    (3, 16, 16, SE, RE, 2),
    (3, 72, 24, __, RE, 2),
    (3, 88, 24, __, RE, 1),
    (5, 96, 40, SE, HS, 2),
    (5, 240, 40, SE, HS, 1),
    (5, 240, 40, SE, HS, 1),
    (5, 120, 48, SE, HS, 1),
    (5, 144, 48, SE, HS, 1),
    (5, 288, 96, SE, HS, 2),
    (5, 576, 96, SE, HS, 1),
    (5, 576, 96, SE, HS, 1),
)


def _spec(name: str, table: Table, hidden: int) -> ModelSpec:
    rows = (
        Conv(16, stride=2, act=HS),
        *(InvertedResidual(out, k, s, act, expand=exp, se=se) for k, exp, out, se, act, s in table),
        Conv(6 * table[-1][2], kernel=1, act=HS, scaling="six_times_input"),
    )
    # BatchNorm: TensorFlow's decay 0.99 and epsilon 1e-3 (S1 §6.1.1, FACTS B12)
    backbone = BackboneSpec(name, rows, bn_eps=1e-3, bn_momentum=0.01, expansion="channels")
    return ModelSpec(backbone, ClassifierHead(1000, hidden=hidden))


def mobilenet_v3_large() -> ModelSpec:
    """5,483,032 parameters, 216.6 M multiply-adds."""
    return _spec("mobilenet_v3_large", LARGE, hidden=1280)


def mobilenet_v3_small() -> ModelSpec:
    """2,542,856 parameters, 56.5 M multiply-adds with the final paper's hidden layer of 1024 (FACTS C-1)."""
    return _spec("mobilenet_v3_small", SMALL, hidden=1024)
