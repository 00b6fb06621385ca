"""ExecuTorch: one .pte file whose network is a single call of XNNPACK, for PyTorch's own runtime on phones."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import ConfigurationError, ExportError
from ..nn.model import Model
from . import executorch_int8
from .artifact import Artifact
from .channels_last import ChannelsLast, export_by
from .contract import Form
from .extras import imported

if TYPE_CHECKING:
    from collections.abc import Callable

_pool = list[int]()  # of how many threads ExecuTorch's pool is, once a file is open
EXTRA = "executorch"
_CONVOLUTION = "aten.convolution.default"


def export(
    model: Model,
    *,
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    form: Form | None = None,
    out: Path | str,
) -> Artifact:
    """Write ``model`` as .pte to ``out``; arguments and errors as ``litert.export``."""
    out = Path(out)
    if out.suffix != ".pte":
        raise ConfigurationError(f"{out} must end in .pte; nearest valid: {out.with_suffix('.pte')}")
    return export_by(convert, model, out, precision, calibration, form)


def convert(model: Model, form: Form, precision: str = "float32", calibration: np.ndarray | None = None) -> bytes:
    """The .pte file of ``model`` (eval mode): uint8 images [1, S, S, 3] -> the outputs of ``form``, in their order.

    "int8": convolutions, linear layers, sums and products with 8 bits: weights symmetric with a range for each channel,
    activations with one for each tensor, which loses least to rounding and cutting off on ``calibration``, uint8
    [N, S, S, 3]; hard-swish, scores and boxes in float32.

    Raises ConfigurationError where executorch is not installed, ExportError when it cannot convert.
    """
    size = model.spec.preprocessing.size
    image = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    module: torch.nn.Module = ChannelsLast(model, form, half=precision == "float16").eval()
    with _quiet(), torch.no_grad():
        exir = imported("executorch.exir", EXTRA)
        xnnpack = imported("executorch.backends.xnnpack.partition.xnnpack_partitioner", EXTRA)
        try:
            if precision == "int8":
                assert calibration is not None
                module = executorch_int8.quantize(module, image, calibration)
            program = torch.export.export(module, (image,))
            with _half_weights():
                edge = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
            return edge.to_executorch().buffer
        except (RuntimeError, ValueError, NotImplementedError) as error:
            cause = str(error).strip().partition("\n")[0]
            raise ExportError(f"executorch cannot convert {model.spec.backbone.name}: {cause}") from error


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A method reads its program, and that the file's bytes, where they lie, without keeping either alive."""

    content: bytes
    program: Any
    method: Any


def open_file(content: bytes, threads: int = 1) -> Callable[[np.ndarray], list[np.ndarray]]:
    """uint8 images [N, S, S, 3] -> the outputs of a file, in its order; images go through one by one.

    ExecuTorch has one pool of threads for the whole process, which takes all cores unless told. It is set before the
    first file is loaded and stays: replaced later, programs hang or crash, even those that are loaded afterwards.
    Raises ConfigurationError where executorch is not installed, or for another number of threads than the first file
    had; ExportError for a file that it cannot load.
    """
    with _quiet():
        portable_lib = imported("executorch.extension.pybindings.portable_lib", EXTRA)
        runtime = imported("executorch.runtime", EXTRA).Runtime.get()
        if not _pool:
            portable_lib._unsafe_reset_threadpool(threads)
            _pool.append(threads)
        if _pool != [threads]:
            raise ConfigurationError(
                f"ExecuTorch has {_pool[0]} threads for this whole process, not {threads}; ask for as many, or start "
                "another process"
            )
        try:
            program = runtime.load_program(content)
            loaded = _Loaded(content, program, program.load_method("forward"))
        except RuntimeError as error:
            raise ExportError(f"ExecuTorch cannot load the file: {error}; export the model again") from None

    def run(images: np.ndarray) -> list[np.ndarray]:
        answers = list[list[np.ndarray]]()
        for one in images:
            pixels = torch.from_numpy(np.array(one[None], order="C"))  # writable and contiguous
            answers.append([output.numpy().copy() for output in loaded.method.execute((pixels,))])
        return [np.concatenate(each) for each in zip(*answers, strict=True)]

    return run


@contextmanager
def _half_weights() -> Iterator[None]:
    """ExecuTorch writes weights of linear layers as they are, but those of convolutions as float32, although XNNPACK
    takes both (ExecuTorch 1.5, operators/op_conv2d.py): a float16 file was as large as the float32 one."""
    visitors = imported("executorch.backends.xnnpack.operators.node_visitor", EXTRA)._node_visitor_dict
    before = visitors[_CONVOLUTION]

    class Convolution(before):
        def define_tensor(self, *args: Any, force_fp32: bool = False, **options: Any) -> None:
            super().define_tensor(*args, **options)

    visitors[_CONVOLUTION] = Convolution
    try:
        yield
    finally:
        visitors[_CONVOLUTION] = before


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
