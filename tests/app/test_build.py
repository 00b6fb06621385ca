"""``build`` from data and budget to a verified file and its report."""

import json
from pathlib import Path

import pytest

from .conftest import ROWS, call
from .test_commands import answer, documented, failure


@pytest.fixture(scope="module")
def built(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    project = tmp_path_factory.mktemp("build")
    options = ("--model", ROWS, "--weights", "none", "--imgsz", 32, "--epochs", 12, "--batch", 16)
    return answer("build", digits, "--max-ms", 50, "--max-mb", 1, *options, "--project", project)


def test_build_meets_its_budget(built: dict):
    assert set(built) == documented("build")
    assert built["met"] is True
    assert built["broken"] == []
    assert (built["task"], built["metric"]) == ("classification", "top1")
    assert built["value"] > 0.8
    assert 0 < built["latency_ms"] <= 50
    assert Path(built["artifact"]).stat().st_size == pytest.approx(built["size_mb"] * 1e6, rel=0.01)


def test_what_build_reports_is_what_the_file_does(built: dict, digits: Path):
    again = answer("evaluate", built["artifact"], digits)
    assert again["value"] == pytest.approx(built["value"])


def test_the_report_is_complete(built: dict):
    page = Path(built["report"]).read_text()
    for said in ("digit 1", "tiny at 32 px", "pocketvision build", "onnxruntime", "96 train", "image/png"):
        assert said in page, said
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (Path(built["report"]).with_name("model_card.md")).read_text().startswith("---\n")


def test_an_impossible_budget_is_refused_before_training(digits: Path, tmp_path: Path):
    options = ("--model", ROWS, "--weights", "none", "--imgsz", 32, "--project", tmp_path)
    message = failure("build", digits, "--max-ms", 0.0001, *options, code=2)
    assert "nearest: tiny at 32 px" in message or "nearest: " in message
    assert not list(tmp_path.iterdir())


def test_networks_without_weights_are_left_out(digits: Path, tmp_path: Path):
    """Offline, with an empty folder of weights: a clear error that says what to do."""
    (tmp_path / "weights").mkdir()
    done = call(
        "build",
        digits,
        "--weights",
        "imagenet",
        "--model",
        "mobilenet_v2",
        "--json",
        POCKETVISION_WEIGHTS=str(tmp_path / "weights"),
        POCKETVISION_CACHE=str(tmp_path / "cache"),
        https_proxy="http://127.0.0.1:9",  # nobody listens: offline for certain
    )
    assert done.returncode == 1
    assert "POCKETVISION_WEIGHTS" in json.loads(done.stdout)["error"]


@pytest.mark.slow
def test_build_from_real_weights(shared: Path, tmp_path: Path):
    """A hundred real photos, the shared ImageNet weights: the choice names its candidates and what it left out."""
    photos = tmp_path / "photos"
    for name in ("hat", "shoes"):
        for path in sorted((shared / "data/clothing10/train" / name).iterdir())[:30]:
            target = photos / name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    result = answer(
        "build",
        photos,
        "--max-ms",
        40,
        "--imgsz",
        64,
        "--weights",
        "imagenet",
        "--epochs",
        2,
        "--project",
        tmp_path / "runs",
        POCKETVISION_WEIGHTS=str(shared / "data/weights"),
        POCKETVISION_CACHE=str(tmp_path / "cache"),
        https_proxy="http://127.0.0.1:9",
    )
    assert result["value"] > 0.8
    page = Path(result["report"]).read_text()
    assert "mobilenet_v1" in page
    assert "offline" in page
