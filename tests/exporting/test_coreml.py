"""Core ML's packages, as far as they can be read where they do not run: their description and their operators."""

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvision.errors import ConfigurationError
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.contract import Form
from pocketvision.exporting.extras import quiet
from pocketvision.measuring.runtimes import open_artifact

pytest.importorskip("coremltools")
from pocketvision.exporting import coreml

with quiet():
    import coremltools as ct
    from coremltools.models.utils import load_spec
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType


def operators(path: Path):
    (function,) = load_spec(str(path)).mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    return block.operations


def constants(path: Path) -> list[np.ndarray]:
    """Float constants that stand in the program itself, not among the weights."""
    found = [op.attributes["val"].immediateValue.tensor.floats.values for op in operators(path) if op.type == "const"]
    return [np.array(values) for values in found if len(values)]


def test_classifier(model, tmp_path):
    artifact = coreml.export(model, out=tmp_path / "cats.mlpackage")
    description = load_spec(str(artifact.path)).description
    (image,) = description.input
    assert (image.name, image.type.imageType.width, image.type.imageType.height) == ("image", 32, 32)
    assert ct.proto.FeatureTypes_pb2.ImageFeatureType.ColorSpace.Name(image.type.imageType.colorSpace) == "RGB"
    assert [output.name for output in description.output] == ["classLabel", "scores"]
    assert (description.predictedFeatureName, description.predictedProbabilitiesName) == ("classLabel", "scores")
    (classify,) = (op for op in operators(artifact.path) if op.type == "classify")
    (labels,) = (given.arguments[0].value.immediateValue for key, given in classify.inputs.items() if key == "classes")
    assert model.spec.labels == tuple(value.immediateValue.tensor.strings.values[0] for value in labels.list.values)
    made = [output.name for op in operators(artifact.path) for output in op.outputs]
    assert len(made) == len(set(made)) and {"classLabel", "scores"} <= set(made)
    means = 255 * np.array(model.spec.preprocessing.mean)  # what is left of the normalisation
    assert any(values.size == 3 and np.allclose(values, means, rtol=1e-3) for values in constants(artifact.path))
    assert Counter(op.type for op in operators(artifact.path))["conv"] == sum(
        isinstance(module, nn.Conv2d) for module in coreml.Planar(model, "scores").modules()
    )
    assert Artifact.load(artifact.path).sha256 == artifact.sha256
    with pytest.raises(ConfigurationError, match="no runtime on this kind of machine opens"):
        open_artifact(artifact)
    again = coreml.export(model, out=artifact.path)  # onto the folder that is there
    assert again.path.is_dir() and not list(again.path.parent.glob("tmp*"))


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("detector", None, {"boxes": ([1, 294, 4], "FLOAT32"), "scores": ([1, 294, 3], "FLOAT32")}),
        ("segmenter", None, {"classes": ([1, 96, 96], "INT32")}),
        ("segmenter", "logits", {"logits": ([1, 4, 96, 96], "FLOAT32")}),
    ],
)
def test_outputs(request, tmp_path, name: str, form: Form | None, expected):
    artifact = coreml.export(request.getfixturevalue(name), form=form, out=tmp_path / "a.mlpackage")
    found = {
        output.name: (
            list(output.type.multiArrayType.shape),
            ArrayFeatureType.ArrayDataType.Name(output.type.multiArrayType.dataType),
        )
        for output in load_spec(str(artifact.path)).description.output
    }
    assert found == expected
    assert {output.name: output.dtype.upper() for output in artifact.outputs} == {k: v[1] for k, v in expected.items()}


def test_smaller_weights(detector, tmp_path):
    """float16 calculates with 16 bits; int8 does too, with weights of 8."""
    sizes = dict[str, int]()
    for precision in ("float32", "float16", "int8"):
        artifact = coreml.export(detector, precision=precision, out=tmp_path / f"{precision}.mlpackage")
        sizes[precision] = sum(file.stat().st_size for file in artifact.path.rglob("weight.bin"))
        kinds = {op.type for op in operators(artifact.path)}
        assert ("constexpr_affine_dequantize" in kinds) is (precision == "int8")
    assert sizes["int8"] < sizes["float16"] < 0.7 * sizes["float32"]


def test_labels_stay_out_where_there_are_none(model, tmp_path):
    nameless = copy.deepcopy(model)
    nameless.spec = type(model.spec)(model.spec.backbone, model.spec.head, model.spec.preprocessing)
    artifact = coreml.export(nameless, out=tmp_path / "a.mlpackage")
    (scores,) = load_spec(str(artifact.path)).description.output
    assert (scores.name, list(scores.type.multiArrayType.shape)) == ("scores", [1, 3])


def test_what_it_cannot_do(model, detector, tmp_path):
    with pytest.raises(ConfigurationError, match=r"must end in \.mlpackage"):
        coreml.export(model, out=tmp_path / "a.mlmodel")
    images = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(ConfigurationError, match="coreml takes no calibration images"):
        coreml.export(model, precision="int8", calibration=images, out=tmp_path / "a.mlpackage")
    with pytest.raises(ConfigurationError, match="cannot hold the selection of boxes"):
        coreml.export(detector, form="nms", out=tmp_path / "a.mlpackage")


def test_the_frame_takes_planes(model):
    """What is converted says what the network says."""
    from pocketvision.nn.layers import Normalize

    pixels = torch.randint(0, 256, (1, 3, 32, 32)).float()
    with torch.no_grad():
        (actual,) = coreml.Planar(model, "scores")(pixels)
        expected = model(Normalize(model.spec.preprocessing)(pixels)).softmax(1)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
