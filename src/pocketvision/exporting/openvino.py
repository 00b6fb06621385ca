"""OpenVINO: an .xml file of operators and a .bin file of weights, for Intel's processors and graphics, and others."""

from __future__ import annotations

import io
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import ConfigurationError, ExportError
from ..nn.model import Model
from .artifact import Artifact
from .channels_last import ChannelsLast, export_by, middle
from .contract import OUTPUTS, Form
from .extras import imported, quiet

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = "image"  # the input's name
EXTRA = "openvino"
_SHAPES = re.compile(r"(<port [^>]*)>(?:<dim>-?\d+</dim>)+</port>")  # of what operators read and write


def export(
    model: Model,
    *,
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    form: Form | None = None,
    out: Path | str,
) -> Artifact:
    """Write ``model`` as .xml to ``out`` and its weights as .bin beside it; arguments and errors as ``litert.export``,
    but that detectors have the form "nms" too, which is the default."""
    out = Path(out)
    if out.suffix != ".xml":
        raise ConfigurationError(f"{out} must end in .xml; nearest valid: {out.with_suffix('.xml')}")
    return export_by(convert, model, out, precision, calibration, form)


def convert(
    model: Model, form: Form, precision: str = "float32", calibration: np.ndarray | None = None
) -> tuple[bytes, bytes]:
    """The .xml and the .bin file of ``model`` (eval mode): uint8 ``image`` [1, S, S, 3] -> the outputs of ``form``.

    "float16" rounds the weights; what a device calculates with is its own choice (see ``open_file``). "int8":
    convolutions, linear layers and what stands between them with 8 bits, as nncf does it with ``calibration``, uint8
    [N, S, S, 3]; after the last convolutions everything in float32. Squeeze-and-excite has 8-bit weights only.

    Raises ConfigurationError where openvino (for int8: nncf) is not installed, ExportError when it cannot convert.
    """
    with _quiet():
        ov = imported("openvino", EXTRA)
        try:
            with torch.no_grad():
                graph = _quantized(model, form, calibration) if calibration is not None else _float(model, form)
            _lean(graph, OUTPUTS[form])
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) / "model.xml"
                ov.save_model(graph, place, compress_to_fp16=precision == "float16")
                text = re.sub(r">\s+<", "><", place.read_text(encoding="utf-8"))  # a fifth of it is indentation
                text = _SHAPES.sub(r"\1/>", text)  # a quarter; OpenVINO calculates them when it reads the file
                return text.encode(), place.with_suffix(".bin").read_bytes()
        except (RuntimeError, ValueError, NotImplementedError) as error:
            cause = str(error).strip().partition("\n")[0]
            raise ExportError(f"openvino cannot convert {model.spec.backbone.name}: {cause}") from error


def open_file(xml: bytes, weights: bytes, threads: int = 1) -> Callable[[np.ndarray], list[np.ndarray]]:
    """uint8 images [N, S, S, 3] -> the outputs of a file, in its order; images go through one by one, on the CPU.

    What is not 8 bits is calculated in float32: left alone, OpenVINO takes bfloat16 on processors that have it, which
    is faster and changes outputs by up to 0.1.
    Raises ConfigurationError where openvino is not installed, ExportError for a file that it cannot load.
    """
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    with _quiet():
        core = imported("openvino", EXTRA).Core()
        try:
            request = core.compile_model(core.read_model(xml, weights), "CPU", options).create_infer_request()
        except RuntimeError as error:
            raise ExportError(f"OpenVINO cannot load the file: {error}; export the model again") from None
    places = range(len(request.model_outputs))

    def run(images: np.ndarray) -> list[np.ndarray]:
        answers = list[list[np.ndarray]]()
        for one in images:
            request.infer([one[None]])
            answers.append([request.get_output_tensor(place).data.copy() for place in places])
        return answers[0] if len(answers) == 1 else [np.concatenate(each) for each in zip(*answers, strict=True)]

    return run


def _float(model: Model, form: Form, zero: int | None = None) -> Any:
    """A graph of OpenVINO. ``zero``: see ``ChannelsLast``; boxes that the graph selects come through ONNX."""
    ov, size = imported("openvino", EXTRA), model.spec.preprocessing.size
    if form == "nms":
        from .onnx import to_proto

        return ov.convert_model(io.BytesIO(to_proto(model, form).SerializeToString()))
    image = torch.zeros(1, size, size, 3, dtype=torch.uint8 if zero is None else torch.float32)
    frame = ChannelsLast(model, form, zero, whole_gates=True).eval()
    return ov.convert_model(torch.export.export(frame, (image,)), input=[tuple(image.shape)])


def _quantized(model: Model, form: Form, images: np.ndarray) -> Any:
    nncf = imported("nncf", EXTRA)
    zero = None if form == "nms" else middle(model.spec.preprocessing.mean)
    graph = _float(model, form, zero)
    samples = [image[None] if zero is None else image[None].astype(np.float32) - zero for image in images]
    ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.HISTOGRAM  # least squared error
    with _own_steps():
        graph = nncf.quantize(
            graph,
            nncf.Dataset(samples),
            preset=nncf.QuantizationPreset.MIXED,  # activations that have no negative values need no sign
            subset_size=len(samples),
            fast_bias_correction=False,  # layer by layer: half the error of MobileOne-S0
            ignored_scope=nncf.IgnoredScope(names=_end(graph), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
        )
    # what is left of float weights: squeeze-and-excite, half of the bytes of a MobileNetV3-Small
    graph = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
    return graph if zero is None else _from_bytes(graph, zero)


@contextmanager
def _own_steps() -> Iterator[None]:
    """Each channel's weights have a step of their own. nncf makes none smaller than a hundredth of the largest one's,
    and a folded network may have a channel that never fires and whose weights are huge: with all else as here, that
    costs MobileOne-S0 on clothing10 2 of 341 images, and 23 with nncf's fast correction of biases."""
    module = imported("nncf.quantization.fake_quantize", EXTRA)
    before = module.fix_zero_filters_symmetric
    module.fix_zero_filters_symmetric = lambda highest: before(highest, 0)
    try:
        yield
    finally:
        module.fix_zero_filters_symmetric = before


def _end(graph: Any) -> list[str]:
    """Operators after the last convolutions and linear layers, such as the decoding of boxes."""
    before, end = set[str](), list[str]()
    for node in reversed(graph.get_ordered_ops()):
        weighty = node.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")
        if weighty or node.get_friendly_name() in before:
            before |= {source.get_node().get_friendly_name() for source in node.input_values()}
        elif node.get_type_name() not in ("Parameter", "Constant", "Result"):
            end.append(node.get_friendly_name())
    return end


def _from_bytes(graph: Any, zero: int) -> Any:
    """``graph``, which takes float pixels less ``zero``, for uint8 pixels, which the first convolution takes as they
    are: between those and the subtraction nothing is rounded."""
    ov = imported("openvino", EXTRA)
    opset = imported("openvino.opset13", EXTRA)
    (old,) = graph.get_parameters()
    (rounding,) = (reader.get_node() for reader in old.output(0).get_target_inputs())
    assert rounding.get_type_name() == "FakeQuantize"
    image = opset.parameter(list(old.get_output_shape(0)), np.uint8)
    pixels = opset.subtract(opset.convert(image, "f32"), opset.constant(np.float32(zero)))
    ends = [opset.constant(np.float32(end - zero)) for end in (0, 255)]
    exact = opset.fake_quantize(pixels, *ends, *ends, levels=256)
    for reader in rounding.output(0).get_target_inputs():
        reader.replace_source_output(exact.output(0))
    return ov.Model(graph.get_results(), [image])


def _lean(graph: Any, outputs: tuple[str, ...]) -> None:
    """Names for input and outputs, short ones within; no constant twice, and no ReLU where rounding cuts off as much:
    an int8 file's .xml is an eighth of it."""
    known = dict[tuple[str, tuple[int, ...], bytes], Any]()
    for place, node in enumerate(graph.get_ordered_ops()):
        node.set_friendly_name(str(place))
        for output in node.outputs():
            output.get_tensor().set_names(set())
        if node.get_type_name() == "Constant":
            key = node.get_element_type().to_string(), tuple(node.get_output_shape(0)), node.data.tobytes()
            same = known.setdefault(key, node)
            for reader in node.output(0).get_target_inputs() if same is not node else ():
                reader.replace_source_output(same.output(0))
        elif node.get_type_name() == "FakeQuantize":
            before, lowest = (node.input_value(at).get_node() for at in (0, 1))
            if before.get_type_name() == "Relu" and lowest.get_type_name() == "Constant" and (lowest.data == 0).all():
                node.input(0).replace_source_output(before.input_value(0))
    graph.inputs[0].get_tensor().set_names({IMAGE})
    graph.inputs[0].get_node().set_friendly_name(IMAGE)
    for result, name in zip(graph.get_results(), outputs, strict=True):
        result.input_value(0).get_tensor().set_names({name})
    graph.set_friendly_name("pocketvision")


@contextmanager
def _quiet() -> Iterator[None]:
    """``quiet``, and without the telemetry that openvino and nncf send where nobody has opted out of it."""
    before = sys.modules.get("openvino_telemetry")
    if before is None:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  how Python says that there is no such module
    try:
        with quiet():
            yield
    finally:
        if before is None:
            del sys.modules["openvino_telemetry"]
