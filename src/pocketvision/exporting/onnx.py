"""ONNX: one file with the weights, the normalisation and the labels, for ONNX Runtime and whatever reads ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigurationError, ExportError
from ..files import write_bytes
from ..nn.fold import fold
from ..nn.layers import Normalize
from ..nn.model import Model
from ..quant.choice import DEFAULT, Int8
from ..quant.qat import trained_ranges
from ..spec.heads import FasterRCNNHead, SSDHead
from . import faster_rcnn
from .artifact import Artifact, finish, sealed, to_metadata
from .contract import OUTPUTS, Form, check_form, contract_of, image_input
from .detector import EVERY_ANCHOR, DeployedDetector, add_selection, anchors_of
from .onnx_int8 import beginning, quantize
from .segmenter import DeployedSegmenter, add_classes
from .targets import Precision, check_target

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto


class Deployed(nn.Module):
    """uint8 images [N, S, S, 3] -> float32 scores [N, classes] that sum to 1: the folded ``model`` and what frames it.

    The transpose comes first, while the pixels are bytes. In ONNX Runtime (batch 1, one thread of a busy AMD EPYC,
    medians of 400 interleaved calls) MobileNetV3-Small then takes 1.16 ms, as on a float image that needs nothing
    of all this (1.16); normalised before the transpose it takes 2.02 ms. Dividing the first convolution's weights
    by std instead of the pixels changes nothing (1.16), nor does a batch fixed to 1 (1.17).
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.normalize = Normalize(model.spec.preprocessing)
        self.model = fold(model).float().cpu()

    def forward(self, image: Tensor) -> Tensor:
        # contiguous: a channels-last view would leave torch's stride bookkeeping behind in the exported graph
        return torch.softmax(self.model(self.normalize(image.permute(0, 3, 1, 2).contiguous())), 1)


def export(
    model: Model,
    *,
    precision: Precision = "float32",
    calibration: np.ndarray | None = None,
    form: Form | None = None,
    how: Int8 = DEFAULT,
    out: Path | str,
) -> Artifact:
    """Write ``model`` (eval mode; it is folded on a copy) as ONNX to ``out`` and return the file as an ``Artifact``.

    ``precision``: "float32", or "int8" (see ``onnx_int8``), which needs ``calibration``: some dozens of images of the
    training data, uint8 [N, S, S, 3], prepared as the network takes them. ``how``: its switches; of a network that was
    trained for int8 only how ranges are found that it was not trained with.
    ``form``: what a detector's or a segmenter's file gives, see ``Artifact``; "nms" or "classes" by default. The batch
    dimension is free but in "nms": at batch 1 that costs no time in ONNX Runtime (under 1%, not resolved). The same
    model gives the same bytes on the same day with the same versions of torch and onnxscript.

    Raises ConfigurationError for a model in train mode, an unknown precision, int8 without ``calibration`` or float32
    with it, a form that the model has not, or an ``out`` that does not end in .onnx; ExportError when the
    conversion or the writing fails.
    """
    out = Path(out)
    check_target("onnx", precision)
    if calibration is None and precision == "int8":
        raise ConfigurationError("int8 needs calibration images of the training data: calibration=uint8 [N, S, S, 3]")
    if calibration is not None and precision == "float32":
        raise ConfigurationError("calibration images are for int8; a float32 export takes none: leave them out")
    if out.suffix != ".onnx":
        raise ConfigurationError(f"{out} must end in .onnx; nearest valid: {out.with_suffix('.onnx')}")
    form = check_form(model.spec.head, form)
    import onnx

    try:
        proto = to_proto(model, form)
        onnx.checker.check_model(proto, full_check=True)
    except (RuntimeError, onnx.checker.ValidationError) as error:  # RuntimeError: the base of torch's exporter errors
        cause = str(error).strip().partition("\n")[0]
        raise ExportError(f"torch cannot convert {model.spec.backbone.name} to ONNX for {out}: {cause}") from error
    if calibration is not None:
        trained = trained_ranges(model)
        if trained:  # such weights know their errors: nothing is left to correct or to keep
            how = Int8(how.ranges, correct_bias=False, beginning=0)
        keep = None if how.beginning is None else beginning(proto, how.beginning)
        settings: Any = {"ranges": how.ranges, "correct_bias": how.correct_bias, "keep_float": keep}
        proto = quantize(proto, calibration, trained=trained, **settings)
    _strip(proto.graph)
    anchors = anchors_of(model) if form in ("dense", "raw") else ()
    contract = contract_of(model.spec, form, precision, anchors=anchors)
    for key, value in to_metadata(contract, model.spec).items():
        proto.metadata_props.add(key=key, value=value)
    try:
        write_bytes(out, sealed(proto.SerializeToString(deterministic=True)))
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}; choose another place") from None
    return finish(out, contract)


def to_proto(model: Model, form: Form) -> ModelProto:
    """The float32 file of ``model`` (eval mode), without its contract."""
    size, head = model.spec.preprocessing.size, model.spec.head
    batch, free = 2, {"image": {0: torch.export.Dim("N")}}  # torch.export would fix a batch of 1
    if isinstance(head, FasterRCNNHead):
        return faster_rcnn.convert(model, _to_onnx)
    if form == "nms":
        batch, free = 1, None
    image = torch.zeros(batch, size, size, 3, dtype=torch.uint8)
    outputs = OUTPUTS[form]
    deployed: nn.Module
    match form:
        case "scores":
            deployed, outputs = Deployed(model), OUTPUTS[form]
        case "classes" | "logits":
            deployed, outputs = DeployedSegmenter(model), OUTPUTS["logits"]
        case _:
            deployed, outputs = DeployedDetector(model, form), EVERY_ANCHOR if form == "nms" else OUTPUTS[form]
    proto = _to_onnx(deployed.eval(), (image,), [image_input(size).name], outputs, free)
    if form == "nms" and isinstance(head, SSDHead):
        add_selection(proto, head.selection)
    if form == "classes":
        add_classes(proto, size)
    return proto


def _to_onnx(
    module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], outputs: Sequence[str], free: Any
) -> ModelProto:
    """``free``: the dimensions that may change, as ``dynamic_shapes`` of torch.export; None: none."""
    program = torch.onnx.export(
        module,
        inputs,
        dynamo=True,
        verbose=False,
        external_data=False,
        optimize=True,
        opset_version=18,
        input_names=names,
        output_names=outputs,
        dynamic_shapes=free,
        custom_translation_table={torch.ops.aten.mean.dim: _mean},
    )
    assert program is not None
    return program.model_proto


def _mean(x: Any, dim: Any, keepdim: bool = False, dtype: int | None = None) -> Any:
    """A mean over height and width as GlobalAveragePool, which runtimes know to fuse (3% of MobileNetV3-Small)."""
    from onnxscript import opset18 as op

    if sorted(axis % 4 for axis in dim) != [2, 3]:
        raise NotImplementedError(f"a mean over the axes {dim} instead of height and width")
    pooled: Any = op.GlobalAveragePool(x)
    return pooled if keepdim else op.Flatten(pooled)


def _strip(graph: GraphProto) -> None:
    """Remove the exporter's notes: they hold source paths of the machine that exported."""
    del graph.value_info[:]
    for noted in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del noted.metadata_props[:]
        noted.ClearField("doc_string")
