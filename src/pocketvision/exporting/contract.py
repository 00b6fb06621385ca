"""The contract of an exported file: what goes in and comes out, and what is done to an image before, as JSON."""

import hashlib
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigurationError, nearest
from ..spec.heads import FasterRCNNHead, Head, SSDHead, TaskName, task_of
from ..spec.model import ModelSpec, Preprocessing, to_data, to_json

Form = Literal["scores", "nms", "dense", "raw", "classes", "logits"]
# What the outputs of each form are called. Boxes and scores are never one tensor: they would share a scale in int8.
OUTPUTS: dict[Form, tuple[str, ...]] = {
    "scores": ("scores",),
    "nms": ("boxes", "scores", "labels"),
    "dense": ("boxes", "scores"),
    "raw": ("logits", "codes"),
    "classes": ("classes",),
    "logits": ("logits",),
}
FORMS_OF: dict[TaskName, tuple[Form, ...]] = {  # the first is what is exported where none is asked for
    "classify": ("scores",),
    "detect": ("nms", "dense", "raw"),
    "segment": ("classes", "logits"),
}
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output: ``shape`` has None where any size goes; ``layout`` names the axes, such as "NHWC"."""

    name: str
    dtype: str
    layout: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Created:
    """What made the file and on which day (UTC, or the day of SOURCE_DATE_EPOCH for reproducible builds)."""

    pocketvision: str
    torch: str
    date: str


def image_input(size: int, batch: int | None = None) -> TensorInfo:
    """The input of every artifact: uint8 images, channels last; ``batch`` None: any number of them."""
    return TensorInfo("image", "uint8", "NHWC", (batch, size, size, 3))


def check_form(head: Head, form: Form | None) -> Form:
    """The form in which a network with ``head`` is exported, the first of its task's where none is given.

    Raises ConfigurationError for one that it has not.
    """
    valid = FORMS_OF[task_of(head)]
    if isinstance(head, FasterRCNNHead):  # it selects boxes twice; there are no anchors that a program could decode
        valid = ("nms",)
    if form is not None and form not in valid:
        raise ConfigurationError(f"a {type(head).__name__} cannot be exported as {form!r}; {nearest(form, valid)}")
    return form or valid[0]


def outputs_of(
    form: Form, classes: int, size: int, anchors: int = 0, *, channels_last: bool = False
) -> tuple[TensorInfo, ...]:
    """The outputs of a file for images of ``size`` x ``size`` pixels; see ``Artifact``.

    ``channels_last``: of a segmenter's logits, as LiteRT and MediaPipe have them.
    """
    logits_NCHW, logits_NHWC = ("NCHW", (None, classes, size, size)), ("NHWC", (None, size, size, classes))
    shapes: dict[Form, tuple[tuple[str, tuple[int | None, ...]], ...]] = {
        "scores": (("NC", (None, classes)),),
        "nms": (("M4", (None, 4)), ("M", (None,)), ("M", (None,))),
        "dense": (("NA4", (None, anchors, 4)), ("NAC", (None, anchors, classes))),
        "raw": (("NAC", (None, anchors, 1 + classes)), ("NA4", (None, anchors, 4))),
        "classes": (("NHW", (None, size, size)),),
        "logits": (logits_NHWC if channels_last else logits_NCHW,),
    }
    dtypes = {"labels": "int64", "classes": "uint8"}
    return tuple(
        TensorInfo(name, dtypes.get(name, "float32"), layout, shape)
        for name, (layout, shape) in zip(OUTPUTS[form], shapes[form], strict=True)
    )


def created_now() -> Created:
    """The versions at work and today's date."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return Created(version("pocketvision"), version("torch"), now.date().isoformat())


def contract_of(
    spec: ModelSpec,
    form: Form,
    precision: str,
    *,
    anchors: tuple[Corners, ...] = (),
    image: TensorInfo | None = None,
    channels_last: bool = False,
) -> dict[str, Any]:
    """Everything that a program needs to run a file but the names of its files.

    ``image``: what the file takes, where that is not ``image_input``; the normalisation is always in the file.
    ``channels_last``: see ``outputs_of``.
    """
    p, classes = spec.preprocessing, spec.head.classes
    image = image or image_input(p.size, 1 if form == "nms" else None)
    return {
        "task": task_of(spec.head),
        "form": form,
        "precision": precision,
        "preprocessing": steps_of(p),
        "input": asdict(image),
        "outputs": [
            asdict(output) for output in outputs_of(form, classes, p.size, len(anchors), channels_last=channels_last)
        ],
        "output": describe_output(spec, form, channels_last=channels_last),
        "labels": list(spec.labels),
        "anchors": [list(anchor) for anchor in anchors] if form == "raw" else [],
        "spec": to_data(spec),
        "spec_sha256": hashlib.sha256(to_json(spec).encode()).hexdigest(),
        "created": asdict(created_now()),
    }


def steps_of(p: Preprocessing, normalised_by: Literal["model", "caller"] = "model") -> dict[str, Any]:
    """What happens to an image file, step by step, exactly as ``data.transforms.prepare`` does it."""
    how = {"filter": p.interpolation, "antialias": True}
    if p.fit == "stretch":
        steps: list[dict[str, Any]] = [{"step": "resize", "height": p.size, "width": p.size, **how}]
    else:
        steps = [
            {"step": "resize", "short_side": p.resize, "long_side": "in proportion, rounded to whole pixels", **how},
            {"step": "crop", "height": p.size, "width": p.size, "from": "the middle, offsets rounded down"},
        ]
    decode = {"colours": "RGB", "bits": 8, "orientation": "as EXIF says", "transparency": "put on white"}
    normalise = {"step": "normalise", "scale": 1 / 255, "mean": list(p.mean), "std": list(p.std), "by": normalised_by}
    return {"decode": decode, "steps": [*steps, normalise]}


def contract_path(path: Path) -> Path:
    """Where the contract of an exported file lies: model.tflite -> model.tflite.json."""
    return path.with_name(f"{path.name}.json")


def describe_input(preprocessing: Preprocessing, batch: str = "N") -> str:
    """The preprocessing contract in one sentence."""
    p = preprocessing
    how = f"({p.interpolation}, antialiased)"
    if p.fit == "stretch":
        placed = f"resize the whole image to {p.size} x {p.size} pixels, each side by itself {how}"
    else:
        placed = f"resize the short side to {p.resize} pixels {how}, cut the central {p.size} x {p.size}"
    return f"uint8 [{batch}, {p.size}, {p.size}, 3], RGB, 0 to 255: {placed}; (x / 255 - mean) / std is in the model"


def describe_output(spec: ModelSpec, form: Form, *, channels_last: bool = False) -> str:
    """What the outputs mean, in words; ``channels_last``: see ``outputs_of``."""
    head, corners = spec.head, "x1, y1, x2, y2 in pixels of the input"
    if form == "scores":
        return f"scores [N, {head.classes}]: the probability of each class"
    if form in ("classes", "logits"):
        size = spec.preprocessing.size
        if form == "logits":
            shape = f"{size}, {size}, {head.classes}" if channels_last else f"{head.classes}, {size}, {size}"
            return f"logits [N, {shape}], of each pixel of the input; its class is the one with the highest"
        return f"classes [N, {size}, {size}], of each pixel of the input: uint8, the number from 0, as in labels"
    if form == "nms":
        assert isinstance(head, SSDHead | FasterRCNNHead)
        s = head.selection
        rule = f"score above {s.min_score:g}, {s.candidates} of a class, overlap (IoU) up to {s.iou:g}, {s.most} in all"
        return f"boxes [M, 4]: {corners}; scores [M], best first; labels [M], class from 0. What is told: {rule}"
    if form == "dense":
        return f"boxes [N, A, 4]: {corners}, of every anchor; scores [N, A, {head.classes}]; overlaps are still in"
    assert isinstance(head, SSDHead)
    centre, size = head.variances
    return (
        f"logits [N, A, {1 + head.classes}], background first; scores are their {head.scores}. codes [N, A, 4]: dx, "
        f"dy, dw, dh. An anchor (metadata: {corners}) of centre x, y and size w, h stands for the box of centre "
        f"x + {centre:g} dx w, y + {centre:g} dy h and size w exp({size:g} dw), h exp({size:g} dh)"
    )
