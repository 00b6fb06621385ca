"""The rows of a network table: one frozen dataclass per kind of block, absolute channel numbers.

A row does not name its input channels: they are the previous row's ``out``. Every row has ``out``
(channels), ``kernel`` (pixels), ``stride`` and ``dilation`` of its spatial convolution.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import ConfigurationError, nearest

Activation = Literal["none", "relu", "relu6", "hard_swish", "swish"]
Gate = Literal["sigmoid", "hard_sigmoid"]
Scaling = Literal["width", "six_times_input", "not_below_table", "fixed"]
Shortcut = Literal["bottleneck", "expansion", "none"]


def check_choice(field: str, value: object, choices: object) -> None:
    """Raise ConfigurationError when ``value`` is not one of a Literal type's values."""
    if value not in get_args(choices):
        raise ConfigurationError(f"{field}={value!r} is unknown; {nearest(value, get_args(choices))}")


def check(field: str, value: object, valid: bool, expected: str) -> None:
    """Raise ConfigurationError that says what a field must be when its value is not ``valid``."""
    if not valid:
        shown = repr(value)
        raise ConfigurationError(f"{field}={shown if len(shown) <= 80 else shown[:80] + '...'} must be {expected}")


def is_number(value: object) -> bool:
    """Whether ``value`` is an integer or a finite float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


def check_positive(**numbers: int) -> None:
    """Raise ConfigurationError for anything that is not an integer of 1 or more."""
    for field, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigurationError(f"{field}={value!r} must be a whole number of 1 or more; nearest valid: 1")


def round8(channels: float) -> int:
    """The multiple of 8 nearest to ``channels``, at least 8, never below 90% of it (FACTS A4)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


@dataclass(frozen=True, slots=True)
class SqueezeExcite:
    """Squeeze-and-excitation (arXiv:1905.02244 §5.3; MnasNet: arXiv:1807.11626): pool, 1x1 ReLU, 1x1 gate, multiply.

    The squeeze has ``1 / reduction`` of the channels of the expansion (the tensor that it multiplies) or of the
    row's input, rounded to a multiple of ``divisor`` (1 or 8).
    """

    of: Literal["expansion", "input"] = "expansion"
    reduction: int = 4
    divisor: Literal[1, 8] = 8
    gate: Gate = "hard_sigmoid"

    def __post_init__(self) -> None:
        check_choice("SqueezeExcite.of", self.of, Literal["expansion", "input"])
        check_choice("SqueezeExcite.gate", self.gate, Gate)
        check_choice("SqueezeExcite.divisor", self.divisor, Literal[1, 8])
        check_positive(reduction=self.reduction, divisor=self.divisor)

    def channels(self, c_in: int, expand: int) -> int:
        """Channels of the squeeze in a row with ``c_in`` inputs and ``expand`` expanded channels."""
        squeezed = (expand if self.of == "expansion" else c_in) / self.reduction
        return round8(squeezed) if self.divisor == 8 else max(1, round(squeezed))


def check_se(field: str, value: object) -> None:
    """Raise ConfigurationError when ``value`` is neither a SqueezeExcite nor None."""
    check(field, value, value is None or isinstance(value, SqueezeExcite), "a SqueezeExcite or none")


@dataclass(frozen=True, slots=True)
class _Row:
    """What every row has; ``stride`` and ``dilation`` are those of its spatial convolution."""

    out: int
    kernel: int = 3
    stride: int = 1
    act: Activation = "relu"
    dilation: int = 1

    def __post_init__(self) -> None:
        check_choice(f"{type(self).__name__}.act", self.act, Activation)
        check_positive(out=self.out, kernel=self.kernel, stride=self.stride, dilation=self.dilation)
        if self.kernel % 2 == 0:
            raise ConfigurationError(f"kernel={self.kernel} must be odd; nearest valid: {self.kernel - 1}")


@dataclass(frozen=True, slots=True)
class Conv(_Row):
    """Convolution, BatchNorm, activation: stems and last 1x1 layers.

    ``scaling`` says what a width multiplier does to ``out``: scale it, keep it at six times its input
    (MobileNetV3, FACTS A12), never let it fall below the table (MobileNetV2, FACTS A2), or leave it.
    """

    scaling: Scaling = "width"

    def __post_init__(self) -> None:
        _Row.__post_init__(self)
        check_choice("Conv.scaling", self.scaling, Scaling)


@dataclass(frozen=True, slots=True)
class DepthwiseSeparable(_Row):
    """MobileNetV1's block: depthwise convolution, then 1x1, an activation after each (S4 §3.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertedResidual(_Row):
    """[1x1 expansion] -> depthwise -> [SE] -> 1x1 projection (S4 §3.3, S1 §5; FACTS B3, B6).

    ``expand`` is the absolute number of expanded channels; no expansion layer is built where it equals the
    input. ``linear=False`` puts the activation after the projection too (S4 §6.4, Fig. 6a). ``shortcut``
    joins the bottlenecks (stride 1, equal channels), or the two expanded tensors around the depthwise
    convolution (stride 1; Fig. 6b), or nothing. ``parts``: in how many groups of expanded channels, one after another,
    the deploy form computes the block (S4 §5.1): the same function in less memory.
    """

    expand: int
    se: SqueezeExcite | None = None
    linear: bool = True
    shortcut: Shortcut = "bottleneck"
    parts: int = 1

    def __post_init__(self) -> None:
        _Row.__post_init__(self)
        check_positive(expand=self.expand)
        check_se("InvertedResidual.se", self.se)
        check("InvertedResidual.linear", self.linear, isinstance(self.linear, bool), "true or false")
        check_choice("InvertedResidual.shortcut", self.shortcut, Shortcut)
        check_positive(parts=self.parts)
        one = "1 with squeeze-and-excitation or joined expansions, which need all channels at once"
        check("InvertedResidual.parts", self.parts, self.parts == 1 or self.can_be_split, one)

    @property
    def can_be_split(self) -> bool:
        """Whether each expanded channel is computed without the others."""
        return self.se is None and self.shortcut != "expansion"

    def has_expansion(self, c_in: int) -> bool:
        """Whether a 1x1 expansion layer is built (FACTS B7)."""
        return self.expand != c_in


@dataclass(frozen=True, slots=True)
class MobileOneConv(_Row):
    """One re-parameterisable convolution (S3 §3.3; FACTS B14): MobileOne's stem, or half of its block.

    While training: ``branches`` parallel convolution-BatchNorm pairs, a 1x1 one where the kernel is larger
    than 1, and a BatchNorm skip where input and output shapes agree; their sum, SE, activation. In deploy form
    one convolution. As a row of its own it is dense (``groups=1``).
    """

    branches: int = 1
    se: SqueezeExcite | None = None

    def __post_init__(self) -> None:
        _Row.__post_init__(self)
        check_positive(branches=self.branches)
        check_se(f"{type(self).__name__}.se", self.se)


@dataclass(frozen=True, slots=True)
class MobileOneBlock(MobileOneConv):
    """A depthwise then a 1x1 MobileOne convolution, each with the row's branches and SE (S3 Fig. 3)."""


Row = Conv | DepthwiseSeparable | InvertedResidual | MobileOneConv | MobileOneBlock
