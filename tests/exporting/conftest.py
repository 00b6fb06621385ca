"""A network that exports in a second, with running statistics and weights that make its scores differ."""

import pytest
import torch
from torch import nn

from pocketvision.exporting import onnx
from pocketvision.exporting.artifact import Artifact
from pocketvision.nn.model import Model, build
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import Conv, InvertedResidual, MobileOneBlock, SqueezeExcite

LABELS = ("cat", "dog, wet", "Größe 3")


@pytest.fixture(scope="session")
def model() -> Model:
    rows = (
        Conv(8, stride=2, act="hard_swish"),
        InvertedResidual(8, kernel=5, expand=16, se=SqueezeExcite()),
        MobileOneBlock(16, stride=2, branches=2),
    )
    spec = ModelSpec(
        BackboneSpec("tiny", rows), ClassifierHead(3, hidden=8), Preprocessing(size=32, resize=36), labels=LABELS
    )
    torch.manual_seed(0)
    model = build(spec)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    for _ in range(20):  # running statistics
        model(torch.randn(8, 3, 32, 32))
    return model.eval()


@pytest.fixture(scope="session")
def artifact(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1000000000")
        return onnx.export(model, out=tmp_path_factory.mktemp("export") / "tiny.onnx")
