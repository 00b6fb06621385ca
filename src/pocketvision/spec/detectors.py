"""Backbones with a detector's head: functions from spec to spec."""

import math
from dataclasses import replace
from itertools import pairwise

from ..errors import ConfigurationError
from .heads import SSDHead, Tap
from .model import BackboneSpec, ModelSpec
from .rows import InvertedResidual
from .transform import TailRule, reduced_tail, with_size

EXTRAS = (512, 256, 256, 128)
TAPPED_INSIDE = ("mobilenet_v2", "mobilenet_v3")  # families
Anchors = tuple[tuple[tuple[float, float], ...], ...]


def with_ssd(
    spec: ModelSpec,
    classes: int | tuple[str, ...],
    *,
    size: int = 320,
    separable: bool = True,
    extras: tuple[int, ...] = EXTRAS,
    anchors: Anchors | None = None,
    halved: TailRule | None = None,
    inside: bool | None = None,
) -> ModelSpec:
    """SSDLite on the backbone of ``spec``, or plain SSD with ``separable=False`` (S4 §6.2, S1 §6.3; FACTS H1 to H7).

    ``classes``: their number, or their names, without background. ``size``: of the input in pixels, to which the whole
    image is stretched. ``anchors``: (width, height) as shares of the input for the two maps of the backbone and each
    of ``extras``; by default ``default_anchors``. ``halved``: the channels between both taps halved as ``reduced_tail``
    does (S1 Table 6; FACTS H4), which is for a classifier that was not halved before. ``inside``: see ``ssd_taps``.
    Raises ConfigurationError for a backbone without the output strides 16 and 32.
    """
    if halved:
        spec = reduced_tail(spec, halved)
    labels = () if isinstance(classes, int) else tuple(classes)
    head = SSDHead(
        classes=classes if isinstance(classes, int) else len(labels),
        taps=ssd_taps(spec.backbone, inside),
        anchors=default_anchors(2 + len(extras)) if anchors is None else anchors,
        extras=extras,
        separable=separable,
        folded=spec.backbone.folded,
    )
    spec = with_size(replace(spec, head=head, labels=labels), size, ratio=1.0)
    return replace(spec, preprocessing=replace(spec.preprocessing, fit="stretch"))


def ssd_taps(backbone: BackboneSpec, inside: bool | None = None) -> tuple[Tap, Tap]:
    """The last features at output stride 16 and the last ones at 32.

    ``inside``: the former from within the block that has the stride, after its expansion layer, which still has the
    resolution before it; by default for MobileNetV2 (layer 15) and V3 (bottleneck 13, or 9 of Small; FACTS H2, H3),
    the others' where the stage ends.
    """
    strides, last = backbone.strides(), len(backbone.rows) - 1
    if strides[last] != 32 or 16 not in strides:
        found = ", ".join(map(str, sorted(set(strides))))
        raise ConfigurationError(
            f"SSD needs features at output strides 16 and 32; {backbone.name} has {found}; "
            "take a backbone that is not dilated"
        )
    row = strides.index(32)
    block = backbone.rows[row]
    expands = isinstance(block, InvertedResidual) and block.has_expansion(backbone.inputs()[row])
    if inside is None:
        inside = expands and backbone.name.startswith(TAPPED_INSIDE)
    return (Tap(row, expansion=True) if inside else Tap(row - 1)), Tap(last)


def default_anchors(
    maps: int, *, ratios: tuple[float, ...] = (2, 3), smallest: float = 0.2, largest: float = 0.95
) -> Anchors:
    """SSD's boxes (arXiv:1512.02325 §2.2) with torchvision's numbers (FACTS H6): from map to map a larger scale.

    A map of scale s with the next one's s' has squares of s and sqrt(s s'), and of scale s boxes ``ratios`` times as
    wide as high and as high as wide; no side exceeds the input's.
    """
    step = (largest - smallest) / max(1, maps - 1)
    scales = [smallest + step * index for index in range(maps)] + [1.0]
    anchors = list[tuple[tuple[float, float], ...]]()
    for scale, following in pairwise(scales):
        sides = [(scale, scale), (math.sqrt(scale * following),) * 2]
        for ratio in ratios:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            sides += [(long, short), (short, long)]
        anchors.append(tuple((min(width, 1.0), min(height, 1.0)) for width, height in sides))
    return tuple(anchors)
