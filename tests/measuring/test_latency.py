import gc
import json

import pytest

from pocketvision.errors import ConfigurationError
from pocketvision.measuring import latency
from pocketvision.measuring.latency import measure, measure_sessions
from pocketvision.measuring.runtimes import open_artifact, open_model


def work(amount: int):
    return lambda: sum(range(amount))


def test_more_work_takes_longer_whatever_the_neighbours_do():
    result = measure({"heavy": work(100_000), "light": work(5_000)}, n=30)
    heavy, light = result["heavy"], result["light"]
    assert heavy.median_ms > 5 * light.median_ms  # 20 by construction
    for figures in result.values():
        assert 0 < figures.min_ms <= figures.median_ms <= figures.p90_ms


@pytest.mark.usefixtures("undisturbed")
def test_sessions_of_all_runtimes(exported, model):
    sessions = {"file": open_artifact(exported), "model": open_model(model, threads=2)}
    result = measure_sessions(sessions, n=7)
    assert [(name, r.name, r.runtime, r.threads, r.n) for name, r in result.items()] == [
        ("file", "file", "onnxruntime", 1, 7),
        ("model", "model", "torch", 2, 7),
    ]
    written = json.loads(json.dumps(result["file"].to_dict()))
    assert {"runtime", "version", "threads", "min_ms", "median_ms", "p90_ms", "n", "date", "load_before"} <= set(
        written
    )
    assert {"interrupted", "disturbed", "machine"} <= set(written)
    assert {"cpu", "cores", "os", "python"} <= set(written["machine"])
    assert "onnxruntime" in str(result["file"])


def count_calls(names: str):
    """Calls that only write down whose turn it was."""
    turns = list[str]()
    return turns, {name: lambda name=name: turns.append(name) for name in names}


@pytest.fixture
def undisturbed(monkeypatch):
    monkeypatch.setattr(latency, "_switches", lambda: 0)


@pytest.mark.usefixtures("undisturbed")
def test_candidates_take_turns_in_rotating_order(monkeypatch):
    monkeypatch.setattr(latency, "_warm_up", lambda call, until: None)
    turns, candidates = count_calls("ABC")
    result = measure(candidates, n=7)
    # five counted calls a turn, then two, each after one that is not counted
    assert "".join(turns) == "AAAAAABBBBBBCCCCCC" + "BBBCCCAAA"
    assert [r.n for r in result.values()] == [7, 7, 7]


def test_stops_when_the_time_is_over():
    result = measure({"a": work(1000), "b": work(1000)}, n=10**9, seconds=0.05)
    assert result["a"].n >= 5  # one block at least
    assert result["a"].n < 10**6


def test_interrupted_calls_do_not_count(monkeypatch):
    """Every third call is interrupted and takes longer."""
    monkeypatch.setattr(latency, "_warm_up", lambda call, until: None)
    state = {"calls": 0, "switches": 0}

    def call():
        state["calls"] += 1
        if state["calls"] % 3 == 0:
            state["switches"] += 1
            sum(range(200_000))
        else:
            sum(range(1000))

    monkeypatch.setattr(latency, "_switches", lambda: state["switches"])
    result = measure({"a": call}, n=20)["a"]
    plain = measure({"light": work(1000), "heavy": work(200_000)}, n=20)
    assert result.n == 20
    assert result.median_ms < plain["heavy"].min_ms / 2
    assert 0.2 < result.interrupted < 0.45
    assert result.disturbed
    assert "disturbed" in str(result)


def test_when_every_call_is_interrupted_all_count(monkeypatch):
    switches = iter(range(10**6))
    monkeypatch.setattr(latency, "_switches", lambda: next(switches))
    result = measure({"a": work(100)}, n=10)["a"]
    assert (result.n, result.interrupted, result.disturbed) == (40, 1.0, True)


@pytest.mark.usefixtures("undisturbed")
def test_spread_is_a_disturbance():
    amounts = iter([1000, 1000, 1000, 200_000] * 1000)
    assert measure({"a": lambda: sum(range(next(amounts)))}, n=100)["a"].disturbed


def test_warm_up_goes_on_while_calls_get_faster():
    amounts = [400_000, 200_000, 100_000, *[50_000] * 100]
    done = list[int]()

    def call():
        done.append(amounts[len(done) // 5])
        return sum(range(done[-1]))

    latency._warm_up(call, until=float("inf"))
    assert len(done) >= 20  # the fourth block is the last that is faster
    assert len(done) < 100


def test_warm_up_ends_with_its_time():
    done = list[int]()
    latency._warm_up(lambda: done.append(1), until=0)
    assert len(done) == latency.BLOCK


def test_garbage_collection_is_off_and_comes_back():
    seen = list[bool]()
    measure({"a": lambda: seen.append(gc.isenabled())}, n=1)
    assert not any(seen)
    assert gc.isenabled()

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure({"a": fail})
    assert gc.isenabled()


@pytest.mark.parametrize(("candidates", "options"), [({}, {}), ({"a": int}, {"n": 0}), ({"a": int}, {"seconds": 0})])
def test_nothing_to_measure(candidates, options):
    with pytest.raises(ConfigurationError):
        measure(candidates, **options)
