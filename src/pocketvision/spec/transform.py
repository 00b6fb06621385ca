"""Variants of a network as functions from spec to spec; each returns a new one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from ..errors import ConfigurationError, nearest
from .heads import ClassifierHead, DeepLabV3Head, FasterRCNNHead, FCNHead
from .model import ModelSpec, Padding
from .rows import (
    Activation,
    Conv,
    InvertedResidual,
    MobileOneBlock,
    MobileOneConv,
    Row,
    Shortcut,
    check_choice,
    round8,
)

WidthRule = Literal["paper", "torchvision"]
TailRule = Literal["torchvision", "paper"]


def with_rows(spec: ModelSpec, change: Callable[[Row], Row]) -> ModelSpec:
    """``change`` applied to every row."""
    return with_backbone(spec, rows=tuple(change(row) for row in spec.backbone.rows))


def with_backbone(spec: ModelSpec, **fields: object) -> ModelSpec:
    """``spec`` with some fields of its backbone replaced."""
    return replace(spec, backbone=replace(spec.backbone, **fields))  # type: ignore[arg-type]


def with_width(spec: ModelSpec, width: float, rule: WidthRule = "torchvision") -> ModelSpec:
    """Scale every layer by ``width`` (S4 §4, S1 Appendix A; FACTS A2, A7).

    rule="paper": outputs are rounded first and expansions keep their ratio to the rounded input; the hidden
    layer of the head is not scaled. rule="torchvision": MobileNetV3's expansions and hidden layer are
    scaled and rounded by themselves. MobileNetV2 and MnasNet keep the ratio under both rules.

    Raises ConfigurationError for a width outside 0.1 to 4 or an unknown rule.
    """
    check_choice("width_rule", rule, WidthRule)
    if not isinstance(width, int | float) or not 0.1 <= width <= 4:
        limit = 4 if isinstance(width, int | float) and width > 4 else 0.1
        raise ConfigurationError(f"width={width!r} is outside 0.1 to 4; nearest valid: {limit}")
    if width == 1:
        return spec
    backbone, rows = spec.backbone, list[Row]()
    by_ratio = rule == "paper" or backbone.expansion == "ratio"
    c_in = backbone.in_channels
    for row, table_in in zip(backbone.rows, backbone.inputs(), strict=True):
        changes: dict[str, int] = {"out": _scaled_out(row, c_in, width)}
        if isinstance(row, InvertedResidual):
            changes["expand"] = round8(c_in * row.expand / table_in if by_ratio else row.expand * width)
        rows.append(replace(row, **changes))
        c_in = rows[-1].out
    head = spec.classifier
    hidden = head.hidden if by_ratio else round8(head.hidden * width)
    return replace(
        spec,
        backbone=replace(backbone, rows=tuple(rows)),
        head=replace(head, hidden=hidden if head.hidden else 0),
    )


def _scaled_out(row: Row, c_in: int, width: float) -> int:
    match row:
        case Conv(scaling="six_times_input"):
            return 6 * c_in
        case Conv(scaling="not_below_table"):
            return max(row.out, round8(row.out * width))
        case Conv(scaling="fixed"):
            return row.out
        case _:
            return round8(row.out * width)


def reduced_tail(spec: ModelSpec, rule: TailRule = "torchvision") -> ModelSpec:
    """Halve the channels after the last stride-2 row (S1 §6.3, S0; FACTS A10, C-8).

    Outputs and expansions of the stride-32 rows, the last convolution and the hidden layer are halved; that
    first row's expansion, which still has the resolution before it, only under rule="paper" (RF2).
    """
    check_choice("reduced_tail", rule, TailRule)
    rows = spec.backbone.rows
    first = max(index for index, row in enumerate(rows) if row.stride == 2)

    def halved(index: int, row: Row) -> Row:
        if index < first:
            return row
        changes = {"out": round8(row.out / 2)}
        if isinstance(row, InvertedResidual) and (index > first or rule == "paper"):
            changes["expand"] = round8(row.expand / 2)
        return replace(row, **changes)

    head = spec.classifier
    spec = replace(spec, head=replace(head, hidden=round8(head.hidden / 2) if head.hidden else 0))
    return with_backbone(spec, rows=tuple(halved(index, row) for index, row in enumerate(rows)))


def dilated(spec: ModelSpec, output_stride: int = 16, *, dilate_first: bool = True) -> ModelSpec:
    """Keep the resolution at ``output_stride`` (8, 16 or 32): later strides become dilations (FACTS A11).

    ``dilate_first=False`` leaves the first row of each changed stage undilated, as TensorFlow's DeepLab does. What is
    dilated already stays so.
    """
    if output_stride not in (8, 16, 32):
        raise ConfigurationError(f"output_stride={output_stride!r}; valid: 8, 16, 32")
    rows, stride, dilation = list[Row](), 1, 1
    for row in spec.backbone.rows:
        before = dilation
        if stride * row.stride > output_stride:
            dilation *= row.stride
            row = replace(row, stride=1)
        stride *= row.stride
        if row.kernel > 1:
            row = replace(row, dilation=row.dilation * (dilation if dilate_first else before))
        rows.append(row)
    return with_backbone(spec, rows=tuple(rows))


def with_activation(spec: ModelSpec, placement: str) -> ModelSpec:
    """Choose where the hard-swish stands (S1 §5.2, Table 5, Fig. 8; FACTS A17).

    ``placement``: "relu", "swish" or "h-swish" for every layer, or "h-swish@N": hard-swish from the first
    block with N output channels on, ReLU in the blocks before; the stem, the last convolution and the head
    always have hard-swish then. The paper tries N = 16, 80 (its choice for Large) and 112.
    """
    everywhere: dict[str, Activation] = {
        "relu": "relu",
        "relu6": "relu6",
        "swish": "swish",
        "h-swish": "hard_swish",
    }
    if act := everywhere.get(placement):
        spec = with_rows(spec, lambda row: replace(row, act=act))
        return replace(spec, head=replace(spec.classifier, act=act))
    name, _, channels = placement.partition("@")
    if name != "h-swish" or not channels.isdigit():
        raise ConfigurationError(
            f"activation {placement!r} is unknown; {nearest(placement, [*everywhere, 'h-swish@80'])}"
        )
    backbone = spec.backbone
    blocks = [index for index, row in enumerate(backbone.rows) if not isinstance(row, Conv)]
    first = next((index for index in blocks if backbone.rows[index].out >= int(channels)), None)
    if first is None:
        widest = max(backbone.rows[index].out for index in blocks)
        raise ConfigurationError(
            f"no block of {backbone.name} has {channels} channels; nearest valid: h-swish@{widest}"
        )
    rows = tuple(
        replace(row, act="relu" if blocks[0] <= index < first else "hard_swish")
        for index, row in enumerate(backbone.rows)
    )
    spec = with_backbone(spec, rows=rows)
    return replace(spec, head=replace(spec.classifier, act="hard_swish"))


def with_hidden(spec: ModelSpec, hidden: int) -> ModelSpec:
    """The head's hidden layer (FACTS C-1: 1024 or 1280 for MobileNetV3-Small; 0 removes it)."""
    return replace(spec, head=replace(spec.classifier, hidden=hidden))


def with_padding(spec: ModelSpec, padding: Padding) -> ModelSpec:
    """Symmetric padding, or TensorFlow's SAME."""
    return with_backbone(spec, padding=padding)


def with_classes(spec: ModelSpec, labels: int | tuple[str, ...]) -> ModelSpec:
    """Another number of classes, or other class names."""
    names = () if isinstance(labels, int) else tuple(labels)
    head = replace(spec.head, classes=labels if isinstance(labels, int) else len(names))
    return replace(spec, head=head, labels=names)


def with_size(spec: ModelSpec, size: int, ratio: float | None = None) -> ModelSpec:
    """Another input side in pixels; the resize before the crop keeps its ratio to it, or takes ``ratio``."""
    old = spec.preprocessing
    if not isinstance(size, int) or not 16 <= size <= 4096:
        limit = 16 if isinstance(size, int) and size < 16 else 4096
        raise ConfigurationError(f"imgsz={size!r} is outside 16 to 4096 pixels; nearest valid: {limit}")
    resize = round(size * (ratio or old.resize / old.size))
    return replace(spec, preprocessing=replace(old, size=size, resize=resize))


def with_linear_bottleneck(spec: ModelSpec, linear: bool) -> ModelSpec:
    """Switch the linear bottleneck of every inverted residual (S4 §6.4, Fig. 6a; FACTS B4)."""
    return with_rows(spec, lambda row: replace(row, linear=linear) if isinstance(row, InvertedResidual) else row)


def with_shortcut(spec: ModelSpec, shortcut: Shortcut) -> ModelSpec:
    """Place the shortcuts of every inverted residual (S4 §6.4, Fig. 6b; FACTS B5)."""
    return with_rows(spec, lambda row: replace(row, shortcut=shortcut) if isinstance(row, InvertedResidual) else row)


def with_branches(spec: ModelSpec, branches: int) -> ModelSpec:
    """The over-parameterisation factor k of every MobileOne block; the stem keeps 1 (S3 Tables 5 and 6)."""
    return with_rows(spec, lambda row: replace(row, branches=branches) if isinstance(row, MobileOneBlock) else row)


def with_parts(spec: ModelSpec, parts: int) -> ModelSpec:
    """Every bottleneck that can be computed in ``parts`` groups of channels (S4 §5.1; those without SE).

    Raises ConfigurationError where the network has none, or ``parts`` is below 1.
    """
    rows = spec.backbone.rows
    if parts > 1 and not any(isinstance(row, InvertedResidual) and row.can_be_split for row in rows):
        raise ConfigurationError(
            f"{spec.backbone.name} has no bottleneck that can be split; MobileNetV2 and MnasNet without SE have"
        )
    return with_rows(
        spec, lambda row: replace(row, parts=parts) if isinstance(row, InvertedResidual) and row.can_be_split else row
    )


def without_se(spec: ModelSpec) -> ModelSpec:
    """Every squeeze-and-excitation removed (MobileOne-S4 for dense prediction, FACTS A21)."""
    return with_rows(
        spec,
        lambda row: replace(row, se=None) if isinstance(row, InvertedResidual | MobileOneConv) else row,
    )


def as_folded(spec: ModelSpec, folded: bool = True) -> ModelSpec:
    """The deploy form of the same network: plain convolutions with bias (``nn.fold`` computes their weights)."""
    head = spec.head
    if not isinstance(head, ClassifierHead | FasterRCNNHead):
        head = replace(head, folded=folded)
    if folded and isinstance(head, DeepLabV3Head | FCNHead):
        head = replace(head, aux=None)  # only training needs it
    return replace(with_backbone(spec, folded=folded), head=head)
