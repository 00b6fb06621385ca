"""``Artifact``: an exported file and everything that a program needs to run it, read from the file itself."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from ..errors import ConfigurationError, ExportError, nearest
from ..spec.heads import FasterRCNNHead, Head, SSDHead, TaskName, task_of
from ..spec.model import ModelSpec, Preprocessing, from_data, to_data

CONTRACT, SEAL, ANCHORS = "pocketvision", "sha256", "anchors"  # keys of a file's metadata
UNSEALED = "unsealed".ljust(64, "-")
FORMATS = {".onnx": "onnx"}
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


@dataclass(frozen=True, slots=True)
class Artifact:
    """An exported network and its contract.

    Input: RGB pixels 0 to 255, resized by the caller as ``spec.preprocessing`` says (``data.transforms.prepare``);
    scaling and normalisation are in the file. Output of a classifier: one score per class of ``labels``, summing to 1.
    Of a detector, as its ``form`` says: "nms": ``boxes`` [M, 4] (x1, y1, x2, y2 in pixels of the input), ``scores`` [M]
    and ``labels`` [M] of the one image, best first; "dense": ``boxes`` [N, A, 4] and ``scores`` [N, A, classes] of all
    anchors; "raw": ``logits`` [N, A, 1 + classes] (first the background's) and ``codes`` [N, A, 4], relative to the
    ``anchors`` [A, 4], which are in the file's metadata. Of a segmenter: "classes": the class of each pixel of the
    input, uint8 [N, S, S]; "logits": [N, classes, S, S]. ``sha256`` is the digest of the file.
    """

    path: Path
    format: str
    precision: str
    spec: ModelSpec
    input: TensorInfo
    outputs: tuple[TensorInfo, ...]
    created: Created
    sha256: str
    anchors: tuple[Corners, ...] = ()

    @classmethod
    def load(cls, path: Path | str) -> "Artifact":
        """Read a file that an exporter of this package wrote.

        Raises ExportError, with the path, for a file that is missing, damaged or of other origin.
        """
        path = Path(path)
        if path.suffix not in FORMATS:
            raise ExportError(f"{path} is not an exported model; known file types: {', '.join(FORMATS)}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ExportError(f"cannot read {path}: {error.strerror}; give the path of an exported model") from None
        metadata = _onnx_metadata(path, content)
        if CONTRACT not in metadata:
            raise ExportError(
                f"{path} was not exported by pocketvision, so its preprocessing and labels are unknown; "
                "export the model with pocketvision"
            )
        if not _seal_holds(content, metadata.get(SEAL, "")):
            raise ExportError(f"{path} is damaged, or was edited after the export; export the model again")
        return _from_contract(path, metadata, hashlib.sha256(content).hexdigest())

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the scores; empty when the network has none."""
        return self.spec.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """``labels``, or the classes' numbers where they have no names."""
        return self.labels or tuple(str(index) for index in range(self.spec.head.classes))

    @property
    def form(self) -> Form:
        """What the outputs are."""
        names = tuple(output.name for output in self.outputs)
        return next(form for form, outputs in OUTPUTS.items() if outputs == names)

    @property
    def task(self) -> TaskName:
        """What it does."""
        return task_of(self.spec.head)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of an input image."""
        size = self.spec.preprocessing.size
        return (size, size, 3)

    @property
    def size_mb(self) -> float:
        """Size of the file in MB (10^6 bytes)."""
        return self.path.stat().st_size / 1e6


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


def outputs_of(form: Form, classes: int, size: int, anchors: int = 0) -> tuple[TensorInfo, ...]:
    """The outputs of a file for images of ``size`` x ``size`` pixels; see ``Artifact``."""
    shapes: dict[Form, tuple[tuple[str, tuple[int | None, ...]], ...]] = {
        "scores": (("NC", (None, classes)),),
        "nms": (("M4", (None, 4)), ("M", (None,)), ("M", (None,))),
        "dense": (("NA4", (None, anchors, 4)), ("NAC", (None, anchors, classes))),
        "raw": (("NAC", (None, anchors, 1 + classes)), ("NA4", (None, anchors, 4))),
        "classes": (("NHW", (None, size, size)),),
        "logits": (("NCHW", (None, classes, size, size)),),
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


def to_metadata(spec: ModelSpec, precision: str, form: Form, anchors: tuple[Corners, ...] = ()) -> dict[str, str]:
    """What an exporter writes into its file: JSON for ``Artifact.load``, a place for the seal, and keys for people."""
    preprocessing = spec.preprocessing
    contract = {
        "precision": precision,
        "spec": to_data(spec),
        "input": asdict(image_input(preprocessing.size, 1 if form == "nms" else None)),
        "outputs": [asdict(output) for output in outputs_of(form, spec.head.classes, preprocessing.size, len(anchors))],
        "created": asdict(created_now()),
    }
    described = {
        "labels": "\n".join(spec.labels),
        "mean": ", ".join(map(str, preprocessing.mean)),
        "std": ", ".join(map(str, preprocessing.std)),
        "input": describe_input(preprocessing, "1" if form == "nms" else "N"),
        "output": describe_output(spec, form),
    }
    if form == "raw":
        described[ANCHORS] = json.dumps(anchors)
    return {CONTRACT: json.dumps(contract, sort_keys=True), SEAL: UNSEALED} | described


def sealed(content: bytes) -> bytes:
    """``content`` with its own digest in the place that ``to_metadata`` left for it, so that any change shows."""
    return content.replace(UNSEALED.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def _seal_holds(content: bytes, seal: str) -> bool:
    unsealed = content.replace(seal.encode(), UNSEALED.encode(), 1) if seal else b""
    return hashlib.sha256(unsealed).hexdigest() == seal


def describe_input(preprocessing: Preprocessing, batch: str = "N") -> str:
    """The preprocessing contract in one sentence."""
    p = preprocessing
    how = f"({p.interpolation}, antialiased)"
    if p.fit == "stretch":
        placed = f"resize the whole image to {p.size} x {p.size} pixels, each side by itself {how}"
    else:
        placed = f"resize the short side to {p.resize} pixels {how}, cut the central {p.size} x {p.size}"
    return f"uint8 [{batch}, {p.size}, {p.size}, 3], RGB, 0 to 255: {placed}; (x / 255 - mean) / std is in the model"


def describe_output(spec: ModelSpec, form: Form) -> str:
    """What the outputs mean, in words."""
    head, corners = spec.head, "x1, y1, x2, y2 in pixels of the input"
    if form == "scores":
        return f"scores [N, {head.classes}]: the probability of each class"
    if form in ("classes", "logits"):
        size = spec.preprocessing.size
        where = f"{size}, {size}], of each pixel of the input"
        if form == "logits":
            return f"logits [N, {head.classes}, {where}; its class is the one with the highest"
        return f"classes [N, {where}: uint8, the number of its class from 0, as in labels"
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


def _onnx_metadata(path: Path, content: bytes) -> dict[str, str]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_model_from_string(content)
    except DecodeError:
        proto = onnx.ModelProto()
    if not proto.graph.node:
        raise ExportError(f"{path} is damaged, or no ONNX file ({len(content)} bytes); export the model again")
    return {entry.key: entry.value for entry in proto.metadata_props}


def _from_contract(path: Path, metadata: dict[str, str], sha256: str) -> Artifact:
    try:
        contract = json.loads(metadata[CONTRACT])
        artifact = Artifact(
            path=path,
            format=FORMATS[path.suffix],
            precision=contract["precision"],
            spec=from_data(contract["spec"]),
            input=_tensor(contract["input"]),
            # before detectors there was one "output"
            outputs=tuple(map(_tensor, contract["outputs"] if "outputs" in contract else [contract["output"]])),
            created=Created(**contract["created"]),
            sha256=sha256,
            anchors=tuple(map(tuple, json.loads(metadata.get(ANCHORS, "[]")))),
        )
        if tuple(output.name for output in artifact.outputs) not in OUTPUTS.values():
            raise ValueError("unknown outputs")
        return artifact
    except (ValueError, KeyError, TypeError, ConfigurationError) as error:
        raise ExportError(
            f"{path} was exported by another version of pocketvision, whose description this one cannot read "
            f"({type(error).__name__}: {error}); export the model again with this version"
        ) from None


def _tensor(data: dict[str, str | list[int | None]]) -> TensorInfo:
    return TensorInfo(**data | {"shape": tuple(data["shape"])})  # type: ignore[arg-type]
