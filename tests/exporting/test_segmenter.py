"""Segmenters as ONNX give what torch gives, in each form, for any head, size and batch."""

from dataclasses import replace

import numpy as np
import onnx as onnx_format
import onnxruntime
import pytest
import torch

from pocketvision.errors import ConfigurationError
from pocketvision.exporting import onnx
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.contract import Form
from pocketvision.nn.model import Model, build
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec
from pocketvision.spec.rows import Conv
from pocketvision.spec.segmentation import with_deeplabv3, with_fcn, with_raspp

ROWS = (Conv(8, stride=4), Conv(8, stride=2), Conv(12, stride=2))
FORMS: tuple[Form, ...] = ("classes", "logits")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    return coarse.repeat(16, 1).repeat(16, 2)


@pytest.fixture(scope="module")
def files(segmenter, segmenter_file, tmp_path_factory) -> dict[str, Artifact]:
    out = tmp_path_factory.mktemp("forms") / "logits.onnx"
    return {"classes": segmenter_file, "logits": onnx.export(segmenter, form="logits", out=out)}


def run(artifact: Artifact, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": images})
    return np.asarray(output)


@torch.no_grad()
def expected(model: Model, images: np.ndarray) -> np.ndarray:
    """Logits [N, C, S, S] of the model itself."""
    p = model.spec.preprocessing
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (p.mean, p.std))
    return model((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std).logits.numpy()


def test_both_forms_say_what_torch_says(files, segmenter, images):
    logits = expected(segmenter, images)
    assert set(np.unique(logits.argmax(1))) == {0, 1, 2, 3}
    np.testing.assert_allclose(run(files["logits"], images), logits, atol=1e-5)
    classes = run(files["classes"], images)
    assert (classes == logits.argmax(1)).mean() > 0.999
    np.testing.assert_array_equal(classes, run(files["logits"], images).argmax(1))
    np.testing.assert_array_equal(classes[1:2], run(files["classes"], images[1:2]))  # a batch is its images


@pytest.mark.parametrize("form", FORMS)
def test_tensors_are_what_the_contract_says(files, images, form):
    artifact: Artifact = files[form]
    assert (artifact.task, artifact.form) == ("segment", form)
    assert artifact.input.shape == (None, 96, 96, 3)
    (output,), value = artifact.outputs, run(artifact, images)
    assert value.dtype == np.dtype(output.dtype) == {"classes": np.uint8, "logits": np.float32}[form]
    shapes = {"classes": (None, 96, 96), "logits": (None, 4, 96, 96)}
    assert (output.name, output.shape) == (form, shapes[form])
    assert output.shape[1:] == value.shape[1:]
    said = {entry.key: entry.value for entry in onnx_format.load(artifact.path).metadata_props}["output"]
    assert said.startswith(f"{form} [N, ")


def test_the_map_is_turned_while_it_is_small(files):
    """The order that is fast, with nothing of the other left in the graph."""
    graph = onnx_format.load(files["classes"].path).graph
    assert [node.op_type for node in graph.node][-4:] == ["Transpose", "Resize", "ArgMax", "Cast"]
    produced = {name for node in graph.node for name in node.output}
    used = {name for node in graph.node for name in node.input} | {"classes"}
    assert produced <= used
    assert {one.name for one in graph.initializer} <= used


@pytest.mark.parametrize("head", [with_raspp, with_deeplabv3, with_fcn])
def test_every_head_at_a_size_that_no_stride_divides(head, tmp_path):
    torch.manual_seed(0)
    size = 75
    model = build(head(ModelSpec(BackboneSpec("tiny", ROWS), ClassifierHead(4)), 3, size=size))
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8).repeat(15, 1).repeat(15, 2)
    for _ in range(5):  # running statistics
        expected(model, images)
    logits = expected(model.eval(), images)
    last = [
        module for module in model.head.modules() if isinstance(module, torch.nn.Conv2d) and module.bias is not None
    ]
    with torch.no_grad():  # so that no class is the best everywhere
        classes = next(module for module in last if module.out_channels == 3)
        classes.bias -= torch.from_numpy(logits.mean((0, 2, 3)))
    artifact = onnx.export(model, out=tmp_path / "any.onnx")
    classes = expected(model, images).argmax(1)
    assert len(np.unique(classes)) == 3
    assert (run(artifact, images) == classes).mean() > 0.999


def test_forms_that_are_another_tasks(segmenter, tmp_path):
    with pytest.raises(ConfigurationError, match=r"LRASPPHead cannot be exported as 'nms'; valid: classes, logits"):
        onnx.export(segmenter, form="nms", out=tmp_path / "x.onnx")
    spec = replace(segmenter.spec, head=ClassifierHead(4))
    with pytest.raises(ConfigurationError, match="ClassifierHead cannot be exported as 'logits'"):
        onnx.export(build(spec).eval(), form="logits", out=tmp_path / "x.onnx")
