"""``Artifact``: an exported network, its files and its contract."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, ExportError
from ..files import write_text
from ..spec.heads import TaskName, task_of
from ..spec.model import ModelSpec, from_data
from .contract import OUTPUTS, Corners, Created, Form, TensorInfo, contract_path, describe_input

CONTRACT, SEAL, ANCHORS = "pocketvision", "sha256", "anchors"  # keys of an ONNX file's metadata
UNSEALED = "unsealed".ljust(64, "-")
FORMATS = {
    ".onnx": "onnx",
    ".tflite": "litert",
    ".pte": "executorch",
    ".xml": "openvino",
    ".param": "ncnn",
    ".mlpackage": "coreml",
}
WEIGHTS = {"openvino": ".bin", "ncnn": ".bin"}  # formats whose weights are a file of their own beside it


@dataclass(frozen=True, slots=True)
class Artifact:
    """An exported network and its contract.

    Input: RGB pixels 0 to 255, resized by the caller as ``spec.preprocessing`` says (``data.transforms.prepare``);
    scaling and normalisation are in the file. Output of a classifier: one score per class of ``labels``, summing to 1.
    Of a detector, as its ``form`` says: "nms": ``boxes`` [M, 4] (x1, y1, x2, y2 in pixels of the input), ``scores`` [M]
    and ``labels`` [M] of the one image, best first; "dense": ``boxes`` [N, A, 4] and ``scores`` [N, A, classes] of all
    anchors; "raw": ``logits`` [N, A, 1 + classes] (first the background's) and ``codes`` [N, A, 4], relative to the
    ``anchors`` [A, 4], which are in the contract. Of a segmenter: "classes": the class of each pixel of the
    input, uint8 [N, S, S]; "logits": [N, classes, S, S], of LiteRT [N, S, S, classes]. ``sha256`` is the digest of the
    file at ``path``.
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
        """Read a file that an exporter of this package wrote; ONNX holds its contract itself, others have it beside
        them (``contract.contract_path``).

        Raises ExportError, with the path, for a file that is missing, damaged or of other origin.
        """
        path = Path(path)
        if path.suffix not in FORMATS:
            raise ExportError(f"{path} is not an exported model; known file types: {', '.join(FORMATS)}")
        return _load_onnx(path) if path.suffix == ".onnx" else _load_beside(path)

    @property
    def files(self) -> tuple[Path, ...]:
        """The file at ``path`` and, where the format has them apart, its weights."""
        return files_of(self.path)

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
        """Size of the files in MB (10^6 bytes)."""
        return sum(part.stat().st_size for file in self.files for part in _parts(file)) / 1e6


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of the exported network at ``path``."""
    suffix = WEIGHTS.get(FORMATS.get(path.suffix, ""))
    return (path, path.with_suffix(suffix)) if suffix else (path,)


def finish(path: Path, contract: dict[str, Any]) -> Artifact:
    """Write the contract (``contract_of``) of the files at ``path`` beside them; the exported network that they are."""
    digests = {file.name: _digest(file) for file in files_of(path)}
    content = {"format": FORMATS[path.suffix], "files": digests, **contract}
    try:
        write_text(contract_path(path), json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise ExportError(f"cannot write {contract_path(path)}: {error.strerror}; choose another place") from None
    return Artifact.load(path)


def rename(path: Path, new: Path) -> None:
    """Rename the files of the exported network at ``path`` and its contract; such files at ``new`` are replaced.

    Raises ExportError for another place, such as a folder that is there where a file goes.
    """
    renamed = dict(zip(files_of(path), files_of(new), strict=True))
    try:
        for old, place in renamed.items():
            if old.is_dir() and place.is_dir():
                shutil.rmtree(place)
            os.replace(old, place)
    except OSError as error:
        raise ExportError(f"cannot write {new}: {error.strerror}; choose another place") from None
    beside = contract_path(path)
    if beside.exists():  # ONNX does without
        contract = json.loads(beside.read_text(encoding="utf-8"))
        names = {old.name: place.name for old, place in renamed.items()}
        contract["files"] = {names[name]: digest for name, digest in contract["files"].items()}
        write_text(contract_path(new), json.dumps(contract, indent=1) + "\n")
        beside.unlink()


def remove(path: Path) -> None:
    """Remove the files of the exported network at ``path``, as far as they are there, and its contract."""
    for file in (*files_of(path), contract_path(path)):
        if file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)


def to_metadata(contract: dict[str, Any], spec: ModelSpec) -> dict[str, str]:
    """What goes into an ONNX file: the contract for ``Artifact.load``, a place for the seal, and keys for people."""
    preprocessing = spec.preprocessing
    described = {
        "labels": "\n".join(spec.labels),
        "mean": ", ".join(map(str, preprocessing.mean)),
        "std": ", ".join(map(str, preprocessing.std)),
        "input": describe_input(preprocessing, "1" if contract["form"] == "nms" else "N"),
        "output": contract["output"],
    }
    if contract["form"] == "raw":
        described[ANCHORS] = json.dumps(contract["anchors"])
    return {CONTRACT: json.dumps(contract, sort_keys=True), SEAL: UNSEALED} | described


def sealed(content: bytes) -> bytes:
    """``content`` with its own digest in the place that ``to_metadata`` left for it, so that any change shows."""
    return content.replace(UNSEALED.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def _seal_holds(content: bytes, seal: str) -> bool:
    unsealed = content.replace(seal.encode(), UNSEALED.encode(), 1) if seal else b""
    return hashlib.sha256(unsealed).hexdigest() == seal


def _load_onnx(path: Path) -> Artifact:
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
    return _from_contract(path, metadata[CONTRACT], hashlib.sha256(content).hexdigest(), metadata.get(ANCHORS))


def _load_beside(path: Path) -> Artifact:
    beside = contract_path(path)
    for file in (*files_of(path), beside):
        if not file.exists():
            missing = "cannot be read" if file == path else f"needs {file}, which is not there"
            raise ExportError(f"{path} {missing}; keep the files of an export together, or export the model again")
    try:
        text = beside.read_text(encoding="utf-8")
        digests = {Path(name).suffix: digest for name, digest in json.loads(text)["files"].items()}  # under any name
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{beside} is no contract of pocketvision ({error}); export the model again") from None
    for file in files_of(path):
        if digests.get(file.suffix) != _digest(file):
            raise ExportError(f"{file} is damaged, or not the one of {beside}; export the model again")
    return _from_contract(path, text, digests[path.suffix], None)


def _digest(file: Path) -> str:
    """SHA-256 of a file, or of all files of a folder by their names."""
    digest = hashlib.sha256()
    for part in _parts(file):
        digest.update(b"" if part == file else part.relative_to(file).as_posix().encode())
        digest.update(part.read_bytes())
    return digest.hexdigest()


def _parts(file: Path) -> Sequence[Path]:
    return sorted(part for part in file.rglob("*") if part.is_file()) if file.is_dir() else [file]


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


def _from_contract(path: Path, text: str, sha256: str, anchors: str | None) -> Artifact:
    """``anchors``: where older ONNX files have them, beside the contract."""
    try:
        contract = json.loads(text)
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
            anchors=tuple(map(tuple, contract.get("anchors") or json.loads(anchors or "[]"))),
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
