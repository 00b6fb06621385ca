"""A small network with every operator that int8 treats in its own way, trained a little, and pictures for it."""

import numpy as np
import pytest
import torch
from torch import nn

from pocketvision.nn.model import Model, build
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import Conv, InvertedResidual, SqueezeExcite

ROWS = (
    Conv(8, stride=2, act="hard_swish"),
    InvertedResidual(8, kernel=5, expand=16, act="relu", se=SqueezeExcite()),
    InvertedResidual(16, stride=2, expand=24, act="relu6"),
    InvertedResidual(16, kernel=5, expand=32, act="hard_swish", se=SqueezeExcite()),
)


def spec(**settings) -> ModelSpec:
    backbone = BackboneSpec("tiny", ROWS, bn_eps=1e-3, bn_momentum=0.01, **settings)
    head = ClassifierHead(3, hidden=8, dropout=0.2)
    return ModelSpec(backbone, head, Preprocessing(size=32, resize=36), labels=("ant", "bee", "cow"))


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    model = build(spec(padding="same"))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    for _ in range(4):
        model(torch.randn(8, 3, 32, 32))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.01
    return model.eval()


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """uint8 [16, 32, 32, 3]: blobs, because noise is alike everywhere."""
    coarse = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)
