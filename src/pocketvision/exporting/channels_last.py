"""Networks framed for runtimes that take one image at a time with its channels last: all but ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigurationError, ExportError, nearest
from ..files import write_bytes
from ..nn.fold import fold
from ..nn.heads.classifier import Classifier
from ..nn.heads.masks import MaskOutputs
from ..nn.heads.ssd import SSDOutputs, decode
from ..nn.layers import SqueezeExcitation
from ..nn.model import Model
from .artifact import FORMATS, Artifact, files_of, finish
from .contract import OUTPUTS, Form, TensorInfo, contract_of, image_input
from .detector import anchors_of
from .targets import TARGETS, form_of

# model, form, precision, calibration -> the content of ``files_of``
Convert = Callable[[Model, Form, str, np.ndarray | None], bytes | tuple[bytes, ...]]


def export_by(
    convert: Convert, model: Model, out: Path, precision: str, calibration: np.ndarray | None, form: Form | None
) -> Artifact:
    """Check the arguments of an ``export``, write what ``convert`` makes, and its contract; see ``litert.export``."""
    form = checked(model, out, precision, calibration, form)
    contents = convert(model, form, precision, calibration)
    try:
        for file, content in zip(files_of(out), [contents] if isinstance(contents, bytes) else contents, strict=True):
            write_bytes(file, content)
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}; choose another place") from None
    return finished(model, out, precision, form)


def checked(model: Model, out: Path, precision: str, calibration: np.ndarray | None, form: Form | None) -> Form:
    """The form in which ``model`` is exported to ``out``; raises ConfigurationError for arguments that do not fit."""
    name = FORMATS.get(out.suffix, out.suffix)
    target = TARGETS[name]
    if precision not in target.precisions:
        raise ConfigurationError(f"{name} has no precision {precision!r}; {nearest(precision, target.precisions)}")
    if not target.calibrates and calibration is not None:
        raise ConfigurationError(f"{name} takes no calibration images: its int8 is of weights only; leave them out")
    if target.calibrates and (calibration is None) is (precision == "int8"):
        raise ConfigurationError(
            "int8 needs calibration images of the training data, uint8 [N, S, S, 3]; float32 and float16 take none"
        )
    if model.training:
        raise ConfigurationError("the model is in train mode: call model.eval() before the export")
    size = model.spec.preprocessing.size
    if calibration is not None and (calibration.dtype != np.uint8 or calibration.shape[1:] != (size, size, 3)):
        raise ConfigurationError(
            f"calibration takes uint8 images [N, {size}, {size}, 3], not {calibration.dtype} {list(calibration.shape)}"
        )
    return form_of(name, model.spec.head, form)


def finished(model: Model, out: Path, precision: str, form: Form) -> Artifact:
    """The artifact at ``out``, with its contract."""
    size = model.spec.preprocessing.size
    anchors = anchors_of(model) if form in ("dense", "raw") else ()
    image = TensorInfo("image", "float32", "CHW", (3, size, size)) if out.suffix == ".param" else image_input(size, 1)
    last = out.suffix == ".tflite"
    contract = contract_of(model.spec, form, precision, anchors=anchors, image=image, channels_last=last)
    if out.suffix == ".mlpackage" and form == "classes":  # it has no output of bytes
        contract["outputs"][0]["dtype"] = "int32"
    return finish(out, contract)


class HardSigmoid(nn.Module):
    """min(max(x + 3, 0), 6) / 6 with numbers that are float32 from the start.

    ATen's decomposition of hard-sigmoid has whole numbers, whose conversion ExecuTorch leaves outside of the delegate,
    twice in every squeeze-and-excite.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.hardtanh(x + 3.0, 0.0, 6.0) * (1 / 6)


class ChannelsLast(nn.Module):
    """uint8 images [1, S, S, 3] -> the outputs of ``form`` by name, as of the ONNX file: the folded ``model`` and what
    frames it.

    The first convolution's weights hold the division by std. What remains of the normalisation, a subtraction, goes
    over whole rows of pixels: over three channels at a time it takes half as long as the first convolution (LiteRT,
    MobileNetV2, one thread: scaled and shifted 4.02 ms, three channels 3.75, rows 3.63, not at all 3.62).
    ``zero``: the input is float32 instead, with this pixel value already taken away; the convolution's bias makes up
    for its difference to each channel's mean, but for the padding around the image, which then is this value.
    ``half``: the network calculates in float16, between the normalised image and its outputs. ``logits_last``: the
    channels of a segmenter's logits come last too. ``whole_gates``: hard-sigmoid stays one operator.
    """

    rows: Tensor

    def __init__(
        self,
        model: Model,
        form: Form,
        zero: int | None = None,
        *,
        half: bool = False,
        logits_last: bool = False,
        whole_gates: bool = False,
    ) -> None:
        super().__init__()
        preprocessing = model.spec.preprocessing
        self.form: Form = form
        self.zero, self.size, self.logits_last = zero, preprocessing.size, logits_last
        self.dtype = torch.float16 if half else torch.float32
        self.model = fold(model).float().cpu()
        means = 255 * torch.tensor(preprocessing.mean)
        self.register_buffer("rows", means.repeat(self.size), persistent=False)
        first = next(module for module in self.model.modules() if isinstance(module, nn.Conv2d))
        assert first.bias is not None
        with torch.no_grad():
            first.weight /= 255 * torch.tensor(preprocessing.std)[:, None, None]
            if zero is not None:
                first.bias += (first.weight.sum((2, 3)) * (zero - means)).sum(1)
        for module in self.model.modules():
            if isinstance(module, SqueezeExcitation) and isinstance(module.gate, nn.Hardsigmoid) and not whole_gates:
                module.register_module("gate", HardSigmoid())
        self.model.to(self.dtype)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        if self.zero is None:
            rows = image.float().reshape(1, self.size, 3 * self.size) - self.rows
            image = rows.reshape(1, self.size, self.size, 3)
        outputs = self._outputs(image.permute(0, 3, 1, 2).to(self.dtype))
        return dict(zip(OUTPUTS[self.form], outputs, strict=True))

    def _outputs(self, x_BCHW: Tensor) -> tuple[Tensor, ...]:
        if self.form == "scores":
            return (self._scores(x_BCHW),)
        outputs = self.model(x_BCHW)
        if isinstance(outputs, MaskOutputs):
            logits_BHWC = outputs.logits.permute(0, 2, 3, 1)
            if self.form == "logits":
                return ((logits_BHWC if self.logits_last else outputs.logits).float(),)
            return (logits_BHWC.argmax(-1).to(torch.uint8),)
        assert isinstance(outputs, SSDOutputs)
        return (outputs.logits.float(), outputs.codes.float()) if self.form == "raw" else decode(outputs)

    def _scores(self, x_BCHW: Tensor) -> Tensor:
        """The mean keeps its axes until there is only one pixel, so that nothing has to be transposed for it."""
        head, features = self.model.head, self.model.backbone(x_BCHW)
        assert isinstance(head, Classifier)
        pooled = features[max(features)].mean((2, 3), keepdim=True).flatten(1)
        hidden = pooled if head.hidden is None else head.act(head.hidden(pooled))
        return torch.softmax(head.linear(hidden).float(), 1)


def middle(mean: tuple[float, float, float]) -> int:
    """The pixel value that is nearest to the channels' means."""
    return round(255 * sum(mean) / 3)


class Planar(nn.Module):
    """float32 pixels 0 to 255 [1, 3, S, S] -> the outputs of ``form``, as a tuple; the class of each pixel as int32."""

    def __init__(self, model: Model, form: Form) -> None:
        super().__init__()
        self.frame = ChannelsLast(model, form, whole_gates=True)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs = self.frame._outputs(image - self.frame.rows[:3].reshape(3, 1, 1))
        return tuple(each if each.is_floating_point() else each.int() for each in outputs)
