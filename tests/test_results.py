"""docs/results.md is what its script writes, verdicts need their intervals, claims compare rungs that exist."""

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """A function that imports one of the benchmarks' files."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    imported = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - imported:
        if name in {path.stem for path in (ROOT / "benchmarks").glob("*.py")}:
            del sys.modules[name]


def test_the_page_is_what_the_script_writes(script):
    assert (ROOT / "docs" / "results.md").read_text() == script("results_page").page()


def test_the_page_says_what_was_not_run(script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    page = script("results_page")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    assert page.page().lower().count("not run") == 4


def test_interval_is_students_t(script):
    found = script("ladder").interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # the 97.5th percentile for 2 degrees of freedom; the deviation is 1
    assert found == {"n": 3, "mean": 2.0, "low": pytest.approx(2 - half), "high": pytest.approx(2 + half)}
    assert script("ladder").interval([1.0])["low"] is None


@pytest.mark.parametrize(
    ("low", "high", "claimed", "expected"),
    [
        (0.1, 2.0, 1.0, "held"),
        (-2.0, -0.1, -1.0, "held"),
        (-2.0, -0.1, 1.0, "did not hold"),
        (0.1, 2.0, -1.0, "did not hold"),
        (-0.1, 2.0, 1.0, "undecided"),
        (0.0, 2.0, 1.0, "undecided"),
        (0.1, 2.0, None, "they differ"),
        (None, None, 1.0, "undecided"),
    ],
)
def test_verdict(script, low: float | None, high: float | None, claimed: float | None, expected: str):
    assert script("ladder").verdict({"low": low, "high": high}, claimed) == expected


def test_claims_compare_rungs_that_exist_and_differ(script):
    rungs = script("ladder_rungs")
    for scale in rungs.SCALES.values():
        for data, size in scale.items():
            known = {rung.name: rung for rung in rungs.rungs(data, size)}
            assert len(known) == len(rungs.rungs(data, size))
            for claim in rungs.CLAIMS:
                if claim.data == data:
                    new, old = known[claim.rung], known[claim.against]
                    assert (new.recipe, new.network, new.taught) != (old.recipe, old.network, old.taught)


def test_a_network_without_branches_has_the_folded_ones_convolutions(script):
    from pocketvision.spec.cost import cost
    from pocketvision.spec.transform import as_folded

    rungs = script("ladder_rungs")
    plain, k4 = rungs.network("mobileone_mu0 plain"), rungs.network("mobileone_mu0 k=4")
    assert cost(plain).madds == cost(as_folded(k4)).madds < cost(k4).madds


def test_minutes_end_with_the_first_epoch_as_good_as_the_target(script):
    module: ModuleType = script("time_to_accuracy")
    run = {
        "epochs": [{"top1": 0.5, "top1_whole": 0.6}, {"top1": 0.7, "top1_whole": 0.8}, {"top1": 0.7, "top1_whole": 0.9}]
    }
    assert module._reached(run, [60.0, 120.0, 180.0], 0.8, [run]) == 2.0
    assert module._reached(run, [60.0, 120.0, 180.0], 0.95, [run]) is None


def test_seconds_of_a_peer_come_from_its_fastest_round(script):
    seconds = script("time_to_accuracy").seconds_at
    epoch = {"train_s": 10.0, "eval_s": 1.0}
    slow, frozen = {"train_s": 20.0, "eval_s": 1.0}, {"train_s": 5.0, "eval_s": 1.0}
    times = {"rounds": {"timm": [[slow], [epoch]], "fastai": [[frozen, epoch]]}}
    assert seconds("timm", 3, times) == [11.0, 22.0, 33.0]
    assert seconds("fastai", 3, times) == [6.0, 17.0, 28.0]


def test_results_are_json(script):
    for path in (ROOT / "benchmarks" / "results").rglob("*.json"):
        json.loads(path.read_text())
