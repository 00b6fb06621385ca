"""LiteRT (TensorFlow Lite): one file for the interpreter on phones and boards, its XNNPACK kernels included."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import ConfigurationError, ExportError
from ..nn.model import Model
from ..quant.qat import trained_ranges
from . import litert_int8
from .artifact import Artifact
from .channels_last import ChannelsLast, export_by, middle
from .contract import OUTPUTS, Form
from .extras import imported
from .litert_file import with_names
from .litert_metadata import with_metadata

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = "image"  # the input's name
EXTRA = "litert"


def export(
    model: Model,
    *,
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    form: Form | None = None,
    out: Path | str,
) -> Artifact:
    """Write ``model`` (eval mode; it is folded on a copy) as .tflite to ``out``, with its contract beside it.

    ``precision``: see ``convert``. ``calibration``: for int8, some dozens of images of the training data, uint8
    [N, S, S, 3], prepared as the network takes them. ``form``: "dense" (the default) or "raw" of an SSD, "classes" or
    "logits" of a segmenter. Files take one image at a time.

    Raises ConfigurationError for a model in train mode, a precision, calibration, form or suffix that does not fit, or
    a missing package; ExportError when the conversion or the writing fails.
    """
    out = Path(out)
    if out.suffix != ".tflite":
        raise ConfigurationError(f"{out} must end in .tflite; nearest valid: {out.with_suffix('.tflite')}")
    return export_by(convert, model, out, precision, calibration, form)


def convert(model: Model, form: Form, precision: str = "float32", calibration: np.ndarray | None = None) -> bytes:
    """The .tflite file of ``model`` (eval mode): uint8 ``image`` [1, S, S, 3] -> the outputs of ``form``, by name.

    "float16" rounds the weights; XNNPACK calculates in float32 with them where the processor has nothing smaller.
    "int8" calculates convolutions, sums and products with 8 bits, and in float32 the activation hard-swish (for which
    XNNPACK has no 8-bit kernel: the whole network would be 2 to 3 times slower than float), scores and boxes.
    ``calibration``: see ``litert_int8.quantize``. Classifiers, and segmenters that give logits, have the metadata that
    MediaPipe Tasks reads.

    Raises ConfigurationError where litert-torch is not installed, ExportError when it cannot convert.
    """
    size, mean = model.spec.preprocessing.size, model.spec.preprocessing.mean
    if precision != "int8":
        content = _converted(
            ChannelsLast(model, form, logits_last=True), torch.zeros(1, size, size, 3, dtype=torch.uint8)
        )
        return _named(_half(content) if precision == "float16" else content, model, form)
    assert calibration is not None
    zero = middle(mean)
    content = _converted(ChannelsLast(model, form, zero, logits_last=True), torch.zeros(1, size, size, 3))
    with _quiet():
        content = litert_int8.quantize(content, calibration, zero, trained_ranges(model))
    return _named(content, model, form)


def open_file(content: bytes, threads: int = 1) -> Callable[[np.ndarray], list[np.ndarray]]:
    """uint8 images [N, S, S, 3] -> the outputs of a file, in its order; images go through one by one.

    Raises ConfigurationError where ai-edge-litert is not installed, ExportError for a file that it cannot load.
    """
    with _quiet():
        interpreters = imported("ai_edge_litert.interpreter", EXTRA)
        try:
            interpreter = interpreters.Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"LiteRT cannot load the file: {error}; export the model again") from None
    (image,), outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: np.ndarray) -> list[np.ndarray]:
        answers = list[list[np.ndarray]]()
        for one in images:
            interpreter.set_tensor(image["index"], one[None])
            interpreter.invoke()
            answers.append([interpreter.get_tensor(output["index"]) for output in outputs])
        return [np.concatenate(each) for each in zip(*answers, strict=True)]

    return run


def _converted(module: ChannelsLast, image: torch.Tensor) -> bytes:
    with _quiet():
        litert_torch = imported("litert_torch", EXTRA)
        try:
            return litert_torch.convert(module.eval(), sample_kwargs={IMAGE: image}).model_content()
        except (RuntimeError, ValueError, NotImplementedError) as error:
            cause = str(error).strip().partition("\n")[0]
            raise ExportError(f"litert-torch cannot convert {module.model.spec.backbone.name}: {cause}") from error


def _named(content: bytes, model: Model, form: Form) -> bytes:
    """``content`` with the names of its tensors and, for MediaPipe Tasks, metadata."""
    return with_metadata(with_names(content, IMAGE, OUTPUTS[form]), model.spec, form)


def _half(content: bytes) -> bytes:
    with _quiet():
        qtyping, quantizer, algorithms = (
            imported(f"ai_edge_quantizer.{module}", EXTRA) for module in ("qtyping", "quantizer", "algorithm_manager")
        )
        rounding = quantizer.Quantizer(bytearray(content))
        weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        rounding.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
            ),
            algorithm_key=algorithms.AlgorithmName.FLOAT_CASTING,
        )
        return bytes(rounding.quantize(enable_progress_report=False, enable_progress_bar=False).quantized_model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither progress nor warnings of packages that are still on the way to their first stable version."""
    names = {"LITERT_TORCH_SHOW_PROGRESS": "n", "TF_CPP_MIN_LOG_LEVEL": "3"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
