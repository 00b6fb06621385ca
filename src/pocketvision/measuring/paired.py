"""Is one network faster than another, or was it the machine?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import ConfigurationError
from .latency import Turns, take_turns

LEVEL = 0.05  # of false alarms, where two candidates are one and the same
FEWEST = 6  # turns: with fewer, no difference whatever could be told at that level


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many times as long ``second`` takes as ``first``: the median over the turns in which both were timed,
    its 95% interval and the probability (Wilcoxon's signed-rank test) of such turns if they took equally long."""

    first: str
    second: str
    ratio: float
    interval: tuple[float, float]
    p: float
    turns: int

    @property
    def significant(self) -> bool:
        """Whether there is a difference."""
        return self.p < LEVEL

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON, and ``significant``."""
        return asdict(self) | {"interval": list(self.interval), "significant": self.significant}

    def __str__(self) -> str:
        low, high = self.interval
        figures = f"95% {low:.3f} to {high:.3f}, p {self.p:.2g}, {self.turns} turns"
        if not self.significant:
            return f"no significant difference between {self.first} and {self.second} ({self.ratio:.3f}; {figures})"
        word = "slower" if self.ratio > 1 else "faster"
        return f"{self.second} is {word} than {self.first}: {self.ratio:.3f} times its time ({figures})"


def compare_calls(
    first: tuple[str, Callable[[], object]],
    second: tuple[str, Callable[[], object]],
    *,
    n: int = 100,
    seconds: float = 30.0,
) -> Comparison:
    """Time two candidates, each with its name, in turns and compare them; arguments as ``latency.take_turns``."""
    turns = take_turns({"first": first[1], "second": second[1]}, n=n, seconds=seconds)
    return compare(first[0], turns["first"], second[0], turns["second"])


def compare(first: str, one: Turns, second: str, other: Turns) -> Comparison:
    """Compare what was measured of two candidates in the same turns.

    In each turn the medians of the least interrupted calls are compared: what slows a turn slows both, and turns are
    exchangeable even where calls are not. Raises ConfigurationError for fewer than six common turns.
    """
    from scipy.stats import wilcoxon

    a, b = one.medians(), other.medians()
    common = sorted(a.keys() & b.keys())
    if len(common) < FEWEST:
        raise ConfigurationError(
            f"{len(common)} turns cannot tell two latencies apart; measure {5 * FEWEST} calls or more"
        )
    logs = np.array([np.log(b[turn] / a[turn]) for turn in common])
    tested: Any = wilcoxon(logs) if logs.any() else None
    p = float(tested.pvalue) if tested else 1.0
    low, high = _interval(np.sort(logs))
    return Comparison(first, second, float(np.exp(np.median(logs))), (low, high), p, len(common))


def _interval(logs: np.ndarray) -> tuple[float, float]:
    """95% of the median of sorted ``logs``, from how often as many of them lie below it."""
    from scipy.stats import binom

    rank = max(int(binom.ppf(LEVEL / 2, len(logs), 0.5)) - 1, 0)
    return float(np.exp(logs[rank])), float(np.exp(logs[-1 - rank]))
