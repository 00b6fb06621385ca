import copy
import logging
import re

import numpy as np
import onnx as onnx_format
import onnxruntime
import pytest
import torch

from pocketvision.errors import ConfigurationError, ExportError
from pocketvision.exporting import onnx
from pocketvision.nn.layers import Normalize

EPOCH = "1000000000"


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def session(artifact) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])


def test_takes_bytes_and_gives_scores(session):
    (image,), (scores,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["N", 32, 32, 3])
    assert (scores.name, scores.type, scores.shape) == ("scores", "tensor(float)", ["N", 3])


def test_scores_are_the_softmax_of_the_unfolded_model(session, model, images):
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model(Normalize(model.spec.preprocessing)(pixels)).softmax(1).numpy()
    (actual,) = session.run(None, {"image": images})
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    np.testing.assert_allclose(actual.sum(1), 1, atol=1e-5)
    assert expected.std(0).min() > 1e-3  # the network tells images apart, so agreement means something


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_gives_the_scores_of_single_images(session, images, batch):
    single = np.concatenate([session.run(None, {"image": image[None]})[0] for image in images[:batch]])
    np.testing.assert_allclose(session.run(None, {"image": images[:batch]})[0], single, atol=1e-6)


def test_same_model_same_bytes(model, artifact, tmp_path, monkeypatch):
    assert artifact.created.date == "2001-09-09"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    assert onnx.export(model, out=tmp_path / "again.onnx").path.read_bytes() == artifact.path.read_bytes()


def test_says_nothing_and_leaves_the_model_and_the_folder_as_they_were(model, tmp_path, capfd, caplog):
    before = copy.deepcopy(model.state_dict())
    onnx.export(model, out=tmp_path / "new" / "model.onnx")
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"model.onnx", "model.onnx.json"}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_file_tells_nothing_of_the_machine_that_made_it(artifact, root):
    content, graph = artifact.path.read_bytes(), onnx_format.load(artifact.path).graph
    assert str(root).encode() not in content
    assert b"stack_trace" not in content
    assert not any(node.metadata_props or node.doc_string for node in graph.node)


def test_graph_is_lean(artifact):
    """Folded, pooled with the operation that runtimes fuse, and nothing left of torch's bookkeeping."""
    kinds = {node.op_type for node in onnx_format.load(artifact.path).graph.node}
    assert "GlobalAveragePool" in kinds
    assert not kinds & {"BatchNormalization", "ReduceMean", "Gather", "Shape", "Identity", "Dropout"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "flot32"}, "onnx has no flot32 export; valid: float32, int8"),
        ({"calibration": [1]}, "leave them out"),
        ({"precision": "int8"}, "int8 needs calibration images"),
        ({"out": "model.onx"}, "nearest valid: model.onnx"),
    ],
)
def test_wrong_options(model, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        onnx.export(model, **({"out": "model.onnx"} | options))
    assert not list(tmp_path.iterdir())


def test_refuses_a_model_in_train_mode(model, tmp_path):
    with pytest.raises(ConfigurationError, match=re.escape("call model.eval()")):
        onnx.export(copy.deepcopy(model).train(), out=tmp_path / "model.onnx")


def test_failed_conversion_keeps_the_old_file(model, tmp_path, monkeypatch):
    class NotExportable(torch.nn.Module):
        def forward(self, features):
            return features[max(features)].mean((1, 2))  # over other axes than height and width

    broken, out = copy.deepcopy(model), tmp_path / "model.onnx"
    broken.head.forward = NotExportable().forward
    out.write_bytes(b"older")
    monkeypatch.setattr(onnx, "fold", lambda model: model)
    with pytest.raises(ExportError, match=re.escape(str(out))):
        onnx.export(broken, out=out)
    assert out.read_bytes() == b"older"


def test_place_that_cannot_be_written(model, artifact, tmp_path, monkeypatch):
    converted = onnx_format.load(artifact.path)
    del converted.metadata_props[:]
    monkeypatch.setattr(onnx, "to_proto", lambda model, form: converted)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ExportError, match=r"cannot write .*file/model\.onnx"):
        onnx.export(model, out=tmp_path / "file" / "model.onnx")
