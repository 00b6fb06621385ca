"""``ModelSpec``: a whole network as frozen data, and its JSON."""

import json
import operator
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from itertools import accumulate
from typing import Any, Literal

from ..errors import ConfigurationError, nearest
from .heads import ClassifierHead, DeepLabV3Head, FasterRCNNHead, FCNHead, Head, LRASPPHead, Selection, SSDHead, Tap
from .rows import (
    Conv,
    DepthwiseSeparable,
    InvertedResidual,
    MobileOneBlock,
    MobileOneConv,
    Row,
    SqueezeExcite,
    check,
    check_choice,
    check_positive,
    is_number,
)

Padding = Literal["symmetric", "same"]
Interpolation = Literal["bilinear", "bicubic"]
Fit = Literal["crop", "stretch"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _all(values: object, valid: Callable[[Any], bool]) -> bool:
    """Whether ``values`` is a tuple of which each element is ``valid``."""
    return isinstance(values, tuple) and all(map(valid, values))


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From an RGB image to the network's input: resize the short side to ``resize`` pixels (antialiased),
    cut the central ``size`` x ``size`` square, divide by 255, subtract ``mean``, divide by ``std``.

    With ``fit`` "stretch" nothing is cut off: the whole image becomes ``size`` x ``size``, each side by itself, and
    ``resize`` only says how large training keeps images. Detectors see it so.
    """

    size: int = 224
    resize: int = 256
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        check_positive(size=self.size, resize=self.resize)
        check_choice("Preprocessing.interpolation", self.interpolation, Interpolation)
        check_choice("Preprocessing.fit", self.fit, Fit)
        if self.resize < self.size:
            raise ConfigurationError(
                f"resize={self.resize} is smaller than size={self.size}; nearest valid: {self.size}"
            )
        for field, value in (("mean", self.mean), ("std", self.std)):
            three = _all(value, is_number) and len(value) == 3 and (field == "mean" or min(value) > 0)
            check(f"Preprocessing.{field}", value, three, "three finite numbers; std above 0")


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """A table of rows with what holds for all of them.

    ``padding``: "symmetric" (PyTorch) or "same" (TensorFlow's, needed by weights of that origin).
    ``expansion``: whether the table's expansions are ratios of the input (MobileNetV2, MnasNet) or channel
    numbers of their own (MobileNetV3): only for the latter do the two width rules differ (FACTS A7).
    ``folded``: BatchNorm and branches are already merged into plain convolutions with bias.
    """

    name: str
    rows: tuple[Row, ...]
    padding: Padding = "symmetric"
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1
    expansion: Literal["ratio", "channels"] = "ratio"
    folded: bool = False
    in_channels: int = 3

    def __post_init__(self) -> None:
        check_choice("BackboneSpec.padding", self.padding, Padding)
        check_choice("BackboneSpec.expansion", self.expansion, Literal["ratio", "channels"])
        check_positive(in_channels=self.in_channels)
        check("BackboneSpec.name", self.name, isinstance(self.name, str), "a text")
        check("BackboneSpec.rows", self.rows, _all(self.rows, lambda row: isinstance(row, Row)), "a list of rows")
        check("BackboneSpec.bn_eps", self.bn_eps, is_number(self.bn_eps) and self.bn_eps > 0, "a number above 0")
        fraction = is_number(self.bn_momentum) and 0 <= self.bn_momentum <= 1
        check("BackboneSpec.bn_momentum", self.bn_momentum, fraction, "a number from 0 to 1")
        check("BackboneSpec.folded", self.folded, isinstance(self.folded, bool), "true or false")
        if not self.rows:
            raise ConfigurationError(f"backbone {self.name!r} has no rows; give at least one")
        if self.padding == "same" and any(isinstance(row, MobileOneConv) for row in self.rows):
            # a strided 3x3 window then starts where the 1x1 branch samples, so the two no longer share a centre
            raise ConfigurationError('MobileOne rows cannot have padding="same"; nearest valid: "symmetric"')

    @property
    def out_channels(self) -> int:
        """Channels of the last row."""
        return self.rows[-1].out

    def inputs(self) -> tuple[int, ...]:
        """Input channels of each row."""
        return (self.in_channels, *(row.out for row in self.rows[:-1]))

    def strides(self) -> tuple[int, ...]:
        """Of each row, by how much its output is smaller than the input."""
        return tuple(accumulate((row.stride for row in self.rows), operator.mul))

    def tapped_channels(self, tap: Tap) -> int:
        """Channels of the features at ``tap``. Raises ConfigurationError where the backbone has none."""
        last = len(self.rows) - 1
        check("Tap.row", tap.row, tap.row <= last, f"one of {self.name}'s rows; nearest valid: {last}")
        row = self.rows[tap.row]
        if not tap.expansion:
            return row.out
        expands = isinstance(row, InvertedResidual) and row.has_expansion(self.inputs()[tap.row])
        check("Tap.expansion", True, expands, f"false for row {tap.row} of {self.name}, which has no expansion layer")
        assert isinstance(row, InvertedResidual)
        return row.expand


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Backbone, head, preprocessing and class names: everything that a checkpoint must say of its network."""

    backbone: BackboneSpec
    head: Head
    preprocessing: Preprocessing = Preprocessing()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kinds = (("backbone", BackboneSpec, "a BackboneSpec"), ("preprocessing", Preprocessing, "a Preprocessing"))
        for field, kind, expected in (*kinds, ("head", Head, "a ClassifierHead, SSDHead, LRASPPHead or another head")):
            value = getattr(self, field)
            check(f"ModelSpec.{field}", value, isinstance(value, kind), expected)
        check(
            "ModelSpec.labels", self.labels, _all(self.labels, lambda label: isinstance(label, str)), "a list of texts"
        )
        if self.labels and len(self.labels) != self.head.classes:
            raise ConfigurationError(
                f"{len(self.labels)} labels for {self.head.classes} classes; give one label per class, or none"
            )
        if not isinstance(self.head, ClassifierHead):
            for tap in self.head.taps:
                self.backbone.tapped_channels(tap)

    @property
    def classifier(self) -> ClassifierHead:
        """The head of a classifier. Raises ConfigurationError where the network is none."""
        if not isinstance(self.head, ClassifierHead):
            raise ConfigurationError(
                f"{self.backbone.name} has a {type(self.head).__name__}, and only a classifier can be changed so; "
                "change the backbone first and put the head on it afterwards"
            )
        return self.head


KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        ModelSpec,
        BackboneSpec,
        Preprocessing,
        ClassifierHead,
        Tap,
        Selection,
        SSDHead,
        FasterRCNNHead,
        LRASPPHead,
        DeepLabV3Head,
        FCNHead,
        SqueezeExcite,
        Conv,
        DepthwiseSeparable,
        InvertedResidual,
        MobileOneConv,
        MobileOneBlock,
    )
}


def to_data(value: Any) -> Any:
    """A spec as plain dicts, lists and numbers; each dataclass carries its ``kind``."""
    if is_dataclass(value):
        return {"kind": type(value).__name__} | {f.name: to_data(getattr(value, f.name)) for f in fields(value)}
    return [to_data(item) for item in value] if isinstance(value, tuple) else value


def from_data(data: Any) -> Any:
    """The inverse of ``to_data``. Raises ConfigurationError naming the nearest valid kind or field."""
    if isinstance(data, list):
        return tuple(from_data(item) for item in data)
    if not isinstance(data, dict):
        return data
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigurationError(f"unknown kind {kind!r} in a network description; {nearest(kind, KINDS)}")
    names = [f.name for f in fields(KINDS[kind])]
    for name in data.keys() - {"kind"}:
        if name not in names:
            raise ConfigurationError(f"{kind} has no field {name!r}; {nearest(name, names)}")
    try:
        return KINDS[kind](**{name: from_data(value) for name, value in data.items() if name != "kind"})
    except TypeError as error:
        raise ConfigurationError(f"{kind}: {error}; its fields are {', '.join(names)}") from None


def to_json(spec: Any) -> str:
    """A spec as one line of JSON, the same for equal specs."""
    return json.dumps(to_data(spec), sort_keys=True)


def from_json(text: str) -> Any:
    """The spec that ``to_json`` wrote. Raises ConfigurationError for anything else."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"a network description is not JSON: {error}") from None
    return from_data(data)
