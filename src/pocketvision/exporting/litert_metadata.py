"""TFLite metadata: what MediaPipe Tasks and ML Kit read in a .tflite file to prepare images and name classes.

The schema is TensorFlow Lite Support's metadata_schema.fbs (FlatBuffers, Apache-2.0); the numbers below are its fields'
places. The class names are a text file in a zip archive behind the network, as that schema wants them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

from ..spec.model import ModelSpec
from . import litert_file
from .contract import Form, describe_input, describe_output
from .extras import imported

LABELS = "labels.txt"
_RGB, _IMAGE, _FEATURE, _NORMALIZATION = 1, 2, 1, 1  # ColorSpaceType; ContentProperties; ProcessUnitOptions
_AXIS_LABELS = 2  # AssociatedFileType.TENSOR_AXIS_LABELS
# MediaPipe would read a segmenter's "classes", uint8 [1, S, S], as float probabilities of S classes
_TASKS: dict[Form, str] = {"scores": "ImageClassifier", "logits": "ImageSegmenter"}
# Of the forms that MediaPipe has no task for: why, and what to do
WITHOUT: dict[Form, str] = {
    "dense": "MediaPipe's ObjectDetector cannot read these outputs",
    "raw": "MediaPipe's ObjectDetector cannot read these outputs",
    "classes": "MediaPipe's ImageSegmenter needs --outputs logits",
}
SOFTMAX = 2  # of SEGMENTER_METADATA


def with_metadata(content: bytes, spec: ModelSpec, form: Form) -> bytes:
    """``content``, a .tflite file, with metadata where MediaPipe has a task for its ``form``; others stay as they are.

    MediaPipe gives the network the image's own bytes (mean 0, std 1): the normalisation is in the file.
    """
    if form not in _TASKS:
        return content
    labels = [label.replace("\n", " ") for label in spec.labels]
    described = _described(spec, form, labels)
    file = litert_file.with_buffer(content, "TFLITE_METADATA", described)
    if not labels:
        return file
    archive = io.BytesIO(file)
    with zipfile.ZipFile(archive, "a") as zipped:  # the date is fixed: the same network gives the same bytes
        zipped.writestr(zipfile.ZipInfo(LABELS, (1980, 1, 1, 0, 0, 0)), "\n".join(labels) + "\n")
    return archive.getvalue()


def _described(spec: ModelSpec, form: Form, labels: Sequence[str]) -> bytes:
    flat = _Flat()
    image_properties = flat.table((0, "int8", _RGB))
    normalization = flat.table((0, "offset", flat.floats([0.0])), (1, "offset", flat.floats([1.0])))
    image = flat.table(
        (0, "offset", flat.text("image")),
        (1, "offset", flat.text(describe_input(spec.preprocessing, "1"))),
        (3, "offset", flat.table((0, "uint8", _IMAGE), (1, "offset", image_properties))),
        (4, "offset", flat.list([flat.table((0, "uint8", _NORMALIZATION), (1, "offset", normalization))])),
        (5, "offset", flat.table((0, "offset", flat.floats([255.0])), (1, "offset", flat.floats([0.0])))),
    )
    named = flat.table(
        (0, "offset", flat.text(LABELS)),
        (1, "offset", flat.text("The classes, in the order of the scores")),
        (2, "int8", _AXIS_LABELS),
    )
    output = flat.table(
        (0, "offset", flat.text(form)),
        (1, "offset", flat.text(describe_output(spec, form, channels_last=True))),
        (3, "offset", flat.table((0, "uint8", _FEATURE), (1, "offset", flat.table()))),
        *([(6, "offset", flat.list([named]))] if labels else []),
    )
    custom = list[tuple[int, str, Any]]()
    if form == "logits":
        inner = _Flat()
        options = inner.finish(inner.table((0, "int8", SOFTMAX)), b"V001")
        entry = flat.table((0, "offset", flat.text("SEGMENTER_METADATA")), (1, "offset", flat.bytes(options)))
        custom = [(9, "offset", flat.list([entry]))]
    graph = flat.table((2, "offset", flat.list([image])), (3, "offset", flat.list([output])), *custom)
    return flat.finish(
        flat.table(
            (0, "offset", flat.text(_TASKS[form])),
            (1, "offset", flat.text(f"{spec.backbone.name} by pocketvision")),
            (3, "offset", flat.list([graph])),
            (7, "offset", flat.text("1.5.0")),
        ),
        b"M001",
    )


class _Flat:
    """FlatBuffers without code that is generated for a schema. Each method gives the place of what it wrote."""

    def __init__(self) -> None:
        self._builder = imported("flatbuffers", "litert").Builder(0)

    def text(self, text: str) -> int:
        return self._builder.CreateString(text)

    def bytes(self, data: bytes) -> int:
        return self._builder.CreateByteVector(data)

    def floats(self, values: Sequence[float]) -> int:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        return self._builder.EndVector()

    def list(self, places: Sequence[int]) -> int:
        self._builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            self._builder.PrependUOffsetTRelative(place)
        return self._builder.EndVector()

    def table(self, *fields: tuple[int, str, Any]) -> int:
        """``fields``: number in the schema, kind (offset, int8 or uint8), value."""
        put = {
            "offset": self._builder.PrependUOffsetTRelativeSlot,
            "int8": self._builder.PrependInt8Slot,
            "uint8": self._builder.PrependUint8Slot,
        }
        self._builder.StartObject(1 + max((place for place, _, _ in fields), default=-1))
        for place, kind, value in fields:
            put[kind](place, value, 0)
        return self._builder.EndObject()

    def finish(self, root: int, identifier: bytes) -> bytes:
        self._builder.Finish(root, identifier)
        return bytes(self._builder.Output())
