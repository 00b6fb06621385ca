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
    assert page.page().lower().count("not run") == 30


def test_the_page_has_the_training_speeds(script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    page = script("results_page")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    row = {"model": "m", "system": "ours", "how": "folded", "first": 10.5, "later": 20.25, "to_timm": 2.0}
    training = {"epochs": [row], "machine": {"cores": 2, "cpu": "X"}, "date": "2026-11-20T00:00:00", "load_before": 1.5}
    (tmp_path / "training.json").write_text(json.dumps(training))
    assert "| m | ours | folded | 10.5 | 20.25 | 2.0 |" in page.page()
    assert "2 cores of X, 2026-11-20, load 1.5 before it." in page.page()


def test_interval_is_students_t(script):
    found = script("ladder").interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # the 97.5th percentile for 2 degrees of freedom; the deviation is 1
    assert found == {"n": 3, "mean": 2.0, "low": round(2 - half, 4), "high": round(2 + half, 4)}
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


def test_detectors_have_the_size_that_the_papers_print(script):
    counts = script("detection_counts")
    lines = [counts.counted(row) for row in counts.rows()]
    assert json.loads(counts.RESULTS.read_text())["rows"] == lines
    variants = {"MnasNet, stage outputs", "V3 halved as RF2", "V3 halved, torchvision's anchors"}
    variants |= {"V3-Small halved as RF2"}
    compared = [line for line in lines if "difference_percent" in line and line["row"] not in variants]
    assert len(compared) == 15  # S1: 11, S4: 4
    for line in compared:
        off = line["difference_percent"]
        assert abs(off["params"]) < 1.1, line
        unexplained = abs(line["ours"]["madds_b"] - line["paper"]["madds_b"])
        assert unexplained < 0.012 or line["row"] == "SSDLite", line


def test_segmenters_have_the_size_that_the_papers_print(script):
    counts = script("segmentation_counts")
    lines = [counts.counted(row) for row in counts.rows()]
    assert json.loads(counts.RESULTS.read_text())["rows"] == lines
    assert {line["note"] for line in lines} <= counts.NOTES.keys()
    compared = [line for line in lines if "RF2" not in line["note"] and line["ours"] and line["paper"]["params_m"]]
    assert len(compared) == 17  # S1: 11, S4: 6
    for line in compared:
        here, printed = line["ours"]["params_m"], line["paper"]["params_m"]
        shown = int(100 * here) / 100 if line["note"] == "V2" else round(here + 1e-9, 2)
        assert shown == printed, line
    off = {line["row"]: line["difference_percent"]["madds_as_there"] for line in lines if line["ours"]}
    assert max(map(abs, (value for row, value in off.items() if "OS 8" not in row))) < 12
    assert all(abs(off[row]) < 0.5 for row in off if row.startswith("V2, 320")), off


def test_results_are_json(script):
    for path in (ROOT / "benchmarks" / "results").rglob("*.json"):
        json.loads(path.read_text())


@pytest.mark.parametrize(
    ("minutes", "top1", "expected"),
    [
        ([2.0, 4.0, 3.0], 0.93, ["0.30 of timm's 10.0", "a third): met", "+2.0 points", "not below): met"]),
        ([3.0, 4.0, 5.0], 0.90, ["0.40 of timm's 10.0", "a third): missed", "-1.0 points", "not below): missed"]),
        ([3.0, None, 5.0], 0.90, ["not get there with every seed: missed"]),
    ],
)
def test_targets_of_time_to_accuracy(script, minutes: list[float | None], top1: float, expected: list[str]):
    ours = {"mean_top1": top1, "minutes_whole": 5.0, "minutes_to_target": minutes}
    timm = {"mean_top1": 0.91, "minutes_whole": 10.0, "minutes_to_target": [9.0, 10.0, 10.0]}
    text = script("results_page")._targets({"systems": {"timm": timm, "pocketvision": ours}, "best_peer": "timm"})
    assert all(words in text for words in expected), text
