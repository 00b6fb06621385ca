"""A network and a data set that train in well under a second."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pocketvision.data.sources import Dataset, open_dataset
from pocketvision.data.transforms import Augment
from pocketvision.nn.model import Model, build
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import Conv, InvertedResidual, SqueezeExcite
from pocketvision.tasks.classification import Classification
from pocketvision.training.events import Event
from pocketvision.training.loop import fit
from pocketvision.training.recipe import Recipe

ROWS = (
    Conv(8, stride=2),
    InvertedResidual(8, expand=16, se=SqueezeExcite()),
    InvertedResidual(16, stride=2, expand=24),
    Conv(32, kernel=1),
)
SPEC = ModelSpec(
    BackboneSpec("tiny", ROWS), ClassifierHead(10), Preprocessing(16, 16), tuple(str(digit) for digit in range(10))
)
RECIPE = Recipe(
    epochs=3,
    batch=16,
    lr=0.05,
    ema=0.9,
    device="cpu",
    save_every_s=1000,
    augment=Augment(scale=(0.5, 1.0), flip=0, jitter=0.2),
)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return build(SPEC)


@pytest.fixture(scope="session")
def data() -> Dataset:
    digits = open_dataset("sample:digits")
    return replace(digits, train=digits.train[:72], val=digits.val[:40])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (folder := tmp_path / "run").mkdir()
    return folder


@pytest.fixture
def started(model: Model, data: Dataset, run: Path) -> Callable[..., Iterator[Event]]:
    """A training with some fields of RECIPE changed."""

    def start(**changes: object) -> Iterator[Event]:
        return fit(model, Classification(), data, replace(RECIPE, **changes), run)  # type: ignore[arg-type]

    return start
