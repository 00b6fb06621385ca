"""What only OpenVINO's files have; what they compute stands in test_mobile.py."""

import copy
import importlib
import re
import sys

import numpy as np
import pytest
import torch

from pocketvision.errors import ConfigurationError, ExportError
from pocketvision.exporting.artifact import Artifact
from pocketvision.measuring.runtimes import open_detector, open_file

openvino = pytest.importorskip("openvino")
from pocketvision.exporting import openvino as exporter  # noqa: E402


def images(model, count: int) -> np.ndarray:
    size = model.spec.preprocessing.size
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_boxes_that_the_file_selects(detector, detector_file, tmp_path, precision):
    photos = images(detector, 8)
    calibration = photos if precision == "int8" else None
    artifact = exporter.export(detector, out=tmp_path / "ants.xml", precision=precision, calibration=calibration)
    assert (artifact.form, artifact.format, artifact.precision) == ("nms", "openvino", precision)
    for expected, actual in zip(
        open_detector(Artifact.load(detector_file.path))(photos), open_detector(artifact)(photos), strict=True
    ):
        assert len(expected.scores) > 3
        if precision == "float32":
            np.testing.assert_array_equal(actual.labels, expected.labels)
            np.testing.assert_allclose(actual.boxes, expected.boxes, atol=1e-3)
            np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-5)
        else:
            assert abs(len(actual.scores) - len(expected.scores)) < 0.5 * len(expected.scores)


def test_int8_takes_bytes_and_gives_float(model):
    """The first convolution reads the image's bytes; nothing but an order of axes stands before it."""
    xml, weights = exporter.convert(model, "scores", "int8", images(model, 4))
    compiled = openvino.Core().compile_model(openvino.Core().read_model(xml, weights), "CPU")
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ordered_ops()]
    precisions = [
        node.get_rt_info()["runtimePrecision"].astype(str) for node in compiled.get_runtime_model().get_ordered_ops()
    ]
    first = kinds.index("Convolution")
    assert precisions[first] in ("u8", "i8")
    assert set(kinds[:first]) <= {"Input", "Const", "Reorder", "Reshape", "Transpose"}
    (image,) = compiled.inputs
    assert (image.get_names(), image.element_type.to_string(), list(image.shape)) == ({"image"}, "u8", [1, 32, 32, 3])
    assert [output.get_names() for output in compiled.outputs] == [{"scores"}]


def test_a_dead_channel_of_huge_weights(model):
    """It leaves the other channels their steps, which nncf makes as large as a hundredth of the largest one's."""
    dead = copy.deepcopy(model)
    block = dead.backbone.rows[1]
    with torch.no_grad():
        block.expand.bn.weight[0], block.expand.bn.bias[0] = 0, -1  # ReLU makes 0 of it
        block.depthwise.conv.weight[0] *= 1000
    graph = openvino.Core().read_model(*exporter.convert(dead, "scores", "int8", images(dead, 4)))
    (weights,) = (
        node.data
        for node in graph.get_ordered_ops()
        if node.get_type_name() == "Constant" and list(node.get_output_shape(0)) == [16, 1, 1, 5, 5]
    )
    assert weights.dtype == np.int8
    np.testing.assert_array_equal(np.abs(weights).max((1, 2, 3, 4)), 127)


def test_files_are_lean(model):
    """No indentation, no names but those of inputs and outputs; weights of 8 bits, and half as much in float16."""
    xml, weights = exporter.convert(model, "scores")
    assert not re.search(rb">\s+<", xml)
    assert re.findall(rb' names="([^"]*)"', xml) == [b"image", b"scores"]
    _, half = exporter.convert(model, "scores", "float16")
    assert len(half) < 0.6 * len(weights)
    _, eighth = exporter.convert(model, "scores", "int8", images(model, 4))
    parameters = sum(parameter.numel() for name, parameter in model.named_parameters() if "branches" not in name)
    assert len(eighth) < 2 * parameters < len(weights)


def test_nothing_is_sent(monkeypatch):
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    with exporter._quiet(), pytest.raises(ModuleNotFoundError):
        importlib.import_module("openvino_telemetry")
    assert "openvino_telemetry" not in sys.modules


def test_wrong_files(model, tmp_path):
    with pytest.raises(ConfigurationError, match=r"must end in \.xml"):
        exporter.export(model, out=tmp_path / "model.onnx")
    artifact = exporter.export(model, out=tmp_path / "model.xml")
    assert artifact.files == (tmp_path / "model.xml", tmp_path / "model.bin")
    (scores,) = open_file(artifact)(images(model, 3))
    assert scores.shape == (3, 3)
    with pytest.raises(ExportError, match="OpenVINO cannot load the file"):
        exporter.open_file(b"<net>", b"")
    artifact.files[1].unlink()
    with pytest.raises(ExportError, match=r"needs .*model\.bin"):
        Artifact.load(artifact.path)
