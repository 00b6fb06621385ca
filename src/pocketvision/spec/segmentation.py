"""Backbones with a head for segmentation: functions from spec to spec (S0, S1 §6.4, S4 §6.3; FACTS H17 to H21).

``classes`` are all that a mask can say, background included: their number, or their names. ``size``: of the input in
pixels, to which the whole image is stretched; the network takes any other too. ``output_stride``: 8, 16 or 32, by how
much smaller the last features are; later strides of the backbone become dilations (``transform.dilated``). For a
narrower last stage apply ``transform.reduced_tail`` first. What comes after the features that the head reads is no
part of the network.
"""

from dataclasses import replace

from ..errors import ConfigurationError
from .heads import DeepLabV3Head, FCNHead, LRASPPHead, SegmentationHead, Tap
from .model import BackboneSpec, ModelSpec
from .rows import Conv, check
from .transform import dilated, with_backbone, with_size

SIZE = 320
CITYSCAPES_POOL = ((49, 49), (16, 20))  # of maps of 64 x 128, the images of 1024 x 2048 at output stride 16
Classes = int | tuple[str, ...]


def with_lraspp(
    spec: ModelSpec,
    classes: Classes,
    *,
    size: int = SIZE,
    output_stride: int = 16,
    channels: int = 128,
    pool: tuple[tuple[int, int], tuple[int, int]] | None = None,
) -> ModelSpec:
    """LR-ASPP on the backbone of ``spec`` (S1 Figure 10); ``pool``: None as torchvision has it, or
    ``CITYSCAPES_POOL``, the paper's (``LRASPPHead``)."""
    spec = _with_stride(spec, output_stride)
    low, high = fine_tap(spec.backbone), last_tap(spec.backbone)
    return _with_head(spec, classes, LRASPPHead(_number(classes), low, high, channels, pool), size)


def with_raspp(
    spec: ModelSpec, classes: Classes, *, size: int = SIZE, output_stride: int = 16, channels: int = 256
) -> ModelSpec:
    """R-ASPP on the backbone of ``spec``: DeepLabV3 without its atrous convolutions (S4 §6.3)."""
    return with_deeplabv3(spec, classes, size=size, output_stride=output_stride, channels=channels, rates=(), aux=False)


def with_deeplabv3(
    spec: ModelSpec,
    classes: Classes,
    *,
    size: int = SIZE,
    output_stride: int = 16,
    channels: int = 256,
    rates: tuple[int, ...] | None = None,
    refined: bool = False,
    aux: bool = True,
) -> ModelSpec:
    """DeepLabV3 on the backbone of ``spec``; ``rates``: dilations, by default 6, 12 and 18 at output stride 16 and the
    same distances in pixels at others; ``aux``: with an auxiliary head while training."""
    spec = _with_stride(spec, output_stride)
    if rates is None:
        rates = tuple(rate * 16 // output_stride for rate in (6, 12, 18))
    tap, fine = last_tap(spec.backbone), fine_tap(spec.backbone) if aux else None
    return _with_head(spec, classes, DeepLabV3Head(_number(classes), tap, channels, rates, refined, aux=fine), size)


def with_fcn(
    spec: ModelSpec, classes: Classes, *, size: int = SIZE, output_stride: int = 16, aux: bool = True
) -> ModelSpec:
    """FCN on the backbone of ``spec``; ``aux``: with an auxiliary head while training."""
    spec = _with_stride(spec, output_stride)
    fine = fine_tap(spec.backbone) if aux else None
    return _with_head(spec, classes, FCNHead(_number(classes), last_tap(spec.backbone), aux=fine), size)


def last_tap(backbone: BackboneSpec) -> Tap:
    """The last features that are no part of a classifier: MobileNetV3's last convolution, which is six times as wide as
    its input, and of the others what comes before theirs, if they have one (S4 §6.3: 320 channels, not 1280)."""
    last = len(backbone.rows) - 1
    row = backbone.rows[last]
    of_classifier = isinstance(row, Conv) and row.kernel == 1 and row.scaling != "six_times_input"
    return Tap(last - 1 if of_classifier and last else last)


def fine_tap(backbone: BackboneSpec) -> Tap:
    """The first row at output stride 8, as torchvision takes it (FACTS H18)."""
    strides = backbone.strides()
    found = ", ".join(map(str, sorted(set(strides))))
    check("the output strides", found, 8 in strides, f"a backbone's that has features at 8; {backbone.name} has none")
    return Tap(strides.index(8))


def _with_stride(spec: ModelSpec, output_stride: int) -> ModelSpec:
    spec = dilated(spec, output_stride)
    found = spec.backbone.strides()[-1]
    if found != output_stride:
        raise ConfigurationError(
            f"output_stride={output_stride} is more than {spec.backbone.name} has; nearest valid: {found}"
        )
    return spec


def _number(classes: Classes) -> int:
    return classes if isinstance(classes, int) else len(classes)


def _with_head(spec: ModelSpec, classes: Classes, head: SegmentationHead, size: int) -> ModelSpec:
    """``spec`` with this head, its classes' names and an input that whole images are stretched to."""
    rows = spec.backbone.rows[: 1 + max(tap.row for tap in head.taps)]
    head = replace(head, folded=spec.backbone.folded)
    labels = () if isinstance(classes, int) else tuple(classes)
    spec = with_size(with_backbone(replace(spec, head=head, labels=labels), rows=rows), size, ratio=1.0)
    return replace(spec, preprocessing=replace(spec.preprocessing, fit="stretch"))
