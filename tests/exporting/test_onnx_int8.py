"""int8 for ONNX Runtime: each rewriting of an operator is exact, and whole networks agree with float."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx as onnx_format
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from pocketvision.errors import ConfigurationError
from pocketvision.exporting import onnx, onnx_bytes, onnx_int8
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.onnx_calibration import Scale
from pocketvision.measuring.runtimes import open_artifact
from pocketvision.nn.model import Model, build
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import Conv, InvertedResidual, SqueezeExcite

SIZE = 32


def smooth(n: int, size: int, seed: int = 0) -> np.ndarray:
    """Images of a few large squares."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, size // 8, size // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


def run(proto: onnx_format.ModelProto, images: np.ndarray, *names: str) -> list[np.ndarray]:
    """Outputs, or the tensors ``names``."""
    copy = onnx_format.ModelProto()
    copy.CopyFrom(proto)
    if names:
        del copy.graph.output[:]
        copy.graph.output.extend(onnx_format.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})


def kinds(proto: onnx_format.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def trained(spec: ModelSpec) -> Model:
    """Random weights, with running statistics of images and logits that spread."""
    torch.manual_seed(0)
    model = build(spec)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=2)
        pixels = torch.from_numpy(smooth(32, spec.preprocessing.size, seed=1)).permute(0, 3, 1, 2) / 128 - 1
        for _ in range(20):
            model(pixels)
    return model.eval()


@pytest.fixture(scope="module")
def networks() -> dict[str, Model]:
    v3 = (
        Conv(16, stride=2, act="hard_swish"),
        InvertedResidual(16, expand=16, se=SqueezeExcite(), act="relu"),
        InvertedResidual(24, kernel=5, stride=2, expand=40, act="hard_swish", se=SqueezeExcite()),
        InvertedResidual(24, kernel=5, expand=72, act="hard_swish"),
        Conv(48, kernel=1, act="hard_swish"),
    )
    v2 = (
        Conv(16, stride=2, act="relu6"),
        InvertedResidual(8, expand=16, act="relu6"),
        InvertedResidual(12, stride=2, expand=24, act="relu6"),
        InvertedResidual(12, expand=36, act="relu6"),
        Conv(32, kernel=1, act="relu6"),
    )
    prepared = Preprocessing(size=SIZE, resize=36)
    same = BackboneSpec("v2", v2, padding="same")
    return {
        "v3": trained(ModelSpec(BackboneSpec("v3", v3), ClassifierHead(5, hidden=20), prepared)),
        "v2": trained(ModelSpec(same, ClassifierHead(5), replace(prepared, mean=(0.5,) * 3, std=(0.5,) * 3))),
    }


@pytest.fixture(scope="module")
def floats(networks, tmp_path_factory) -> dict[str, onnx_format.ModelProto]:
    folder = tmp_path_factory.mktemp("float")
    return {
        name: onnx_format.load(onnx.export(model, out=folder / f"{name}.onnx").path) for name, model in networks.items()
    }


@pytest.mark.parametrize("name", ["v2", "v3"])
@pytest.mark.parametrize("ranges", ["harm", "minmax", "percentile", "mse"])
def test_agrees_with_float(floats, name, ranges):
    images = smooth(24, SIZE, seed=2)
    expected = np.log(run(floats[name], images)[0])
    actual = np.log(run(onnx_int8.quantize(floats[name], smooth(8, SIZE), ranges=ranges), images)[0])
    spread = expected.std(0).mean()
    assert spread > 0.05  # the network tells images apart
    assert np.sqrt(np.mean((actual - expected) ** 2)) < 0.3 * spread


@pytest.mark.parametrize("name", ["v2", "v3"])
def test_everything_between_the_image_and_the_scores_is_bytes(floats, name):
    counted = kinds(onnx_int8.quantize(floats[name], smooth(8, SIZE), ranges="minmax"))
    assert not counted.keys() & {"Conv", "Gemm", "HardSwish", "HardSigmoid", "Transpose", "QuantizeLinear", "Cast"}
    before = kinds(floats[name])
    assert counted["QLinearConv"] == before["Conv"] and counted["QGemm"] == before["Gemm"]
    assert counted["QLinearMul"] == before["HardSwish"] + before["HardSigmoid"]


def one_convolution(activation: str, weight: np.ndarray, bias: np.ndarray) -> onnx_format.ModelProto:
    """image -> (image / 16 - 8) -> 1x1 convolution -> activation."""
    nodes = [
        helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["first"], ["float"], to=1),
        helper.make_node("Mul", ["float", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["normal"]),
        helper.make_node("Conv", ["normal", "weight", "bias"], ["linear"], name="conv", kernel_shape=[1, 1]),
        helper.make_node(activation, ["linear"], ["out"], **({"alpha": 1 / 6} if activation == "HardSigmoid" else {})),
    ]
    constants = {
        "factor": np.full((1, 3, 1, 1), 1 / 16),
        "shift": np.full((1, 3, 1, 1), -8.0),
        "weight": weight.reshape(*weight.shape, 1, 1),
        "bias": bias,
    }
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("image", onnx_format.TensorProto.UINT8, ["N", 16, 16, 3])],
        [helper.make_tensor_value_info("out", onnx_format.TensorProto.FLOAT, ["N", len(weight), 16, 16])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="module")
def every_byte() -> np.ndarray:
    return np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)


@pytest.mark.parametrize("high", [0.5, 3.0, 7.9])
def test_hard_swish_is_that_of_numpy_for_every_byte(every_byte, high):
    proto = one_convolution("HardSwish", np.eye(3) * high / 8, np.zeros(3))
    quantized = onnx_int8.quantize(proto, every_byte, ranges="minmax")
    assert kinds(quantized)["Min"] == (high > 3.0)
    linear, out = run(quantized, every_byte, "linear_q", "out_q")
    multiply = next(node for node in quantized.graph.node if node.op_type == "QLinearMul")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    step, zero, _, _, _, out_step, out_zero = (constants.get(name, np.array(0)) for name in multiply.input[1:])
    x = (linear.astype(np.float64) - float(zero)) * float(step)
    assert len(np.unique(linear)) > 70 and x.min() >= -3.0001 and x.max() > 0.9 * high
    exact = x * np.clip(x / 6 + 0.5, 0, 1) / float(out_step) + float(out_zero)
    assert np.abs(out - exact).max() <= 0.51  # nothing is lost but the rounding of the result
    in_float = run(proto, every_byte)[0].transpose(0, 2, 3, 1)
    read = (out.astype(np.float64) - float(out_zero)) * float(out_step)
    assert np.abs(read - in_float).max() < 0.7 * float(step) * 1.5 + float(out_step)


def test_hard_sigmoid_needs_no_operator(every_byte):
    proto = one_convolution("HardSigmoid", np.eye(3), np.array([0.0, 1.0, -2.0]))
    quantized = onnx_int8.quantize(proto, every_byte)
    assert [node.op_type for node in quantized.graph.node] == ["QLinearConv", "Transpose", "DequantizeLinear"]
    error = run(quantized, every_byte)[0] - run(proto, every_byte)[0]
    assert np.abs(error).max() < 0.52 / 255 and abs(error.mean()) < 0.05 / 255


@pytest.mark.parametrize("name", ["v2", "v3"])
def test_pixels_in_fours_and_filled_channels_change_nothing(floats, name, monkeypatch):
    """The paddings of both networks differ: one pixel around, and TensorFlow's, only behind."""
    images, calibration = smooth(4, SIZE, seed=3), smooth(8, SIZE)
    fast = onnx_int8.quantize(floats[name], calibration, ranges="mse")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in fast.graph.initializer}
    assert "image_in_fours" in {output for node in fast.graph.node for output in node.output}
    depthwise = [shape for key, shape in shapes.items() if key.endswith("_weight") and shape[1:2] == (1,)]
    assert len(depthwise) == 3 and all(shape[0] % onnx_bytes.LANE == 0 for shape in depthwise)
    monkeypatch.setattr(onnx_bytes, "_in_groups", lambda *_: False)
    monkeypatch.setattr(onnx_int8, "LANE", 1)
    plain = onnx_int8.quantize(floats[name], calibration, ranges="mse")
    assert kinds(plain)["Reshape"] == 0
    np.testing.assert_array_equal(run(fast, images)[0], run(plain, images)[0])


def test_bias_correction_takes_the_mean_error_of_rounded_weights_away():
    """Weights that all round down, on inputs that are all above 0."""
    weight = np.full((3, 3), 0.5034)
    weight[:, 0] = 1.0
    proto = one_convolution("Relu", weight, np.full(3, 8.0))
    images = np.random.default_rng(0).integers(130, 256, (4, 16, 16, 3), dtype=np.uint8)

    def mean_error(correct: bool) -> float:
        quantized = onnx_int8.quantize(proto, images, ranges="minmax", correct_bias=correct)
        return float((run(quantized, images)[0] - run(proto, images)[0]).mean())

    assert abs(mean_error(True)) < 0.3 * abs(mean_error(False))


def test_names_to_keep_float_stay(floats):
    names = [node.name for node in floats["v3"].graph.node if node.op_type == "Conv"]
    quantized = onnx_int8.quantize(floats["v3"], smooth(8, SIZE), ranges="minmax", keep_float=names[:2])
    assert [node.name for node in quantized.graph.node if node.op_type == "Conv"] == names[:2]
    images = smooth(8, SIZE, seed=2)
    assert np.abs(run(quantized, images)[0] - run(floats["v3"], images)[0]).max() < 0.1


def test_a_tensor_that_no_range_fits_is_kept_float(floats):
    """One channel a thousand times smaller than the others, on which everything depends."""
    proto = onnx_format.ModelProto()
    proto.CopyFrom(floats["v2"])
    first, second = [node for node in proto.graph.node if node.op_type == "Conv"][:2]
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in first.input[1:]:
            values[1:] *= 1e-3
        elif tensor.name == second.input[1]:
            values[1:] *= 1e3
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    quantized = onnx_int8.quantize(proto, smooth(16, SIZE))
    kept = [node.name for node in quantized.graph.node if node.op_type == "Conv"]
    assert kept[:2] == [first.name, second.name] and len(kept) <= onnx_int8.MOST_FLOAT
    images = smooth(8, SIZE, seed=2)
    assert np.abs(run(quantized, images)[0] - run(proto, images)[0]).max() < 0.1


def test_exported_file_keeps_the_contract(networks, floats, tmp_path):
    artifact = onnx.export(networks["v3"], precision="int8", calibration=smooth(8, SIZE), out=tmp_path / "v3.onnx")
    assert artifact.precision == "int8" and artifact == Artifact.load(artifact.path)
    images = smooth(5, SIZE, seed=2)
    scores = open_artifact(artifact)(images)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    single = np.concatenate([open_artifact(artifact)(image[None]) for image in images])
    np.testing.assert_allclose(scores, single, atol=1e-6)
    again = onnx_int8.quantize(floats["v3"], smooth(8, SIZE)).graph
    assert again == onnx_format.load(artifact.path).graph  # nothing is random


def test_detector_gives_scores_and_boxes_of_their_own_scale(detector, detector_file):
    size = detector.spec.preprocessing.size
    exact = onnx_format.load(detector_file.path)
    quantized = onnx_int8.quantize(exact, smooth(4, size), ranges="mse")
    before, after = kinds(exact), kinds(quantized)
    assert after["QLinearConv"] == before["Conv"] and after["NonMaxSuppression"] == 1
    heads = after["DequantizeLinear"]  # each map's scores and boxes by themselves
    assert heads == 2 * len(detector.spec.head.anchors) and not after["QLinearConcat"]
    image = smooth(1, size, seed=2)
    wanted = run(exact, image, "all_boxes", "all_scores")
    got = run(quantized, image, "all_boxes", "all_scores")
    for expected, actual in zip(wanted, got, strict=True):
        assert np.corrcoef(expected.reshape(-1), actual.reshape(-1))[0, 1] > 0.98
    found, told = len(run(exact, image)[1]), len(run(quantized, image)[1])
    assert told == pytest.approx(found, rel=0.2)


def test_segmenter_gives_the_same_classes(segmenter, segmenter_file):
    size = segmenter.spec.preprocessing.size
    exact = onnx_format.load(segmenter_file.path)
    quantized = onnx_int8.quantize(exact, smooth(4, size), ranges="mse")
    assert kinds(quantized)["QLinearConv"] == kinds(exact)["Conv"]
    images = smooth(3, size, seed=2)
    classes = run(exact, images)[0]
    assert len(np.unique(classes)) > 1
    assert (run(quantized, images)[0] == classes).mean() > 0.95


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 32, 32, 3), np.float32), np.zeros((2, 16, 16, 3), np.uint8), np.zeros((0, 32, 32, 3), np.uint8)],
)
def test_other_images_are_an_error(floats, images):
    with pytest.raises(ConfigurationError, match=re.escape("calibration takes uint8 images [N, 32, 32, 3]")):
        onnx_int8.quantize(floats["v2"], images)


def test_a_scale_before_hard_swish_reaches_from_minus_three_to_its_end():
    for high in (0.01, 1.0, 3.0, 10.0, 200.0):
        scale = Scale.before_hard_swish(high)
        assert -scale.zero * scale.step == pytest.approx(-3)
        assert (255 - scale.zero) * scale.step >= high * 0.999
