"""Parity of segmenters, and their sessions."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from pocketvision.errors import ConfigurationError, ExportError
from pocketvision.exporting import onnx
from pocketvision.measuring.latency import measure_sessions
from pocketvision.measuring.mask_parity import MaskParity, compare_masks
from pocketvision.measuring.parity import check_parity, parity
from pocketvision.measuring.runtimes import (
    open_any_model,
    open_artifact,
    open_detector,
    open_file,
    open_model,
    open_model_segmenter,
    open_segmenter,
)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    return coarse.repeat(16, 1).repeat(16, 2)


def test_counted_by_hand():
    """Two classes in four pixels: one tie, which does not count, and one of the three others differs."""
    logits = np.array([[[2.0, 0.0], [1.0, 5.0]], [[0.0, 3.0], [1.0005, 1.0]]])
    seen = np.array([[0, 0], [0, 0]], np.uint8)
    result = compare_masks([(logits, seen)])
    assert result == MaskParity(1, 3, pytest.approx(2 / 3), 0.25, None)
    assert not result.holds
    assert "66.6667% of 3 pixels (25.00% of all are ties" in str(result)
    both = compare_masks([(logits, logits + 0.01), (logits, logits)])
    assert both.holds is False
    assert both.max_error == pytest.approx(0.002)
    assert compare_masks([(logits, logits)]).holds


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_never_agrees(value):
    logits = np.zeros((2, 4, 4))
    logits[0] = 1
    logits[1, 0] = value
    assert not compare_masks([(logits, logits.argmax(0).astype(np.uint8))]).holds


def test_one_class_has_no_ties():
    assert compare_masks([(np.zeros((1, 2, 2)), np.zeros((2, 2), np.uint8))]) == MaskParity(1, 4, 1.0, 0.0, None)


@pytest.mark.parametrize("form", ["classes", "logits"])
def test_file_and_model_agree(segmenter, segmenter_file, images, tmp_path, form):
    artifact = segmenter_file if form == "classes" else onnx.export(segmenter, form="logits", out=tmp_path / "l.onnx")
    result = parity(artifact, segmenter, images)
    assert isinstance(result, MaskParity)
    assert result.holds and result.n == 3 and result.compared > 0.99 * images[..., 0].size
    assert (result.max_error is not None) == (form == "logits")
    np.testing.assert_array_equal(open_segmenter(artifact)(images), open_segmenter(segmenter_file)(images))


def test_another_models_file_is_put_aside(segmenter, images, tmp_path):
    artifact, other = onnx.export(segmenter, out=tmp_path / "model.onnx"), deepcopy(segmenter)
    with torch.no_grad():
        last = [module for module in other.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        last.weight.mul_(-1)
    said = r"the class agrees in .*; limits: 99.9% of the pixels\. The file is kept as .*model.failed.onnx"
    with pytest.raises(ExportError, match=said):
        check_parity(artifact, other, images)
    assert (tmp_path / "model.failed.onnx").is_file() and not artifact.path.exists()


def test_sessions_in_torch_and_onnxruntime(segmenter, segmenter_file, images):
    ours, theirs = open_model_segmenter(segmenter)(images), open_segmenter(segmenter_file)(images)
    assert ours.shape == theirs.shape == (3, 96, 96)
    assert ours.dtype == theirs.dtype == np.uint8
    assert (ours == theirs).mean() > 0.999
    latencies = measure_sessions({"file": open_file(segmenter_file), "torch": open_any_model(segmenter)}, n=5)
    assert all(latency.median_ms > 0 for latency in latencies.values())


def test_each_task_has_its_own_sessions(segmenter, segmenter_file, detector_file):
    with pytest.raises(ConfigurationError, match=r"tiny.onnx is a segmenter; a classifier is needed here"):
        open_artifact(segmenter_file)
    with pytest.raises(ConfigurationError, match="is a segmenter; a detector is needed here"):
        open_detector(segmenter_file)
    with pytest.raises(ConfigurationError, match="is a detector; a segmenter is needed here"):
        open_segmenter(detector_file)
    with pytest.raises(ConfigurationError, match="this tiny is a segmenter; a classifier is needed here"):
        open_model(segmenter)
