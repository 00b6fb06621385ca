"""What values a tensor takes on calibration images, and which part of them 8 bits should cover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

RangeMethod = Literal["minmax", "mse", "percentile", "harm"]
Range = tuple[float, float]  # lowest and highest value, 0 included
LEVELS = 255  # steps between the 256 values of 8 bits
_BINS = 2048
_MOST_SAMPLES = 65536  # of one tensor of one image: a regular grid of more says nothing new
_PERCENTILES = (99.999, 99.99, 99.9)
_SHARES = np.linspace(1, 0.3, 71)  # of the range, tried for the least squared error
_PLACES = {"minmax": 0, "mse": 1, "percentile": 3}  # in ``candidates``


@dataclass(slots=True)
class Seen:
    """What was seen of one tensor: extremes, mean of each channel, and, in a second pass, how often each value came.

    Memory is bounded: nothing of an image is kept but these.
    """

    low: float = float("inf")
    high: float = float("-inf")
    images: int = 0
    channel_sum: np.ndarray | float = 0.0
    counts: np.ndarray | None = None

    def extend(self, values: np.ndarray) -> None:
        """First pass: values [N, C, ...] of some more images."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.images += len(values)
        self.channel_sum = self.channel_sum + values.mean(tuple(range(2, values.ndim)), dtype=np.float64).sum(0)

    def count(self, values: np.ndarray) -> None:
        """Second pass, over the same images."""
        flat = values.reshape(-1)
        flat = flat[:: 1 + 2 * (flat.size // (2 * _MOST_SAMPLES))]  # an odd step meets every channel
        width = (self.high - self.low) or 1.0
        places = ((flat - self.low) * ((_BINS - 1) / width)).round().astype(np.int64)
        found = np.bincount(places, minlength=_BINS)
        self.counts = found if self.counts is None else self.counts + found

    @property
    def channel_mean(self) -> np.ndarray:
        """[C]"""
        return np.asarray(self.channel_sum) / self.images


def candidates(seen: Seen, *, floor: float = -np.inf, ceiling: float = np.inf) -> list[Range]:
    """Ranges for values that are cut to ``floor`` and ``ceiling`` anyway: everything seen; the range that loses least
    to rounding and to cutting off together, in the mean of squares; all but the outermost 0.001%, 0.01% and 0.1%."""
    low, high = (float(np.clip(value, floor, ceiling)) for value in (seen.low, seen.high))
    low, high = min(low, 0.0), max(high, 0.0)
    if seen.counts is None:
        return [(low, high)]
    values = np.clip(np.linspace(seen.low, seen.high, _BINS), floor, ceiling)
    found = [(low, high), _least_loss(values, seen.counts, low, high)]
    share = np.cumsum(seen.counts) / seen.counts.sum()
    for percentile in _PERCENTILES:
        outside = 1 - percentile / 100
        ends = [float(values[np.searchsorted(share, at)]) for at in (outside, 1 - outside)]
        found.append((min(ends[0], 0.0), max(ends[1], 0.0)))
    return found


def chosen(seen: Seen, method: RangeMethod, *, floor: float = -np.inf, ceiling: float = np.inf) -> Range:
    """The candidate that ``method`` names, without a look at what it does to the network ("harm": "percentile")."""
    place = _PLACES["percentile" if method == "harm" else method]
    return candidates(seen, floor=floor, ceiling=ceiling)[place]


def _least_loss(values: np.ndarray, counts: np.ndarray, low: float, high: float) -> Range:
    best = _best(values, counts, np.stack([low * _SHARES, high * _SHARES], 1))
    for _ in range(2):  # then each end by itself
        best = _best(values, counts, np.array([(low * share, best[1]) for share in _SHARES]))
        best = _best(values, counts, np.array([(best[0], high * share) for share in _SHARES]))
    return best


def _best(values: np.ndarray, counts: np.ndarray, ranges: np.ndarray) -> Range:
    """That of the ``ranges`` [R, 2] with the least squared error."""
    lows, highs = ranges[:, :1], ranges[:, 1:]
    steps = np.maximum((highs - lows) / LEVELS, 1e-12)
    zeros = np.round(-lows / steps)
    read = (np.clip(np.round(values / steps) + zeros, 0, LEVELS) - zeros) * steps
    index = int((counts * (read - values) ** 2).sum(1).argmin())
    return float(lows[index, 0]), float(highs[index, 0])
