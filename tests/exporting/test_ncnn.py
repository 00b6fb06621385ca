"""What only ncnn's files have; what they compute stands in test_mobile.py."""

import json

import numpy as np
import pytest

from pocketvision.errors import ConfigurationError, ExportError
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.contract import contract_path
from pocketvision.exporting.targets import file_name
from pocketvision.measuring.runtimes import open_segmenter

pytest.importorskip("pnnx")
from pocketvision.exporting import ncnn as exporter


def test_file_and_contract(segmenter, tmp_path):
    """A segmenter gives logits; the input is what Mat::from_pixels makes."""
    artifact = exporter.export(segmenter, out=tmp_path / file_name("best", "ncnn", "float32"))
    assert [file.name for file in artifact.files] == ["best.ncnn.param", "best.ncnn.bin"]
    assert (artifact.form, artifact.input.dtype, artifact.input.layout) == ("logits", "float32", "CHW")
    contract = json.loads(contract_path(artifact.path).read_text())
    assert contract["preprocessing"]["steps"][-1]["by"] == "model"
    words = [line.split()[:2] for line in artifact.path.read_text().splitlines()[2:]]
    assert words[0] == ["Input", "image"] and all(len(word) == 2 for word in words)
    size = segmenter.spec.preprocessing.size
    photos = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    classes = open_segmenter(artifact)(photos)
    assert classes.shape == (2, size, size) and len(np.unique(classes)) > 1
    _, whole = (file.read_bytes() for file in artifact.files)
    param, half = exporter.convert(segmenter, "logits", "float16")
    assert len(half) < 0.6 * len(whole)
    with pytest.raises(ExportError, match="ncnn cannot load the file"):
        exporter.open_file(param, half[:100])
    artifact.files[1].write_bytes(half)
    with pytest.raises(ExportError, match=r"best\.ncnn\.bin is damaged"):
        Artifact.load(artifact.path)


def test_what_it_cannot_do(model, segmenter, detector, tmp_path):
    out = tmp_path / "best.param"
    with pytest.raises(ConfigurationError, match=r"must end in \.param"):
        exporter.export(model, out=tmp_path / "best.bin")
    with pytest.raises(ConfigurationError, match="ncnn has no precision 'int8'"):
        exporter.export(model, precision="int8", calibration=np.zeros((1, 32, 32, 3), np.uint8), out=out)
    with pytest.raises(ConfigurationError, match="cannot hold the choice of each pixel's class: export form 'logits'"):
        exporter.export(segmenter, form="classes", out=out)
    with pytest.raises(ConfigurationError, match="cannot hold the selection of boxes: export form 'dense' or 'raw'"):
        exporter.export(detector, form="nms", out=out)
    assert not list(tmp_path.iterdir())
