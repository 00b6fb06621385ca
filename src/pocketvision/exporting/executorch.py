"""ExecuTorch: one .pte file whose network is a single call of XNNPACK, for PyTorch's own runtime on phones."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import ExportError
from ..nn.model import Model
from .artifact import Form
from .channels_last import ChannelsLast, check_installed

if TYPE_CHECKING:
    from collections.abc import Callable

INSTALL = 'pip install "pocketvision[executorch]"'


def convert(model: Model, form: Form, precision: str = "float32", calibration: np.ndarray | None = None) -> bytes:
    """The .pte file of ``model`` (eval mode): uint8 images [1, S, S, 3] -> the outputs of ``form``, in their order.

    "int8": convolutions, linear layers, sums and products with 8 bits: weights symmetric with a range for each channel,
    activations with one for each tensor, which loses least to rounding and cutting off on ``calibration``, uint8
    [N, S, S, 3]; hard-swish, scores and boxes in float32.

    Raises ConfigurationError where executorch is not installed, ExportError when it cannot convert.
    """
    check_installed("executorch", INSTALL)
    size = model.spec.preprocessing.size
    image = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    module: torch.nn.Module = ChannelsLast(model, form, half=precision == "float16").eval()
    with _quiet(), torch.no_grad():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        try:
            if precision == "int8":
                assert calibration is not None
                module = _quantized(module, image, calibration)
            program = torch.export.export(module, (image,))
            return to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer
        except (RuntimeError, ValueError, NotImplementedError) as error:
            cause = str(error).strip().partition("\n")[0]
            raise ExportError(f"executorch cannot convert {model.spec.backbone.name}: {cause}") from error


def _quantized(module: torch.nn.Module, image: torch.Tensor, calibration: np.ndarray) -> torch.nn.Module:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(module, (image,)).module(), quantizer)
    for one in calibration:
        prepared(torch.from_numpy(one[None].copy()))
    return convert_pt2e(prepared)


def open_file(content: bytes, threads: int = 1) -> Callable[[np.ndarray], list[np.ndarray]]:
    """uint8 images [N, S, S, 3] -> the outputs of a file, in its order; images go through one by one.

    The number of threads is the process's: ExecuTorch has one pool, which the last call of this function sets.
    Raises ConfigurationError where executorch is not installed, ExportError for a file that it cannot load.
    """
    check_installed("executorch", INSTALL)
    with _quiet():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        portable_lib._unsafe_reset_threadpool(threads)
        try:
            program = Runtime.get().load_program(content)
            method: Any = program.load_method("forward")
        except RuntimeError as error:
            raise ExportError(f"ExecuTorch cannot load the file: {error}; export the model again") from None

    def run(images: np.ndarray) -> list[np.ndarray]:
        answers = list[list[np.ndarray]]()
        for one in images:
            pixels = torch.from_numpy(np.array(one[None]))  # writable and contiguous
            answers.append([output.numpy().copy() for output in method.execute((pixels,))])
        return [np.concatenate(each) for each in zip(*answers, strict=True)]

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes and warnings of packages that are still on the way to their first stable version."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
