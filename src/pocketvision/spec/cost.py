"""Parameters, multiply-adds and activations from the rows alone: no torch, microseconds.

Multiply-adds count convolutions and fully-connected layers only, SE and classifier included: the
convention that reproduces the papers (FACTS, head note).
"""

from dataclasses import dataclass, replace
from itertools import pairwise

from .heads import ClassifierHead, DeepLabV3Head, FasterRCNNHead, FCNHead, LRASPPHead, SegmentationHead, SSDHead, Tap
from .model import BackboneSpec, ModelSpec
from .rows import Conv, DepthwiseSeparable, InvertedResidual, MobileOneBlock, MobileOneConv, Row, SqueezeExcite


@dataclass(frozen=True, slots=True)
class Cost:
    """What a row or a network costs for one image.

    ``params`` and ``madds`` are counts; ``activations`` is the number of elements that its layers write
    (multiply by bytes per element for memory traffic); ``out_shape`` is (channels, height, width).
    """

    params: int
    madds: int
    activations: int
    out_shape: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ModelCost:
    """Totals of a network and the cost of each of its rows, the head last."""

    params: int
    madds: int
    activations: int
    rows: tuple[Cost, ...]


@dataclass(slots=True)
class _Counter:
    """Adds up layers as a row lays them down, following the feature map's size."""

    channels: int
    height: int
    width: int
    folded: bool
    params: int = 0
    madds: int = 0
    activations: int = 0

    def conv(self, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, norm: bool = True) -> None:
        """A convolution with BatchNorm (two parameters per channel; one, the bias, when folded or ``norm=False``)."""
        self.height, self.width = -(-self.height // stride), -(-self.width // stride)
        weights = self.channels // groups * out * kernel**2
        self.params += weights + (2 * out if norm and not self.folded else out)
        self.madds += weights * self.height * self.width
        self.activations += out * self.height * self.width
        self.channels = out

    def squeeze_excite(self, se: SqueezeExcite | None, c_in: int) -> None:
        """Pool, two 1x1 convolutions with bias; the multiply writes the map again."""
        if se:
            squeezed, channels = se.channels(c_in, self.channels), self.channels
            self.params += 2 * squeezed * channels + squeezed + channels
            self.madds += 2 * squeezed * channels
            self.activations += squeezed + channels * (1 + self.height * self.width)

    def mobileone(self, row: MobileOneConv, out: int, kernel: int, stride: int, depthwise: bool) -> None:
        """Parallel branches while training, one convolution when folded."""
        c_in, before = self.channels, (self.height, self.width)
        groups = c_in if depthwise else 1
        self.conv(out, kernel, stride, groups)
        if not self.folded:
            extra = [kernel] * (row.branches - 1) + ([1] if kernel > 1 else [])
            for size in extra:
                self.channels, (self.height, self.width) = c_in, before
                self.conv(out, size, stride, groups)
            if stride == 1 and c_in == out:
                self.params += 2 * out
                self.activations += out * self.height * self.width
        self.squeeze_excite(row.se, c_in)

    def row(self, row: Row) -> None:
        """The layers of one row."""
        c_in = self.channels
        match row:
            case MobileOneBlock():
                self.mobileone(row, c_in, row.kernel, row.stride, depthwise=True)
                self.mobileone(row, row.out, 1, 1, depthwise=False)
            case MobileOneConv():
                self.mobileone(row, row.out, row.kernel, row.stride, depthwise=False)
            case Conv():
                self.conv(row.out, row.kernel, row.stride)
            case DepthwiseSeparable():
                self.conv(c_in, row.kernel, row.stride, groups=c_in)
                self.conv(row.out)
            case InvertedResidual():
                if row.has_expansion(c_in):
                    self.conv(row.expand)
                self.conv(row.expand, row.kernel, row.stride, groups=row.expand)
                self.squeeze_excite(row.se, c_in)
                self.conv(row.out)

    def totals(self) -> Cost:
        return Cost(self.params, self.madds, self.activations, (self.channels, self.height, self.width))


def row_costs(backbone: BackboneSpec, size: tuple[int, int]) -> tuple[Cost, ...]:
    """Cost of each row of a backbone for an input of ``size`` (height, width)."""
    costs, shape = list[Cost](), (backbone.in_channels, *size)
    for row in backbone.rows:
        counter = _Counter(*shape, folded=backbone.folded)
        counter.row(row)
        costs.append(counter.totals())
        shape = costs[-1].out_shape
    return tuple(costs)


def cost(spec: ModelSpec, size: int | tuple[int, int] | None = None) -> ModelCost:
    """Cost of a network for one image of ``size`` pixels (side, or height and width); its own size by default."""
    side = size or spec.preprocessing.size
    sides = (side, side) if isinstance(side, int) else side
    rows = row_costs(spec.backbone, sides)
    match spec.head:
        case ClassifierHead() as head:
            rows += (_classifier(head, spec.backbone.out_channels),)
        case SSDHead() as head:
            rows += (_ssd(head, spec.backbone, rows),)
        case FasterRCNNHead() as head:
            rows += (_faster_rcnn(head, spec.backbone, rows),)
        case head:
            rows += (_segmentation(head, spec.backbone, rows, sides),)
    return ModelCost(
        sum(row.params for row in rows), sum(row.madds for row in rows), sum(row.activations for row in rows), rows
    )


def _classifier(head: ClassifierHead, c_in: int) -> Cost:
    widths = [width for width in (c_in, head.hidden, head.classes) if width]
    weights = sum(a * b for a, b in pairwise(widths))
    return Cost(weights + sum(widths[1:]), weights, sum(widths), (head.classes, 1, 1))


def _tapped(tap: Tap, backbone: BackboneSpec, rows: tuple[Cost, ...]) -> tuple[int, int, int]:
    """Channels, height and width of the features at ``tap``."""
    # an expansion has the resolution of its block's input
    _, height, width = rows[tap.row - tap.expansion].out_shape
    return backbone.tapped_channels(tap), height, width


def _ssd(head: SSDHead, backbone: BackboneSpec, rows: tuple[Cost, ...]) -> Cost:
    """Extra maps and predictions; ``out_shape``: (1 + classes + 4, anchors, 1), the numbers for each anchor."""
    maps = [_tapped(tap, backbone, rows) for tap in head.taps]
    params = madds = activations = anchors = 0
    for out in head.extras:
        extra = _Counter(*maps[-1], folded=head.folded)
        half = max(1, out // 2)
        extra.conv(half)
        if head.separable:
            extra.conv(half, 3, 2, groups=half)
            extra.conv(out)
        else:
            extra.conv(out, 3, 2)
        maps.append(extra.totals().out_shape)
        params, madds, activations = params + extra.params, madds + extra.madds, activations + extra.activations
    for shape, sides in zip(maps, head.anchors, strict=True):
        anchors += len(sides) * shape[1] * shape[2]
        for values in (1 + head.classes, 4):
            prediction = _Counter(*shape, folded=head.folded)
            if head.separable:
                prediction.conv(shape[0], 3, groups=shape[0])
            prediction.conv(len(sides) * values, 1 if head.separable else 3, norm=False)
            params, madds = params + prediction.params, madds + prediction.madds
            activations += prediction.activations
    return Cost(params, madds, activations, (5 + head.classes, anchors, 1))


def _faster_rcnn(head: FasterRCNNHead, backbone: BackboneSpec, rows: tuple[Cost, ...]) -> Cost:
    """Pyramid, proposals and as many regions as ``head.proposals`` lets through at most; that many it is where the
    image is full. ``out_shape``: (5 (1 + classes), regions, 1), the numbers for each region."""
    of_anchors = len(head.sizes) * len(head.ratios)
    maps, layers = list[tuple[int, int, int]](), list[Cost]()
    for tap in head.taps:
        pyramid = _Counter(*_tapped(tap, backbone, rows), folded=True)
        pyramid.conv(head.channels)
        pyramid.conv(head.channels, 3)
        layers.append(pyramid.totals())
        maps.append(pyramid.totals().out_shape)
    channels, height, width = maps[-1]
    maps.append((channels, -(-height // 2), -(-width // 2)))
    for place, shape in enumerate(maps):
        for out, kernel in ((channels, 3), (of_anchors, 1), (4 * of_anchors, 1)):
            layer = _Counter(*shape, folded=True)
            layer.conv(out, kernel)
            shared = replace(layer.totals(), params=0)  # one network for all maps
            layers.append(shared if place else layer.totals())
    pooled, values = channels * head.region**2, 5 * (1 + head.classes)
    weights = sum(a * b for a, b in pairwise((pooled, head.hidden, head.hidden, values)))
    candidates = sum(min(head.proposals.candidates, of_anchors * height * width) for _, height, width in maps)
    regions, outputs = min(head.proposals.most, candidates), 2 * head.hidden + values
    layers.append(Cost(weights + outputs, regions * weights, regions * (pooled + outputs), (values, regions, 1)))
    params, madds = sum(layer.params for layer in layers), sum(layer.madds for layer in layers)
    return Cost(params, madds, sum(layer.activations for layer in layers), layers[-1].out_shape)


def _segmentation(
    head: SegmentationHead, backbone: BackboneSpec, rows: tuple[Cost, ...], size: tuple[int, int]
) -> Cost:
    """The layers on each of the taps, the auxiliary head's parameters and the enlarged logits of ``size``; that head's
    multiply-adds are left out: it runs only while training. ``out_shape``: (classes, height, width)."""
    maps = [_tapped(tap, backbone, rows) for tap in head.taps]
    layers = [_Counter(*map_, folded=head.folded) for map_ in maps]
    unused, main = 0, layers[-1]
    match head:
        case LRASPPHead():
            gate = _Counter(*_pooled(maps[-1], head.pool), folded=True)
            gate.conv(head.channels)
            gate.params -= head.channels  # it has no bias
            main.conv(head.channels)
            main.conv(head.classes, norm=False)
            layers[0].conv(head.classes, norm=False)
            layers.append(gate)
        case DeepLabV3Head():
            atrous = [_Counter(*maps[-1], folded=head.folded) for _ in head.rates]
            for branch in atrous:
                branch.conv(head.channels, 3)
            pooled = _Counter(maps[-1][0], 1, 1, folded=head.folded)
            pooled.conv(head.channels)
            layers += [*atrous, pooled]
            main.conv(head.channels)
            main.channels *= 2 + len(atrous)
            main.conv(head.channels)
            if head.refined:
                main.conv(head.channels, 3)
            main.conv(head.classes, norm=False)
        case FCNHead():
            main.conv(max(1, main.channels // 4), 3)
            main.conv(head.classes, norm=False)
    if not isinstance(head, LRASPPHead) and head.aux:
        auxiliary = _Counter(*layers.pop(0).totals().out_shape, folded=False)
        auxiliary.conv(max(1, auxiliary.channels // 4), 3)
        auxiliary.conv(head.classes, norm=False)
        unused = auxiliary.params
    params, madds = unused + sum(layer.params for layer in layers), sum(layer.madds for layer in layers)
    enlarged = head.classes * size[0] * size[1]
    return Cost(params, madds, enlarged + sum(layer.activations for layer in layers), (head.classes, *size))


def _pooled(shape: tuple[int, int, int], pool: tuple[tuple[int, int], tuple[int, int]] | None) -> tuple[int, int, int]:
    """The shape of a map after LR-ASPP's pooling."""
    channels, height, width = shape
    if pool is None:
        return channels, 1, 1
    kernel, stride = pool
    rows, columns = height - min(kernel[0], height), width - min(kernel[1], width)
    return channels, 1 + rows // stride[0], 1 + columns // stride[1]
