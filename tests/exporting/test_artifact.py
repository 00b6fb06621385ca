import json
import re

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from pocketvision.errors import ExportError
from pocketvision.exporting.artifact import CONTRACT, SEAL, UNSEALED, Artifact, finish, rename, sealed
from pocketvision.exporting.contract import contract_of, contract_path


def test_file_gives_back_everything(artifact, model):
    loaded = Artifact.load(str(artifact.path))
    assert loaded == artifact
    assert (loaded.spec, loaded.labels) == (model.spec, ("cat", "dog, wet", "Größe 3"))
    assert (loaded.format, loaded.precision, loaded.image_shape) == ("onnx", "float32", (32, 32, 3))
    assert (loaded.input.dtype, loaded.input.layout, loaded.input.shape) == ("uint8", "NHWC", (None, 32, 32, 3))
    assert loaded.outputs[0].shape == (None, 3)
    assert loaded.size_mb == len(artifact.path.read_bytes()) / 1e6


def test_metadata_is_readable_without_this_package(artifact):
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["labels"].split("\n") == ["cat", "dog, wet", "Größe 3"]
    assert metadata["mean"] == "0.485, 0.456, 0.406"
    assert metadata["std"] == "0.229, 0.224, 0.225"
    assert metadata["input"].startswith("uint8 [N, 32, 32, 3], RGB, 0 to 255: resize the short side to 36 pixels")


@pytest.mark.parametrize("part", [0, 1, 0.01, 0.5, 0.99, "all but one byte"])
def test_truncated_file(artifact, tmp_path, part):
    content, path = artifact.path.read_bytes(), tmp_path / "cut.onnx"
    path.write_bytes(content[: -1 if isinstance(part, str) else int(len(content) * part) if part != 1 else 1])
    with pytest.raises(ExportError, match=re.escape(str(path))):
        Artifact.load(path)


def test_any_changed_byte_shows(artifact, tmp_path):
    content, path = artifact.path.read_bytes(), tmp_path / "flipped.onnx"
    for position in range(0, len(content), len(content) // 60):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(ExportError, match=re.escape(str(path))):
            Artifact.load(path)


def foreign_onnx() -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    return helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("foreign.onnx", foreign_onnx().SerializeToString(), "was not exported by pocketvision"),
        ("text.onnx", b"hello, this is no model", "is damaged, or no ONNX file"),
        ("model.pt", b"", "known file types: .onnx"),
        ("absent.onnx", None, "No such file"),
    ],
)
def test_other_files(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=re.escape(message)) as caught:
        Artifact.load(path)
    assert str(path) in str(caught.value)


def test_folder_instead_of_a_file(tmp_path):
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    with pytest.raises(ExportError, match=re.escape(str(folder))):
        Artifact.load(folder)


@pytest.mark.parametrize("contract", ["[]", "{", '{"precision": "float32"}', None])
def test_description_of_another_version(artifact, tmp_path, contract):
    """Whole files whose description this version cannot read: other keys, another kind of block, no JSON."""
    proto, path = onnx.load(artifact.path), tmp_path / "future.onnx"
    for entry in proto.metadata_props:
        if entry.key == CONTRACT:
            written = json.loads(entry.value)
            written["spec"]["backbone"]["rows"][0]["kind"] = "FutureBlock"
            entry.value = contract or json.dumps(written)
        elif entry.key == SEAL:
            entry.value = UNSEALED
    path.write_bytes(sealed(proto.SerializeToString()))
    with pytest.raises(ExportError, match="another version of pocketvision") as caught:
        Artifact.load(path)
    assert str(path) in str(caught.value)


def test_a_file_and_its_contract_may_have_another_name(model, tmp_path):
    """As an app's assets have: the contract names the files that lay beside it when it was written."""
    path = finish_by_hand(model, tmp_path / "best.pte")
    for file in (path, contract_path(path)):
        file.rename(tmp_path / file.name.replace("best", "app"))
    assert Artifact.load(tmp_path / "app.pte").labels == model.spec.labels
    (tmp_path / "app.pte").write_bytes(b"another")
    with pytest.raises(ExportError, match="is damaged, or not the one of"):
        Artifact.load(tmp_path / "app.pte")


def finish_by_hand(model, path):
    path.write_bytes(b"a network")
    return finish(path, contract_of(model.spec, "scores", "float32")).path


def test_a_folder_is_never_replaced_by_a_file(model, tmp_path):
    path, folder = finish_by_hand(model, tmp_path / "a.pte"), tmp_path / "b.pte"
    folder.mkdir()
    (folder / "kept").touch()
    with pytest.raises(ExportError, match="choose another place"):
        rename(path, folder)
    assert (folder / "kept").exists()
