"""Networks whose scores differ between photos, and the photos."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvision.data.image import read_image
from pocketvision.data.transforms import prepare
from pocketvision.exporting import onnx
from pocketvision.exporting.artifact import Artifact
from pocketvision.nn.layers import Normalize
from pocketvision.nn.model import Model, build
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import Conv, InvertedResidual

SIZE = 64


@pytest.fixture(scope="session")
def photos(shared: Path) -> np.ndarray:
    """uint8 [20, 64, 64, 3]"""
    files = sorted((shared / "data/imagenet_sample200/images").glob("*.jpg"))[::10]
    assert len(files) == 20
    return np.stack([prepare(read_image(file), Preprocessing(SIZE, SIZE)) for file in files])


@pytest.fixture(scope="session")
def make_model(photos) -> Callable[[ModelSpec], Model]:
    """Random weights with the running statistics of photos and a classifier that spreads its scores."""

    def make(spec: ModelSpec) -> Model:
        torch.manual_seed(0)
        model = build(spec)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the average of all batches
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 3 * module.in_features**-0.5)
        with torch.no_grad():
            model(Normalize(spec.preprocessing)(torch.from_numpy(photos).permute(0, 3, 1, 2)))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def model(make_model) -> Model:
    rows = (Conv(8, stride=4), InvertedResidual(8, expand=16), Conv(16, kernel=1, act="hard_swish"))
    return make_model(ModelSpec(BackboneSpec("tiny", rows), ClassifierHead(5), Preprocessing(SIZE, SIZE)))


@pytest.fixture(scope="session")
def exported(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return onnx.export(model, out=tmp_path_factory.mktemp("measure") / "tiny.onnx")


@pytest.fixture
def artifact(exported: Artifact, tmp_path: Path) -> Artifact:
    """A copy that a test may spoil."""
    path = tmp_path / "tiny.onnx"
    path.write_bytes(exported.path.read_bytes())
    return Artifact.load(path)
