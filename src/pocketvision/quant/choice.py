"""Which range each tensor of a network gets, found by what ranges do to its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .ranges import Range, RangeMethod

GOOD_ENOUGH = 0.02  # error of the outputs as a share of their variance, above which each tensor's range is tried
HARM_LIMIT = 0.003  # the same, by one tensor alone, above which it had better not be bytes
_MSE, _MOST = 1, 3  # in ``ranges.candidates``
_SAME = 0.05  # of a range's width: what differs less is not tried again


@dataclass(frozen=True, slots=True)
class Int8:
    """How an int8 file is made. ``ranges``: how an activation's range is found; ``correct_bias``: whether the mean
    error of rounded weights is taken out of the biases; ``beginning``: how many convolutions at the network's beginning
    stay float; None: those whose activations harm the outputs whatever the range."""

    ranges: RangeMethod = "harm"
    correct_bias: bool = True
    beginning: int | None = None


DEFAULT = Int8()


@dataclass(frozen=True, slots=True)
class Choice:
    """``ranges`` of all tensors; ``harms``: the error that each of them alone makes in the outputs, where that was
    looked for."""

    ranges: dict[str, Range]
    harms: dict[str, float]

    @property
    def harmful(self) -> list[str]:
        """Tensors that had better not be bytes, whatever the range."""
        return [name for name, error in self.harms.items() if error > HARM_LIMIT]


def chosen_ranges(
    options: Mapping[str, Sequence[Range]],
    error: Callable[[Mapping[str, Range]], float],
) -> Choice:
    """Of ``options``, the ``ranges.candidates`` of each tensor, those that change the network's outputs least.

    ``error``: what the outputs lose when these tensors, and only these, are bytes of these ranges (``output_error``).
    First two rules are tried on all tensors alike: least squared error, all but the outermost 0.01%. Where the better
    one still costs more than ``GOOD_ENOUGH``, every tensor gets, alone, the range that costs least. No measure of the
    tensor itself finds that range: values far out are noise in one place and decide in another.
    """
    rules = [{name: ranges[place] for name, ranges in options.items()} for place in (_MSE, _MOST)]
    errors = [error(rule) for rule in rules]
    best = rules[int(np.argmin(errors))]
    if min(errors) <= GOOD_ENOUGH:
        return Choice(best, {})
    harms = dict[str, float]()
    tried = dict[str, Range]()
    for name, ranges in options.items():
        different = list[Range]()
        for low, high in ranges:
            if all(max(abs(low - a), abs(high - b)) > _SAME * (b - a) for a, b in different):
                different.append((low, high))
        alone = [error({name: each}) for each in different]
        tried[name], harms[name] = different[int(np.argmin(alone))], min(alone)
    return Choice(tried if error(tried) < min(errors) else best, harms)


def output_error(truth: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> float:
    """Mean squared differences as shares of the outputs' variances, added up."""
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(truth, outputs, strict=True)]
    return sum(float(np.mean((a - b) ** 2)) / max(float(a.var()), 1e-12) for a, b in pairs)
