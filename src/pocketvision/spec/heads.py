"""What stands on a backbone: one frozen dataclass per head."""

from dataclasses import dataclass
from typing import Literal

from .rows import Activation, check, check_choice, check_positive, is_number


@dataclass(frozen=True, slots=True)
class ClassifierHead:
    """Global average pooling, an optional hidden layer, dropout, linear classifier.

    MobileNetV3 has a hidden layer of 1024 or 1280 with hard-swish and no BatchNorm (S1 Tables 1 and 2,
    FACTS A13, C-1); the other families have none (``hidden=0``).
    """

    classes: int
    hidden: int = 0
    act: Activation = "hard_swish"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_positive(classes=self.classes)
        check_choice("ClassifierHead.act", self.act, Activation)
        whole = isinstance(self.hidden, int) and is_number(self.hidden) and self.hidden >= 0
        check("hidden", self.hidden, whole, "a whole number of 0 (no hidden layer) or more; nearest valid: 0")
        _check_dropout(self.dropout)


def _check_dropout(dropout: object) -> None:
    fraction = is_number(dropout) and 0 <= dropout < 1  # type: ignore[operator]
    check("dropout", dropout, fraction, "a number of at least 0 and below 1; nearest valid: 0.2")


@dataclass(frozen=True, slots=True)
class Tap:
    """Where a head takes features from: the output of a backbone's row (0 is the stem), or the tensor inside it
    after its 1x1 ``expansion`` (S4 §6.2, S1 §6.3; FACTS H2, H3)."""

    row: int
    expansion: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.row, int) and not isinstance(self.row, bool) and self.row >= 0
        check("Tap.row", self.row, whole, "a whole number of 0 or more; nearest valid: 0")
        check("Tap.expansion", self.expansion, isinstance(self.expansion, bool), "true or false")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of a detector's boxes are reported: those that score above ``min_score``, at most ``candidates`` of each
    class, of overlapping ones (``iou``) of a class the best, and of all ``most`` an image (torchvision's, FACTS H6)."""

    min_score: float = 0.001
    iou: float = 0.55
    candidates: int = 300
    most: int = 300

    def __post_init__(self) -> None:
        check_positive(candidates=self.candidates, most=self.most)
        score = is_number(self.min_score) and 0 <= self.min_score < 1
        check("Selection.min_score", self.min_score, score, "at least 0 and below 1; nearest valid: 0.001")
        overlap = is_number(self.iou) and 0 < self.iou <= 1
        check("Selection.iou", self.iou, overlap, "above 0 and at most 1; nearest valid: 0.55")


def check_taps(taps: object) -> None:
    """Raise ConfigurationError for anything but Taps of different places, the first one first."""
    valid = isinstance(taps, tuple) and len(taps) > 0 and all(isinstance(tap, Tap) for tap in taps)
    check("taps", taps, valid, "a list of at least one Tap")
    assert isinstance(taps, tuple)
    places = [(tap.row, not tap.expansion) for tap in taps]
    check("taps", taps, places == sorted(set(places)), "in the order of the backbone's rows, each once")


@dataclass(frozen=True, slots=True)
class SSDHead:
    """SSDLite (S4 §6.2), or plain SSD with ``separable=False``: a class and a box for each anchor of each feature map.

    ``classes``: without background. ``taps``: the feature maps of the backbone, finest first; each of ``extras`` is one
    more map with so many channels and half the side. ``anchors``: for each map the (width, height) of its boxes
    as shares of the input's sides. ``scores``: how logits become probabilities; the first logit is the background's.
    ``variances``: by which box codes are multiplied (arXiv:1512.02325), of centres and of sizes. ``folded``: the head's
    own BatchNorms are merged, as ``BackboneSpec.folded`` says of the backbone's.
    """

    classes: int
    taps: tuple[Tap, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    extras: tuple[int, ...] = (512, 256, 256, 128)
    separable: bool = True
    act: Activation = "relu6"
    scores: Literal["softmax", "sigmoid"] = "softmax"
    variances: tuple[float, float] = (0.1, 0.2)
    selection: Selection = Selection()
    folded: bool = False

    def __post_init__(self) -> None:
        check_positive(classes=self.classes)
        check_taps(self.taps)
        check("SSDHead.extras", self.extras, isinstance(self.extras, tuple), "a list of channel numbers")
        check_positive(**{f"extras[{index}]": channels for index, channels in enumerate(self.extras)})
        maps = len(self.taps) + len(self.extras)
        anchors = isinstance(self.anchors, tuple) and len(self.anchors) == maps and all(map(_are_sizes, self.anchors))
        wanted = f"for each of the {maps} feature maps a list of (width, height), shares of the input above 0"
        check("SSDHead.anchors", self.anchors, anchors, wanted)
        check_choice("SSDHead.act", self.act, Activation)
        check_choice("SSDHead.scores", self.scores, Literal["softmax", "sigmoid"])
        for field, value in (("separable", self.separable), ("folded", self.folded)):
            check(f"SSDHead.{field}", value, isinstance(value, bool), "true or false")
        check("SSDHead.variances", self.variances, _is_size(self.variances), "two numbers above 0; (0.1, 0.2) as usual")
        check("SSDHead.selection", self.selection, isinstance(self.selection, Selection), "a Selection")


def _are_sizes(value: object) -> bool:
    return isinstance(value, tuple) and len(value) > 0 and all(map(_is_size, value))


def _is_size(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(is_number(side) and side > 0 for side in value)


@dataclass(frozen=True, slots=True)
class FasterRCNNHead:
    """Faster R-CNN with a feature pyramid (S0, FACTS H11 to H15).

    ``classes``: without background. ``taps``: the feature maps of the backbone, finest first; the pyramid makes of
    each one with ``channels``, and one more of half the side. At each place of each map there are anchors of each of
    ``sizes`` (pixels: the root of the area) and ``ratios`` (height / width). ``proposals``: which boxes become regions,
    where ``candidates`` is per map; ``training_proposals``: while training. A region has ``region`` x ``region`` cells
    and two layers of ``hidden``. ``selection``: which boxes are reported.
    """

    classes: int
    taps: tuple[Tap, ...]
    channels: int = 256
    sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals: Selection = Selection(min_score=0.05, iou=0.7, candidates=150, most=150)
    training_proposals: Selection = Selection(min_score=0.05, iou=0.7, candidates=2000, most=2000)
    region: int = 7
    hidden: int = 1024
    selection: Selection = Selection(min_score=0.05, iou=0.5, candidates=1000, most=100)

    def __post_init__(self) -> None:
        check_positive(classes=self.classes, channels=self.channels, region=self.region, hidden=self.hidden)
        check_taps(self.taps)
        for field in ("sizes", "ratios"):
            values = getattr(self, field)
            valid = isinstance(values, tuple) and values and all(is_number(value) and value > 0 for value in values)
            check(f"FasterRCNNHead.{field}", values, bool(valid), "a list of at least one number above 0")
        for field in ("proposals", "training_proposals", "selection"):
            value = getattr(self, field)
            check(f"FasterRCNNHead.{field}", value, isinstance(value, Selection), "a Selection")


@dataclass(frozen=True, slots=True)
class LRASPPHead:
    """LR-ASPP (S1 §6.4, Figure 10; FACTS H17, H18).

    ``high``: features that a 1x1 convolution to ``channels`` and a gate of pooled features read; ``low``: finer ones
    that are added to the result. ``pool``: kernel and stride of the gate's average pooling, each (height, width), the
    kernel no larger than the map; None for the mean of the whole map, as torchvision has it. ``folded``: the head's own
    BatchNorms are merged. Every head here counts all that a mask can say as ``classes``, background included.
    """

    classes: int
    low: Tap
    high: Tap
    channels: int = 128
    pool: tuple[tuple[int, int], tuple[int, int]] | None = None
    folded: bool = False

    def __post_init__(self) -> None:
        check_positive(classes=self.classes, channels=self.channels)
        check_taps(self.taps)
        pairs = isinstance(self.pool, tuple) and len(self.pool) == 2 and all(map(_is_size, self.pool))
        whole = pairs and all(isinstance(side, int) for pair in self.pool or () for side in pair)
        expected = "kernel and stride, each (height, width) in whole numbers of 1 or more, or none"
        check("LRASPPHead.pool", self.pool, self.pool is None or whole, expected)
        check("LRASPPHead.folded", self.folded, isinstance(self.folded, bool), "true or false")

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Where features are taken from, finest first."""
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class DeepLabV3Head:
    """DeepLabV3 (arXiv:1706.05587 §3.3; FACTS H20, H21); without ``rates`` it is R-ASPP (S4 §6.3, S1 §6.4; H19).

    Branches of ``channels`` read the features at ``tap``: a 1x1 convolution, a 3x3 one for each dilation of ``rates``,
    and the mean of the whole map; a 1x1 convolution joins them. ``refined``: a 3x3 convolution more before the classes,
    as torchvision has it. ``aux``: features at output stride 8 on which an FCN predicts as well while training; it is
    never folded, and a folded network has none. ``align_corners``: logits are enlarged so that the middles of corner
    pixels meet, as TensorFlow's weights of that time need it, and not the corners themselves.
    """

    classes: int
    tap: Tap
    channels: int = 256
    rates: tuple[int, ...] = (6, 12, 18)
    refined: bool = False
    dropout: float = 0.1
    aux: Tap | None = None
    align_corners: bool = False
    folded: bool = False

    def __post_init__(self) -> None:
        check_positive(classes=self.classes, channels=self.channels)
        check_taps(self.taps)
        check(
            "DeepLabV3Head.rates", self.rates, isinstance(self.rates, tuple), "a list of dilations, which may be empty"
        )
        check_positive(**{f"rates[{index}]": rate for index, rate in enumerate(self.rates)})
        for field in ("refined", "align_corners", "folded"):
            value = getattr(self, field)
            check(f"DeepLabV3Head.{field}", value, isinstance(value, bool), "true or false")
        _check_dropout(self.dropout)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Where features are taken from, finest first."""
        return (self.aux, self.tap) if self.aux else (self.tap,)


@dataclass(frozen=True, slots=True)
class FCNHead:
    """FCN as torchvision has it: a 3x3 convolution to a quarter of the channels, then the classes (FACTS H20).
    ``aux``: as ``DeepLabV3Head`` has it."""

    classes: int
    tap: Tap
    dropout: float = 0.1
    aux: Tap | None = None
    folded: bool = False

    def __post_init__(self) -> None:
        check_positive(classes=self.classes)
        check_taps(self.taps)
        check("FCNHead.folded", self.folded, isinstance(self.folded, bool), "true or false")
        _check_dropout(self.dropout)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Where features are taken from, finest first."""
        return (self.aux, self.tap) if self.aux else (self.tap,)


DetectionHead = SSDHead | FasterRCNNHead
SegmentationHead = LRASPPHead | DeepLabV3Head | FCNHead
Head = ClassifierHead | DetectionHead | SegmentationHead
TaskName = Literal["classify", "detect", "segment"]


def task_of(head: Head) -> TaskName:
    """What networks with such a head do."""
    match head:
        case ClassifierHead():
            return "classify"
        case SSDHead() | FasterRCNNHead():
            return "detect"
        case _:
            return "segment"
