"""The formats that networks are exported to, by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..errors import ConfigurationError, nearest
from ..nn.model import Model
from ..quant.choice import DEFAULT, Int8
from ..spec.heads import FasterRCNNHead, Head, task_of
from .artifact import Artifact
from .contract import FORMS_OF, Form, check_form
from .extras import check_installed

Precision = Literal["float32", "float16", "int8"]
ALL: tuple[Precision, ...] = get_args(Precision)


# What only programs with operators for it can hold.
CANNOT: dict[Form, str] = {
    "nms": "the selection of boxes: export form 'dense' or 'raw' of an SSD; the program that runs it selects the boxes",
    "classes": "the choice of each pixel's class: export form 'logits'; the class is the one with the highest",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A format: what its files are called (ncnn's not as OpenVINO's, whose weights have the same ending), with how many
    bits it can calculate, which forms its files cannot have, whether its int8 needs images to calibrate, and whether it
    can be made in other ways than the default (``quant.choice.Int8``). ``needs``: modules of the extra of its name;
    ``int8_needs``: further ones.
    """

    suffix: str
    precisions: tuple[Precision, ...]
    without: tuple[Form, ...] = ()
    calibrates: bool = True
    switches: bool = False
    needs: tuple[str, ...] = ()
    int8_needs: tuple[str, ...] = ()


TARGETS = {
    "onnx": Target(".onnx", ("float32", "int8"), switches=True),
    "litert": Target(".tflite", ALL, ("nms",), needs=("litert_torch", "ai_edge_litert", "ai_edge_quantizer")),
    "executorch": Target(".pte", ALL, ("nms",), needs=("executorch",), int8_needs=("torchao",)),
    "openvino": Target(".xml", ALL, needs=("openvino",), int8_needs=("nncf",)),
    "ncnn": Target(".ncnn.param", ("float32", "float16"), ("nms", "classes"), needs=("pnnx",)),
    "coreml": Target(".mlpackage", ALL, ("nms",), calibrates=False, needs=("coremltools",)),
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


def check_packages(name: str, precision: Precision) -> None:
    """Raises ConfigurationError, with the line that installs it, where a package that a target needs is missing."""
    target = TARGETS[name]
    for module in target.needs + (target.int8_needs if precision == "int8" else ()):
        check_installed(module, name)


def form_of(name: str, head: Head, form: Form | None) -> Form:
    """The form in which a network with ``head`` is exported to the target called ``name``: ``form``, or else the first
    of its task's (``contract.FORMS_OF``) that such a file can have. Raises ConfigurationError where it has none."""
    without = TARGETS[name].without
    wanted: Form = check_form(head, form)
    if form is None and wanted in without and not isinstance(head, FasterRCNNHead):
        forms: tuple[Form, ...] = FORMS_OF[task_of(head)]
        wanted = next(other for other in forms if other not in without)
    if wanted in without:
        raise ConfigurationError(f"a file of {name} cannot hold {CANNOT[wanted]}")
    return wanted


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
        case "ncnn":
            from . import ncnn as exporter
        case "coreml":
            from . import coreml as exporter
        case _:
            raise ConfigurationError(f"export format {name!r} is unknown; {nearest(name, TARGETS)}")
    images = calibration if target.calibrates else None
    return exporter.export(model, precision=precision, calibration=images, form=form, out=out)


def file_name(stem: str, name: str, precision: Precision) -> str:
    """What an export is called: best.onnx, best.int8.tflite."""
    suffix = TARGETS[name].suffix
    return stem + suffix if precision == "float32" else f"{stem}.{precision}{suffix}"
