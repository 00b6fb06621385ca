"""Telling two latencies apart, and not telling apart what is the same."""

import json

import numpy as np
import pytest

from pocketvision.errors import ConfigurationError
from pocketvision.measuring.latency import Turns
from pocketvision.measuring.paired import LEVEL, compare, compare_calls


def turns(rng: np.random.Generator, slow: np.ndarray, factor: float = 1.0) -> Turns:
    """Five calls in each turn, all as slow as the machine was in that turn."""
    found = Turns([], [], [], [])
    for turn, speed in enumerate(slow):
        for _ in range(5):
            found.ms.append(float(factor * speed * rng.lognormal(0, 0.02)))
            found.switches.append(0)
            found.turn.append(turn)
    return found


def machine(rng: np.random.Generator, count: int = 20) -> np.ndarray:
    """A machine whose speed wanders by half."""
    return 1 + 0.5 * np.abs(np.cumsum(rng.normal(0, 0.2, count)))


def test_the_same_is_told_apart_no_more_often_than_said():
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(400):
        slow = machine(rng)
        alarms += compare("a", turns(rng, slow), "b", turns(rng, slow)).significant
    assert alarms / 400 < LEVEL + 0.033  # three standard errors


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_three_percent_are_seen_where_the_machine_wanders_by_half(factor: float):
    rng = np.random.default_rng(2)
    slow = machine(rng)
    found = compare("a", turns(rng, slow), "b", turns(rng, slow, factor))
    assert found.significant and found.ratio == pytest.approx(factor, abs=0.015)
    assert found.interval[0] < factor < found.interval[1]
    assert ("slower" if factor > 1 else "faster") in str(found)
    assert json.loads(json.dumps(found.to_dict()))["significant"] is True


def test_says_that_there_is_no_difference():
    rng = np.random.default_rng(3)
    slow = machine(rng)
    same = turns(rng, slow)
    assert "no significant difference between a and b" in str(compare("a", same, "b", same))


def test_real_calls():
    found = compare_calls(("light", lambda: sum(range(2000))), ("heavy", lambda: sum(range(8000))), n=40)
    assert found.significant and 2 < found.ratio < 8
    with pytest.raises(ConfigurationError, match="measure 30 calls or more"):
        compare_calls(("a", lambda: None), ("b", lambda: None), n=10)
