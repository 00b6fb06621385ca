"""LiteRT, ExecuTorch, OpenVINO: what the files compute. One small network of each task; a conversion takes seconds."""

import copy
import importlib
import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from pocketvision.errors import ConfigurationError
from pocketvision.exporting.channels_last import ChannelsLast, middle
from pocketvision.exporting.extras import imported
from pocketvision.nn.fold import fold
from pocketvision.nn.heads.ssd import decode
from pocketvision.nn.layers import Normalize, SqueezeExcitation

RUNTIMES = {"litert": "litert_torch", "executorch": "executorch", "openvino": "openvino", "ncnn": "pnnx"}


def exporter(name: str):
    """The exporter's module, where its packages are."""
    if importlib.util.find_spec(RUNTIMES[name]) is None:
        pytest.skip(f"{RUNTIMES[name]} is not installed")
    return importlib.import_module(f"pocketvision.exporting.{name}")


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest):
    return exporter(request.param)


@pytest.fixture(scope="module", params=sorted({*RUNTIMES} - {"ncnn"}))
def wide(request: pytest.FixtureRequest):
    """One that has int8 and the form "classes" too."""
    return exporter(request.param)


@pytest.fixture(scope="module")
def litert():
    pytest.importorskip("litert_torch")
    return importlib.import_module("pocketvision.exporting.litert")


def opened(runtime, content: bytes | tuple[bytes, ...]):
    return runtime.open_file(*([content] if isinstance(content, bytes) else content))


def pictures(model, count: int = 6) -> np.ndarray:
    """Smooth, so that neighbouring pixels are alike as in photos."""
    size = model.spec.preprocessing.size
    small = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    large = nn.functional.interpolate(small, (size, size), mode="bicubic").clamp(0, 1)
    return (255 * large).permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


@torch.no_grad()
def outputs(model, form: str, images: np.ndarray) -> list[np.ndarray]:
    """What torch says, of the network as it was trained."""
    said = model(Normalize(model.spec.preprocessing)(torch.from_numpy(images).permute(0, 3, 1, 2)))
    match form:
        case "scores":
            return [said.softmax(1).numpy()]
        case "dense":
            return [each.numpy() for each in decode(said)]
        case "raw":
            return [said.logits.numpy(), said.codes.numpy()]
        case "logits":
            return [said.logits.numpy()]
    return [said.logits.argmax(1).to(torch.uint8).numpy()]


def test_the_frame_says_what_the_model_says(model, detector, segmenter):
    for network, form in ((model, "scores"), (detector, "dense"), (detector, "raw"), (segmenter, "classes")):
        images = pictures(network, 1)
        with torch.no_grad():
            framed = ChannelsLast(network, form)(torch.from_numpy(images))
        for expected, actual in zip(outputs(network, form, images), framed.values(), strict=True):
            np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-3, atol=2e-4)


def test_centred_pixels_differ_at_the_border_only(model):
    images, zero = pictures(model, 1), middle(model.spec.preprocessing.mean)
    whole, centred = ChannelsLast(model, "scores"), ChannelsLast(model, "scores", zero)
    rows = whole.rows.reshape(32, 3)
    with torch.no_grad():
        pixels = torch.from_numpy(images).float()
        first = [next(m for m in each.model.modules() if isinstance(m, nn.Conv2d)) for each in (whole, centred)]
        expected = first[0]((pixels - rows).permute(0, 3, 1, 2))[..., 1:-1, 1:-1]
        actual = first[1]((pixels - zero).permute(0, 3, 1, 2))[..., 1:-1, 1:-1]
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_names_what_to_install():
    with pytest.raises(ConfigurationError, match=r"needs nowhere_to_be_found.*pip install \"pocketvision\[x\]"):
        imported("nowhere_to_be_found.inside", "x")


def test_scores(runtime, model):
    images = pictures(model)
    content = runtime.convert(model, "scores")
    (actual,) = opened(runtime, content)(images)
    (expected,) = outputs(model, "scores", images)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert expected.std(0).min() > 1e-3


@pytest.mark.slow
def test_float16_scores(runtime, model):
    images = pictures(model)
    (expected,) = outputs(model, "scores", images)
    content = runtime.convert(model, "scores", "float16")
    (half,) = opened(runtime, content)(images)
    np.testing.assert_allclose(half, expected, atol=0.02)
    assert np.abs(half - expected).max() > 1e-6  # it did round
    pointwise = next(m for m in fold(model).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1))
    weights = pointwise.weight.detach().half().numpy().tobytes()
    assert any(weights in each for each in ([content] if isinstance(content, bytes) else content))


@pytest.mark.slow
def test_boxes_of_every_anchor(runtime, detector):
    images = pictures(detector, 2)
    actual = opened(runtime, runtime.convert(detector, "dense"))(images)
    for one, expected in zip(actual, outputs(detector, "dense", images), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_classes_of_pixels(wide, segmenter):
    images = pictures(segmenter, 2)
    (actual,) = opened(wide, wide.convert(segmenter, "classes"))(images)
    (expected,) = outputs(segmenter, "classes", images)
    assert actual.dtype == np.uint8 and actual.shape == expected.shape
    assert (actual == expected).mean() > 0.999
    assert len(np.unique(expected)) > 1


@pytest.fixture(scope="module")
def switched_off(model):
    """``model`` with a squeeze-and-excite whose weights are all 0, as trainings make them: the steps of its biases, and
    those of what it gives, must not be 0."""
    off = copy.deepcopy(model)
    squeeze = next(module for module in off.modules() if isinstance(module, SqueezeExcitation))
    with torch.no_grad():
        squeeze.reduce.weight.zero_()
        squeeze.reduce.bias.fill_(-1)  # ReLU makes 0 of it
        squeeze.expand.weight[:4] = 0
        squeeze.expand.bias[:4] = 3
        squeeze.expand.bias[4:8] = -4  # what it gives these channels must stay 0
    return off


def test_int8_scores(wide, switched_off):
    images = pictures(switched_off, 16)
    (actual,) = opened(wide, wide.convert(switched_off, "scores", "int8", images))(images)
    (expected,) = outputs(switched_off, "scores", images)
    error = np.mean((actual - expected) ** 2) / expected.var()
    assert 1e-9 < error < 0.01


class Framed(nn.Module):
    """A convolution where the networks are."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 8, 3))

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": self.model(image.permute(0, 3, 1, 2).float())}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # of packages on the way to their first stable version
def test_executorch_small_weights_keep_their_digits(model):
    """XNNPACK's quantiser makes no step below 2**-12: the first weights, which hold the division by 255, were left a
    handful of values."""
    pytest.importorskip("executorch")
    from pocketvision.exporting.executorch_int8 import quantize

    torch.manual_seed(0)
    framed, images = Framed().eval(), pictures(model)
    framed.model[0].weight *= 1e-3
    expected = np.concatenate([framed(torch.from_numpy(one[None]))["scores"].numpy() for one in images])
    rounded = quantize(framed, torch.from_numpy(images[:1]), images)
    actual = np.concatenate([rounded(torch.from_numpy(one[None]))["scores"].numpy() for one in images])
    assert np.mean((actual - expected) ** 2) < 1e-4 * expected.var()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # of packages on the way to their first stable version
def test_executorch_observes_the_weights_of_all_layers(model):
    pytest.importorskip("executorch")
    from pocketvision.exporting.executorch_int8 import _prepared

    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    graph = _prepared(ChannelsLast(model, "scores").eval(), image, 0)
    modules = [type(module).__name__ for module in graph.modules()]
    layers = [node for node in graph.graph.nodes if str(node.target) in ("aten.conv2d.default", "aten.linear.default")]
    assert modules.count("PerChannelMinMaxObserver") == len(layers) > 5


def operators(content: bytes) -> list[str]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    assert (image["name"], image["dtype"], len(image["shape"])) == ("image", np.uint8, 4)
    return [operator["op_name"] for operator in interpreter._get_ops_details()]


def test_litert_files_are_lean(litert, model):
    """Nothing is transposed; in int8 the image's bytes go into the first convolution without becoming float."""
    assert "TRANSPOSE" not in operators(litert.convert(model, "scores"))
    names = operators(litert.convert(model, "scores", "int8", pictures(model)))
    assert names[:5] == ["QUANTIZE", "PAD", "CONV_2D", "DEQUANTIZE", "HARD_SWISH"]
    assert not {"TRANSPOSE", "CAST"} & set(names)


def test_what_a_head_reads_again_does_not_keep_the_whole_network_float(litert, segmenter):
    from pocketvision.exporting import litert_file

    content = litert.convert(segmenter, "logits")
    file = litert_file.read(content)
    graph = file.subgraphs[0]
    made = [operator.outputs[0] for operator, _ in litert_file._convolutions(file)]
    readers = [sum(index in operator.inputs for operator in graph.operators) for index in made]
    tapped = litert_file.name_of(graph, made[readers.index(2)])  # by the next convolution and by the head
    assert 0 < len(litert_file.beginning(content, [tapped], 3)) < len(graph.operators)
    assert len(litert_file.beginning(content, [tapped], len(made))) > 3  # where the head too is near


def test_int8_boxes(litert, detector):
    images = pictures(detector, 4)
    boxes, scores = litert.open_file(litert.convert(detector, "dense", "int8", images))(images)
    expected_boxes, expected_scores = outputs(detector, "dense", images)
    assert np.mean((scores - expected_scores) ** 2) < 0.1 * expected_scores.var()
    assert np.mean((boxes - expected_boxes) ** 2) < 0.1 * expected_boxes.var()


def test_one_pool_of_threads_for_a_process(model):
    pytest.importorskip("executorch")
    from pocketvision.exporting import executorch

    content = executorch.convert(model, "scores")
    executorch.open_file(content, 1)
    with pytest.raises(ConfigurationError, match="ExecuTorch has 1 threads for this whole process, not 2"):
        executorch.open_file(content, 2)
