"""The formats that networks are exported to, by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import ConfigurationError, nearest
from ..nn.model import Model
from ..quant.choice import DEFAULT, Int8
from .artifact import Artifact
from .contract import Form

Precision = Literal["float32", "float16", "int8"]


@dataclass(frozen=True, slots=True)
class Target:
    """A format: what its files are called, with how many bits it can calculate, and whether its int8 can be made in
    other ways than the default (``quant.choice.Int8``)."""

    suffix: str
    precisions: tuple[Precision, ...]
    switches: bool = False


TARGETS = {
    "onnx": Target(".onnx", ("float32", "int8"), switches=True),
    "litert": Target(".tflite", ("float32", "float16", "int8")),
    "executorch": Target(".pte", ("float32", "float16", "int8")),
    "openvino": Target(".xml", ("float32", "float16", "int8")),
}


def check_target(name: str, precision: Precision) -> Target:
    """The target called ``name``. Raises ConfigurationError for another name, or a precision that it has not."""
    if name not in TARGETS:
        raise ConfigurationError(f"export format {name!r} is unknown; {nearest(name, TARGETS)}")
    target = TARGETS[name]
    if precision not in target.precisions:
        valid = ", ".join(target.precisions)
        raise ConfigurationError(f"{name} has no {precision} export; valid: {valid}")
    return target


def export_to(
    name: str,
    model: Model,
    out: Path,
    *,
    precision: Precision = "float32",
    form: Form | None = None,
    calibration: np.ndarray | None = None,
    how: Int8 = DEFAULT,
) -> Artifact:
    """Write ``model`` in the format called ``name``; arguments and errors as ``exporting.onnx.export``, and those of
    ``check_target``. ``how``: for a target that has switches."""
    target = check_target(name, precision)
    if target.switches:
        from . import onnx

        return onnx.export(model, precision=precision, calibration=calibration, form=form, how=how, out=out)
    if how != DEFAULT:
        raise ConfigurationError(f"{name} makes int8 in one way only; leave the switches out")
    match name:
        case "litert":
            from . import litert as exporter
        case "executorch":
            from . import executorch as exporter
        case "openvino":
            from . import openvino as exporter
        case _:
            raise ConfigurationError(f"export format {name!r} is unknown; {nearest(name, TARGETS)}")
    return exporter.export(model, precision=precision, calibration=calibration, form=form, out=out)


def file_name(stem: str, name: str, precision: Precision) -> str:
    """What an export is called: best.onnx, best.int8.tflite."""
    suffix = TARGETS[name].suffix
    return stem + suffix if precision == "float32" else f"{stem}.{precision}{suffix}"
