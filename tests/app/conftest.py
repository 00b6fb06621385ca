"""A small data set of real digits as files, and a run trained on it, shared by the tests of the commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pocketvision.data.samples import digit_labels
from pocketvision.data.sources import Dataset, open_dataset

ROWS = Path(__file__).with_name("tiny.json")  # a network of five rows, so that a run takes seconds


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with 40 scanned digits each of 0, 1 and 2, as PNG files."""
    from pocketvision.data.image import read_image

    root = tmp_path_factory.mktemp("data") / "digits"
    labels = digit_labels()
    for digit in (0, 1, 2):
        folder = root / f"digit {digit}"
        folder.mkdir(parents=True)
        numbers = [number for number, label in enumerate(labels) if label == digit][:40]
        for number in numbers:
            Image.fromarray(read_image(f"sample:digits/{number}")).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def dataset(digits: Path) -> Dataset:
    return open_dataset(digits)


def call(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """``pocketvision ARGUMENTS`` in a process of its own, with extra environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "pocketvision", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | environment,
    )


@pytest.fixture(scope="session")
def run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few epochs on ``digits``."""
    from pocketvision import TrainOptions, train

    project = tmp_path_factory.mktemp("runs")
    options = TrainOptions(weights="none", imgsz=32, epochs=12, batch=16, project=project, name="tiny")
    return train(digits, str(ROWS), options).run
