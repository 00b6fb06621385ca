"""Core ML: an .mlpackage for apps on iOS and macOS. It is converted here and runs there only."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ConfigurationError, ExportError
from ..nn.model import Model
from .artifact import Artifact
from .channels_last import Planar, checked, finished
from .contract import OUTPUTS, Form
from .extras import imported, quiet

IMAGE = "image"  # the input's name
EXTRA = "coreml"
LEAST_WEIGHTS = 512  # of a layer: fewer stay float


def export(
    model: Model,
    *,
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    form: Form | None = None,
    out: Path | str,
) -> Artifact:
    """Write ``model`` as .mlpackage, a folder, to ``out``; arguments and errors as ``litert.export``, but that int8
    takes no calibration images: only weights have 8 bits (coremltools quantises activations on macOS alone)."""
    out = Path(out)
    if out.suffix != ".mlpackage":
        raise ConfigurationError(f"{out} must end in .mlpackage; nearest valid: {out.with_suffix('.mlpackage')}")
    form = checked(model, out, precision, calibration, form)
    package = convert(model, form, precision)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as folder, quiet():
            place = Path(folder) / out.name
            package.save(str(place))
            (place / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # not in the package's manifest
            if out.is_dir():
                shutil.rmtree(out)
            os.replace(place, out)
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}; choose another place") from None
    return finished(model, out, precision, form)


def convert(model: Model, form: Form, precision: str = "float32") -> Any:
    """The ML program (iOS 17, macOS 14) of ``model`` (eval mode), as coremltools' MLModel: an RGB image of S x S pixels
    -> the outputs of ``form`` by name. A classifier with labels gives ``classLabel`` too, and its ``scores`` by label.

    "float16": calculated with 16 bits, which the Neural Engine needs; "int8": that, of weights with 8 bits, symmetric
    with a range for each output channel.

    Raises ConfigurationError where coremltools is not installed, ExportError when it cannot convert.
    """
    size, labels = model.spec.preprocessing.size, list(model.spec.labels)
    image = torch.zeros(1, 3, size, size)
    with quiet(), torch.no_grad():
        ct = imported("coremltools", EXTRA)
        whole = ct.precision.FLOAT32 if precision == "float32" else ct.precision.FLOAT16
        dtype = np.int32 if form == "classes" else np.float32
        by_label = form == "scores" and bool(labels)
        names = ("probabilities",) if by_label else OUTPUTS[form]
        try:
            program = torch.export.export(Planar(model, form).eval(), (image,)).run_decompositions({})
            package = ct.convert(
                program,
                inputs=[ct.ImageType(name=IMAGE, shape=tuple(image.shape), color_layout=ct.colorlayout.RGB)],
                outputs=[ct.TensorType(name=name, dtype=dtype) for name in names],
                classifier_config=ct.ClassifierConfig(labels) if by_label else None,
                convert_to="mlprogram",
                minimum_deployment_target=ct.target.iOS17,
                compute_precision=whole,
                skip_model_load=True,
            )
            if precision == "int8":
                package = _with_bytes(package)
            return _described(package, model)
        except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
            cause = str(error).strip().partition("\n")[0]
            raise ExportError(f"coremltools cannot convert {model.spec.backbone.name}: {cause}") from error


def _with_bytes(package: Any) -> Any:
    optimize = imported("coremltools.optimize.coreml", EXTRA)
    how = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=LEAST_WEIGHTS)
    return optimize.linear_quantize_weights(package, optimize.OptimizationConfig(how))


def _described(package: Any, model: Model) -> Any:
    """With the name that its scores have everywhere, and words for whoever opens it in Xcode."""
    ct = imported("coremltools", EXTRA)
    spec = package.get_spec()
    if spec.description.predictedProbabilitiesName:
        ct.utils.rename_feature(spec, spec.description.predictedProbabilitiesName, OUTPUTS["scores"][0])
        spec.description.predictedProbabilitiesName = OUTPUTS["scores"][0]
    spec.description.input[0].shortDescription = "RGB, 0 to 255; the normalisation is in the model"
    spec.description.metadata.shortDescription = f"{model.spec.backbone.name}, exported by pocketvision"
    return ct.models.MLModel(spec, weights_dir=package.weights_dir, skip_model_load=True)
