"""Real runs that go wrong, and one that does not: what the command says at their end."""

import random
from pathlib import Path

import pytest
from PIL import Image

from pocketvision.app.remedies import diagnose_run, read_rows
from pocketvision.data.image import read_image
from pocketvision.data.samples import digit_labels
from pocketvision.errors import ConfigurationError

from .conftest import ROWS
from .test_commands import answer


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 scanned digits of 0 to 4, as files, with two columns of labels: right ones and shuffled ones."""
    folder = tmp_path_factory.mktemp("five")
    numbers = [number for number, label in enumerate(digit_labels()) if label < 5][:500]
    right = [f"d{digit_labels()[number]}" for number in numbers]
    wrong = random.Random(0).sample(right, len(right))
    for name, labels in (("right", right), ("wrong", wrong)):
        lines = [f"{number}.png,{label}" for number, label in zip(numbers, labels, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["image,label", *lines]) + "\n")
    for number in numbers:
        Image.fromarray(read_image(f"sample:digits/{number}")).save(folder / f"{number}.png")
    return folder


def trained(data: Path, project: Path, *options: object) -> dict:
    """A run of the tiny network on 32 pixels."""
    fixed = ("--model", ROWS, "--weights", "none", "--imgsz", 32, "--batch", 16, "--project", project)
    return answer("train", data, *fixed, *options)


def test_a_healthy_run_has_no_remedy(five: Path, tmp_path: Path):
    result = trained(five / "right.csv", tmp_path, "--epochs", 16)
    assert read_rows(Path(result["run"]))[-1]["val_top1"] > 0.8
    assert result["remedies"] == []


def test_a_rate_far_too_low(five: Path, tmp_path: Path):
    result = trained(five / "right.csv", tmp_path, "--epochs", 6, "--lr", 1e-7)
    (remedy,) = result["remedies"]
    assert (remedy["kind"], remedy["fix"]) == ("not learning", "--lr 0.05")
    assert [text.partition("=")[0] for text in result["warnings"]] == ["epochs", "lr"]


def test_too_few_epochs(five: Path, tmp_path: Path):
    (remedy,) = trained(five / "right.csv", tmp_path, "--epochs", 3)["remedies"]
    assert remedy["kind"] in ("still improving", "memorising")  # the second: 75 steps, evaluated weights lag behind
    assert remedy["fix"].startswith("--epochs")


def test_shuffled_labels(five: Path, tmp_path: Path):
    (remedy,) = trained(five / "wrong.csv", tmp_path, "--epochs", 8)["remedies"]
    assert remedy["kind"] in ("not learning", "memorising")
    assert "pocketvision data" in remedy["fix"]
    assert "labels" in remedy["cause"]


def test_a_folder_that_is_no_run(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="no run folder"):
        diagnose_run(tmp_path)
