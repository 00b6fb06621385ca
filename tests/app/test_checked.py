"""What is said of a data set before a training."""

import shutil
from pathlib import Path

import pytest

from pocketvision.app.checked import open_checked


def test_what_is_trained_all_the_same_is_no_error(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for split in ("train", "val"):
        shutil.copytree(digits, tmp_path / split)
    picture = next((tmp_path / "train/digit 0").iterdir())
    shutil.copy(picture, tmp_path / "train/digit 1" / "wrong.png")
    _, findings = open_checked(tmp_path, seed=0, allow_leak=True)
    assert {finding.kind for finding in findings if finding.severity == "error"} == {"leak", "contradiction"}
    said = capsys.readouterr().err
    assert "error:" not in said
    assert "\nwarning (--allow-leak): 120 of the val images" in said
    assert "\nwarning: 1 picture occurs with two different labels" in said
