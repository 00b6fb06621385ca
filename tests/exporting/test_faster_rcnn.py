"""Faster R-CNN as one ONNX graph finds what torch finds."""

import copy
from dataclasses import replace

import numpy as np
import onnx as onnx_format
import pytest
import torch

from pocketvision.errors import ConfigurationError
from pocketvision.exporting import onnx
from pocketvision.measuring.box_parity import compare_boxes
from pocketvision.measuring.parity import model_found
from pocketvision.measuring.runtimes import open_detector
from pocketvision.nn.model import Model, build
from pocketvision.spec.heads import FasterRCNNHead, Selection, Tap
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import Conv

SIZE = 128


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


@pytest.fixture(scope="module")
def model() -> Model:
    """Maps of two strides, so that regions are shared out between them."""
    torch.manual_seed(0)
    rows = (Conv(8, stride=4), Conv(16, stride=2), Conv(24, stride=2))
    head = FasterRCNNHead(
        3,
        (Tap(1), Tap(2)),
        channels=8,
        sizes=(16, 48, 96),
        hidden=16,
        region=3,
        proposals=Selection(min_score=0.5, iou=0.7, candidates=60, most=50),
    )
    model = build(ModelSpec(BackboneSpec("tiny", rows), head, Preprocessing(SIZE, SIZE, fit="stretch")))
    for layer, spread in ((model.head.proposals.objectness, 0.5), (model.head.regions.logits, 1.0)):
        torch.nn.init.normal_(layer.weight, std=spread)
    for layer, spread in ((model.head.proposals.codes, 0.1), (model.head.regions.codes, 1.0)):
        torch.nn.init.normal_(layer.weight, std=spread)
    return model.eval()


def test_finds_what_the_model_finds(model, images, tmp_path):
    artifact = onnx.export(model, out=tmp_path / "model.onnx")
    assert (artifact.form, artifact.input.shape) == ("nms", (1, SIZE, SIZE, 3))
    expected, session = model_found(model, images), open_detector(artifact)
    result = compare_boxes(expected, session(images), model.spec.head.selection)
    assert result.holds and result.boxes > 50 and result.ties < 0.05 * result.boxes
    assert set(np.concatenate([found.labels for found in expected]).tolist()) == {0, 1, 2}
    areas = np.concatenate([np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1) for found in expected])
    assert areas.min() < 32**2 < 80**2 < areas.max()
    kinds = [node.op_type for node in onnx_format.load(artifact.path).graph.node]
    assert (kinds.count("NonMaxSuppression"), kinds.count("RoiAlign")) == (2, 2)


def test_an_image_without_proposals(model, images, tmp_path):
    quiet = copy.deepcopy(model)
    with torch.no_grad():
        quiet.head.proposals.objectness.bias -= 100
    found = open_detector(onnx.export(quiet, out=tmp_path / "model.onnx"))(images[:1])[0]
    assert found.boxes.shape == (0, 4) and len(found.scores) == len(found.labels) == 0


def test_what_cannot_be_exported_says_why(model, tmp_path):
    with pytest.raises(ConfigurationError, match="valid: nms"):
        onnx.export(model, form="raw", out=tmp_path / "model.onnx")
    narrow = copy.deepcopy(model)
    head = replace(model.spec.head, selection=Selection(candidates=10))
    narrow.spec = replace(model.spec, head=head)
    with pytest.raises(ConfigurationError, match="nearest valid: 50"):
        onnx.export(narrow, out=tmp_path / "model.onnx")
