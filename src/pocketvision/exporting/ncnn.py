"""ncnn: a .param file of layers and a .bin file of weights, for a small runtime on phones and boards."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import ConfigurationError, ExportError
from ..files import write_bytes
from ..nn.model import Model
from .artifact import Artifact
from .channels_last import Planar, export_by
from .contract import OUTPUTS, Form
from .extras import imported

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = "image"  # the input's name
EXTRA = "ncnn"
REDUCED = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage")


def export(
    model: Model,
    *,
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    form: Form | None = None,
    out: Path | str,
) -> Artifact:
    """Write ``model`` as .param to ``out`` and its weights as .bin beside it; arguments and errors as
    ``litert.export``, but that there is no int8, and segmenters have the form "logits" only."""
    out = Path(out)
    if out.suffix != ".param":
        raise ConfigurationError(f"{out} must end in .param; nearest valid: {out.with_suffix('.param')}")
    return export_by(convert, model, out, precision, calibration, form)


def convert(
    model: Model, form: Form, precision: str = "float32", calibration: np.ndarray | None = None
) -> tuple[bytes, bytes]:
    """The .param and the .bin file of ``model`` (eval mode): float32 ``image`` [3, S, S], pixels 0 to 255 in the order
    that ``ncnn::Mat::from_pixels`` gives them -> the outputs of ``form``, without a batch's axis.

    "float16" rounds the weights. Raises ConfigurationError where pnnx is not installed, ExportError when it cannot
    convert.
    """
    assert calibration is None
    size = model.spec.preprocessing.size
    image = torch.zeros(1, 3, size, size)
    pnnx = imported("pnnx", EXTRA)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript, which is all that pnnx reads
        program = torch.export.export(Planar(model, form).eval(), (image,))
        torch.jit.save(torch.jit.trace(program.module(), image, check_trace=False), f"{folder}/model.pt")
        command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[1,3,{size},{size}]f32"]
        half = f"fp16={int(precision == 'float16')}"
        done = subprocess.run([*command, half], cwd=folder, capture_output=True, text=True, check=False)
        files = [Path(folder) / f"model.ncnn{suffix}" for suffix in (".param", ".bin")]
        if done.returncode or not all(file.exists() for file in files):
            cause = (done.stderr.strip().splitlines() or [f"pnnx ended with {done.returncode}"])[-1]
            raise ExportError(f"pnnx cannot convert {model.spec.backbone.name} for ncnn: {cause}")
        text, weights = files[0].read_text(encoding="utf-8"), files[1].read_bytes()
    names = {"in0": IMAGE} | {f"out{place}": name for place, name in enumerate(OUTPUTS[form])}
    lines = [" ".join(names.get(word, word) for word in line.split()) for line in text.splitlines()]
    return ("\n".join(lines) + "\n").encode(), weights


def open_file(param: bytes, weights: bytes, threads: int = 1) -> Callable[[np.ndarray], list[np.ndarray]]:
    """uint8 images [N, S, S, 3] -> the outputs of a file, in its order; images go through one by one, on the CPU, in
    float32 (left alone, ncnn takes 16 bits on processors that have them).

    Raises ConfigurationError where ncnn is not installed, ExportError for a file that it cannot load.
    """
    ncnn = imported("ncnn", EXTRA)
    net = ncnn.Net()
    net.opt.num_threads = threads
    for name in REDUCED:
        setattr(net.opt, f"use_{name}", False)
    with tempfile.TemporaryDirectory() as folder:  # from memory it reads beyond the end of weights that are cut off
        place = write_bytes(Path(folder) / "model.bin", weights)
        if net.load_param_mem(param.decode()) or net.load_model(str(place)):
            raise ExportError("ncnn cannot load the file; export the model again")
    rgb = ncnn.Mat.PixelType.PIXEL_RGB
    outputs = next(names for names in OUTPUTS.values() if set(names) == set(net.output_names()))

    def run(images: np.ndarray) -> list[np.ndarray]:
        answers = list[list[np.ndarray]]()
        for one in images:
            height, width, _ = one.shape
            extractor = net.create_extractor()
            extractor.input(IMAGE, ncnn.Mat.from_pixels(np.ascontiguousarray(one), rgb, width, height))
            answers.append([np.array(extractor.extract(name)[1])[None] for name in outputs])
        return [np.concatenate(each) for each in zip(*answers, strict=True)]

    return run
