"""Detectors as ONNX give what torch gives, in each form, and with any selection."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import onnx as onnx_format
import pytest
import torch
from onnx import helper, parser

from pocketvision.errors import ConfigurationError
from pocketvision.exporting import onnx
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.detector import _SELECTION, add_selection
from pocketvision.measuring.box_parity import compare_boxes
from pocketvision.measuring.parity import model_found
from pocketvision.measuring.runtimes import open_artifact, open_detector, open_model, open_model_detector
from pocketvision.nn.heads.ssd import selected
from pocketvision.spec.heads import Selection
from pocketvision.tasks.coco import Found
from pocketvision.tasks.detection import to_arrays


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    return coarse.repeat(16, 1).repeat(16, 2)


@pytest.fixture(scope="module")
def files(detector, detector_file, tmp_path_factory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("forms")
    others = {form: onnx.export(detector, form=form, out=folder / f"{form}.onnx") for form in ("dense", "raw")}
    return {"nms": detector_file} | others


@pytest.mark.parametrize("form", ["nms", "dense", "raw"])
def test_finds_what_the_model_finds(files, detector, images, form):
    expected = model_found(detector, images)
    assert len({round(found.scores.sum(), 2) for found in expected}) == 3  # images differ
    assert {0, 1, 2} == set(np.concatenate([found.labels for found in expected]).tolist())
    session = open_detector(files[form])
    result = compare_boxes(expected, session(images), detector.spec.head.selection)
    assert result.holds and result.boxes > 100 and result.max_error < 1e-5
    assert result.ties < 0.01 * result.boxes
    alone = session(images[1:2])[0]
    np.testing.assert_allclose(alone.scores, session(images)[1].scores, atol=1e-6)
    assert (np.diff(alone.scores) <= 0).all()
    assert alone.labels.dtype == np.int64


def test_the_model_in_torch_is_a_session_too(detector, images):
    session = open_model_detector(detector)
    result = compare_boxes(model_found(detector, images), session(images), detector.spec.head.selection)
    assert result.holds and result.boxes > 100
    assert session.image_shape == (96, 96, 3)


@pytest.mark.parametrize("form", ["nms", "dense", "raw"])
def test_tensors_are_what_the_contract_says(files, images, form):
    """Boxes and scores are tensors of their own, so that int8 gives them scales of their own."""
    import onnxruntime

    artifact = files[form]
    session = onnxruntime.InferenceSession(artifact.path, providers=["CPUExecutionProvider"])
    batch = images[:1] if form == "nms" else images
    values = session.run(None, {"image": batch})
    told = [output.name for output in session.get_outputs()]
    assert told == [output.name for output in artifact.outputs]
    names = {"nms": ["boxes", "scores", "labels"], "dense": ["boxes", "scores"], "raw": ["logits", "codes"]}
    assert told == names[form]
    for value, output in zip(values, artifact.outputs, strict=True):
        assert value.dtype == np.dtype(output.dtype)
        assert all(expected in (None, actual) for expected, actual in zip(output.shape, value.shape, strict=True))
    assert artifact.input.shape == ((1 if form == "nms" else None), 96, 96, 3)


def test_raw_decodes_by_the_formula_in_its_metadata(files, images):
    """What a reader of the file's own words computes, without this package, is what the dense file says."""
    import onnxruntime

    raw, dense = (
        onnxruntime.InferenceSession(files[form].path, providers=["CPUExecutionProvider"]) for form in ("raw", "dense")
    )
    logits, codes = raw.run(None, {"image": images})
    metadata = raw.get_modelmeta().custom_metadata_map
    anchors = np.array(json.loads(metadata["anchors"]))
    x_scale, w_scale = map(float, re.findall(r"x \+ (\S+) dx w.*w exp\((\S+) dw\)", metadata["output"])[0])
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    centre = centre + x_scale * codes[..., :2] * size
    size = size * np.exp(w_scale * codes[..., 2:])
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 2).clip(0, 96)
    scores = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    assert "softmax" in metadata["output"]
    expected_boxes, expected_scores = dense.run(None, {"image": images})
    np.testing.assert_allclose(boxes, expected_boxes, atol=1e-3)
    np.testing.assert_allclose(scores[..., 1:], expected_scores, atol=1e-5)


def selecting(selection: Selection, anchors: int, classes: int):
    """ONNX Runtime's session of the selection alone."""
    import onnxruntime

    header = f"g (float[1,{anchors},4] b, float[1,{anchors},{classes}] s) => "
    header += f"(float[1,{anchors},4] all_boxes, float[1,{anchors},{classes}] all_scores)"
    dense = parser.parse_graph(header + "{ all_boxes = Identity(b) all_scores = Identity(s) }")
    proto = helper.make_model(dense, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    add_selection(proto, selection)
    onnx_format.checker.check_model(proto, full_check=True)
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("selection", "bias"),
    [
        (Selection(), -3),
        (Selection(candidates=20), -3),  # more above the threshold than are looked at
        (Selection(most=7), -3),
        (Selection(candidates=5, most=500, iou=0.9), 0),
        (Selection(min_score=0.4, iou=0.3), 0),
        (Selection(min_score=0.9), -30),  # nothing
        (Selection(candidates=5000, most=5000), -3),  # more than there are anchors
    ],
    ids=str,
)
def test_selection_is_torchs(selection, bias):
    rng = np.random.default_rng(1)
    scores = 1 / (1 + np.exp(-rng.normal(bias, 2, (200, 4)))).astype(np.float32)
    corner = rng.uniform(0, 80, (200, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (200, 2))], 1).astype(np.float32)
    expected = to_arrays(selected(torch.from_numpy(boxes), torch.from_numpy(scores), selection))
    actual = Found(*selecting(selection, 200, 4).run(None, {"b": boxes[None], "s": scores[None]}))
    assert len(actual.scores) == len(expected.scores)
    assert (len(expected.scores) == 0) is (bias == -30)
    order = [np.lexsort((found.labels, -found.scores.round(6))) for found in (expected, actual)]
    for one, other in zip(expected.at(order[0]), actual.at(order[1]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_one_suppression_and_nothing_left_of_the_exporter(files):
    kinds = [node.op_type for node in onnx_format.load(files["nms"].path).graph.node]
    assert kinds.count("NonMaxSuppression") == 1
    assert "TopK" in kinds and "Loop" not in kinds
    assert "{min_score}" in _SELECTION


def test_forms_of_the_wrong_kind(detector, files, tmp_path):
    with pytest.raises(ConfigurationError, match="did you mean 'dense'"):
        onnx.export(detector, form="denze", out=tmp_path / "x.onnx")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="a classifier is needed"):
        open_artifact(files["nms"])
    with pytest.raises(ConfigurationError, match="a classifier is needed"):
        open_model(detector)


def test_sigmoid_scores(detector, images, tmp_path):
    model = copy.deepcopy(detector)
    model.spec = replace(
        model.spec, head=replace(model.spec.head, scores="sigmoid", selection=Selection(candidates=30))
    )
    model.head.spec = model.spec.head
    artifact = onnx.export(model, out=tmp_path / "sigmoid.onnx")
    result = compare_boxes(model_found(model, images), open_detector(artifact)(images), model.spec.head.selection)
    assert result.holds and result.boxes > 100
