"""How long one call takes: batch 1, warm, candidates interleaved, with the evidence beside the number."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from math import ceil, inf
from typing import Any

import numpy as np

from ..errors import ConfigurationError
from .machine import Machine, addition_ns, load_average, this_machine
from .runtimes import Session

try:
    import resource
except ImportError:  # Windows has no getrusage: interruptions are not counted there, only the spread is
    resource = None

BLOCK = 5  # calls of one candidate before the next one's turn, and the fewest that a figure stands on
MOST_CALLS = 4  # times n, however many were interrupted
INTERRUPTED_LIMIT, SPREAD_LIMIT, CLOCK_LIMIT = 0.1, 1.5, 0.9
RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds per call, and where and how they were measured.

    The figures stand on the ``n`` calls during which the system did not take the processor away (no involuntary
    context switch): an interrupted call measures the program that ran instead. ``interrupted`` is the share of calls
    left out for that reason (None where the system does not count them). Where fewer than five calls went through,
    the figures stand on the calls that were interrupted least often. ``interval_ms``: 95% of the median, from turns
    drawn again and again with replacement, because the calls of one turn are alike. ``clock``: the processor's speed in
    the middle one of the turns, as a share of that in the fastest (of a chain of additions before each).
    ``disturbed`` says that other work on the machine still shaped the figures: more than 10% of the calls interrupted,
    a p90 above 1.5 times the median, or a clock below 0.9.

    Which figure to use. In sixteen repeats of 100 calls of a 1 ms and a 4 ms network on two cores that other
    programs kept busy (load 7) the coefficient of variation was 3% and 1% for this median, 4% and 12% for the
    minimum, 3% and 8% for the median over all calls (which was 11 ms instead of 4), 9% and 2% for the mean; 1% for
    the ratio of the two networks' medians. So ``median_ms`` is what repeats, for ranking and for budgets alike. A
    budget is checked against it because it says what a user sees when the processor is theirs: half of all calls
    keep it, while the minimum is the luckiest one.
    """

    name: str
    runtime: str
    version: str
    threads: int
    min_ms: float
    median_ms: float
    interval_ms: tuple[float, float]
    p90_ms: float
    p99_ms: float
    n: int
    interrupted: float | None
    clock: float
    disturbed: bool
    load_before: float | None
    date: str
    machine: Machine

    def to_dict(self) -> dict[str, object]:
        """All fields, ready for JSON; times rounded to a microsecond's tenth."""
        times = ("min_ms", "median_ms", "p90_ms", "p99_ms")
        low, high = self.interval_ms
        rounded: dict[str, object] = {key: round(getattr(self, key), 4) for key in times}
        return asdict(self) | rounded | {"interval_ms": [round(low, 4), round(high, 4)], "clock": round(self.clock, 3)}

    def __str__(self) -> str:
        note = ", disturbed by other work on this machine" if self.disturbed else ""
        low, high = self.interval_ms
        return (
            f"{self.name}: median {self.median_ms:.2f} ms (95% {low:.2f} to {high:.2f}, min {self.min_ms:.2f}, p90 "
            f"{self.p90_ms:.2f}, p99 {self.p99_ms:.2f}, n {self.n}; {self.runtime} {self.version}, {self.threads} "
            f"thread{'s' * (self.threads > 1)}{note})"
        )


def measure_sessions(
    sessions: Mapping[str, Session[Any]], *, n: int = 100, seconds: float = 30.0, image: np.ndarray | None = None
) -> dict[str, Latency]:
    """Latency of each session on one image, interleaved; arguments and errors as ``take_turns``.

    ``image``: uint8 [1, S, S, 3] for all sessions; by default noise of each session's own size: the time of these
    networks does not depend on the pixels, but a detector's selection does, on how much it finds.
    """
    return timed_sessions(sessions, n=n, seconds=seconds, image=image)[0]


def timed_sessions(
    sessions: Mapping[str, Session[Any]], *, n: int = 100, seconds: float = 30.0, image: np.ndarray | None = None
) -> tuple[dict[str, Latency], dict[str, "Turns"]]:
    """The same, and all calls that it stands on, for ``paired.compare``."""
    noise, load, date = np.random.default_rng(0), load_average(), datetime.now(UTC).isoformat(timespec="seconds")
    images = {
        name: noise.integers(0, 256, (1, *session.image_shape), dtype=np.uint8) if image is None else image
        for name, session in sessions.items()
    }
    calls = {name: _call(session, images[name]) for name, session in sessions.items()}
    turns = take_turns(calls, n=n, seconds=seconds)
    latencies = {
        name: replace(
            turns[name].summary(name, load, date),
            runtime=session.runtime,
            version=session.version,
            threads=session.threads,
        )
        for name, session in sessions.items()
    }
    return latencies, turns


def measure(
    candidates: Mapping[str, Callable[[], object]], *, n: int = 100, seconds: float = 30.0
) -> dict[str, Latency]:
    """Time every candidate ``n`` times, or fewer when ``seconds`` (for all together) have passed; see ``take_turns``.

    Returns a ``Latency`` per candidate (runtime "python", one thread) in the given order.
    """
    load, date = load_average(), datetime.now(UTC).isoformat(timespec="seconds")
    turns = take_turns(candidates, n=n, seconds=seconds)
    return {name: turns.summary(name, load, date) for name, turns in turns.items()}


def take_turns(
    candidates: Mapping[str, Callable[[], object]], *, n: int = 100, seconds: float = 30.0
) -> dict[str, "Turns"]:
    """Every call of every candidate.

    Each is first called until it gets no faster. Then they take turns in blocks of five calls, in rotating order, so
    that a change of the clock or of the neighbours' load meets all of them alike; one call that is not counted opens
    each block, because the other candidates have emptied the caches. Interrupted calls are repeated, up to four
    times ``n`` in all. The garbage collector is off meanwhile. At least one block is measured, whatever ``seconds``
    says.

    Raises ConfigurationError for no candidates, n below 1 or seconds not above 0.
    """
    if not candidates:
        raise ConfigurationError("nothing to measure: give at least one model or artifact")
    if n < 1 or not seconds > 0:
        raise ConfigurationError(f"n={n} must be 1 or more and seconds={seconds} above 0")
    turns = {name: Turns([], [], [], []) for name in candidates}
    names, start = list(candidates), time.perf_counter()
    with _no_garbage_collection():
        for index, call in enumerate(candidates.values()):
            _warm_up(call, start + 0.2 * seconds * (index + 1) / len(names))
        for turn in range(ceil(MOST_CALLS * n / BLOCK)):
            waiting = [name for name in names if turns[name].uninterrupted < n]
            if not waiting or (turn and time.perf_counter() > start + seconds):
                break
            first, clock = turn % len(waiting), addition_ns()
            for name in waiting[first:] + waiting[:first]:
                candidates[name]()
                turns[name].clocks.append(clock)
                for _ in range(min(BLOCK, n - turns[name].uninterrupted)):
                    turns[name].add(candidates[name], turn)
    return turns


@dataclass(frozen=True, slots=True)
class Turns:
    """What was seen of one candidate: milliseconds, involuntary context switches and turn of each call, and of each
    turn the nanoseconds of an addition just before."""

    ms: list[float]
    switches: list[int]
    turn: list[int]
    clocks: list[float]

    @property
    def uninterrupted(self) -> int:
        """Calls that were not interrupted."""
        return self.switches.count(0)

    def add(self, call: Callable[[], object], turn: int = 0) -> None:
        """Time one call."""
        before = _switches()
        start = time.perf_counter_ns()
        call()
        self.ms.append((time.perf_counter_ns() - start) / 1e6)
        self.switches.append(_switches() - before)
        self.turn.append(turn)
        if self.switches[-1]:
            time.sleep(0.001)  # after a rest the scheduler grants a fresh time slice, and the next call may fit in it

    def kept(self) -> dict[int, list[float]]:
        """Of each turn the milliseconds of the calls that count."""
        accepted = sorted(self.switches)[:BLOCK][-1]  # 0 where five calls were not interrupted
        kept = dict[int, list[float]]()
        for ms, switches, turn in zip(self.ms, self.switches, self.turn, strict=True):
            if switches <= accepted:
                kept.setdefault(turn, []).append(ms)
        return kept

    def medians(self) -> dict[int, float]:
        """Of each turn the median milliseconds of its least interrupted calls."""
        calls = dict[int, list[tuple[int, float]]]()
        for ms, switches, turn in zip(self.ms, self.switches, self.turn, strict=True):
            calls.setdefault(turn, []).append((switches, ms))
        least = {turn: min(switches for switches, _ in all_) for turn, all_ in calls.items()}
        return {
            turn: float(np.median([ms for switches, ms in all_ if switches == least[turn]]))
            for turn, all_ in calls.items()
        }

    def summary(self, name: str, load: float | None, date: str) -> Latency:
        """The figures."""
        by_turn = list(self.kept().values())
        kept = [ms for turn in by_turn for ms in turn]
        median, p90, p99 = (float(np.percentile(kept, share)) for share in (50, 90, 99))
        interrupted = 1 - self.uninterrupted / len(self.ms) if resource else None
        clock = min(self.clocks) / float(np.median(self.clocks))
        return Latency(
            name=name,
            runtime="python",
            version=this_machine().python,
            threads=1,
            min_ms=min(kept),
            median_ms=median,
            interval_ms=_interval(by_turn),
            p90_ms=p90,
            p99_ms=p99,
            n=len(kept),
            interrupted=interrupted,
            clock=clock,
            disturbed=(interrupted or 0) > INTERRUPTED_LIMIT or p90 > SPREAD_LIMIT * median or clock < CLOCK_LIMIT,
            load_before=load,
            date=date,
            machine=this_machine(),
        )


def _interval(by_turn: list[list[float]]) -> tuple[float, float]:
    """95% of the median, turns drawn again with replacement; the extremes where there is one turn only."""
    if len(by_turn) == 1:
        return min(by_turn[0]), max(by_turn[0])
    drawn = np.random.default_rng(0).integers(0, len(by_turn), (RESAMPLES, len(by_turn)))
    medians = [np.median(np.concatenate([by_turn[turn] for turn in turns])) for turns in drawn]
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def _call(session: Session[Any], image: np.ndarray) -> Callable[[], object]:
    return lambda: session(image)


def _switches() -> int:
    """Involuntary context switches of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


def _warm_up(call: Callable[[], object], until: float) -> None:
    """Call in blocks until a block's best is no longer 2% better than the best before, or the clock says ``until``."""
    best = inf
    while True:
        calls = Turns([], [], [], [])
        for _ in range(BLOCK):
            calls.add(call)
        if min(calls.ms) > 0.98 * best or time.perf_counter() > until:
            return
        best = min(calls.ms)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
