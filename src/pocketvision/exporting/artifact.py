"""``Artifact``: an exported file and everything that a program needs to run it, read from the file itself."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from ..errors import ConfigurationError, ExportError
from ..spec.model import ModelSpec, Preprocessing, from_data, to_data

CONTRACT, SEAL = "pocketvision", "sha256"  # keys of a file's metadata
UNSEALED = "unsealed".ljust(64, "-")
FORMATS = {".onnx": "onnx"}


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

    Input: RGB pixels 0 to 255, resized and cropped by the caller as ``spec.preprocessing`` says
    (``data.transforms.prepare``); scaling and normalisation are in the file. Output: one score per class of
    ``labels``, summing to 1. ``sha256`` is the digest of the file.
    """

    path: Path
    format: str
    precision: str
    spec: ModelSpec
    input: TensorInfo
    output: TensorInfo
    created: Created
    sha256: str

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
        return _from_contract(path, metadata[CONTRACT], hashlib.sha256(content).hexdigest())

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the scores; empty when the network has none."""
        return self.spec.labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of an input image."""
        size = self.spec.preprocessing.size
        return (size, size, 3)

    @property
    def size_mb(self) -> float:
        """Size of the file in MB (10^6 bytes)."""
        return self.path.stat().st_size / 1e6


def image_input(size: int) -> TensorInfo:
    """The input of every artifact: uint8 images, channels last."""
    return TensorInfo("image", "uint8", "NHWC", (None, size, size, 3))


def scores_output(classes: int) -> TensorInfo:
    """The output of a classifier."""
    return TensorInfo("scores", "float32", "NC", (None, classes))


def created_now() -> Created:
    """The versions at work and today's date."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return Created(version("pocketvision"), version("torch"), now.date().isoformat())


def to_metadata(spec: ModelSpec, precision: str) -> dict[str, str]:
    """What an exporter writes into its file: JSON for ``Artifact.load``, a place for the seal, four keys for people."""
    preprocessing = spec.preprocessing
    contract = {
        "precision": precision,
        "spec": to_data(spec),
        "input": asdict(image_input(preprocessing.size)),
        "output": asdict(scores_output(spec.head.classes)),
        "created": asdict(created_now()),
    }
    return {
        CONTRACT: json.dumps(contract, sort_keys=True),
        SEAL: UNSEALED,
        "labels": "\n".join(spec.labels),
        "mean": ", ".join(map(str, preprocessing.mean)),
        "std": ", ".join(map(str, preprocessing.std)),
        "input": describe_input(preprocessing),
    }


def sealed(content: bytes) -> bytes:
    """``content`` with its own digest in the place that ``to_metadata`` left for it, so that any change shows."""
    return content.replace(UNSEALED.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def _seal_holds(content: bytes, seal: str) -> bool:
    unsealed = content.replace(seal.encode(), UNSEALED.encode(), 1) if seal else b""
    return hashlib.sha256(unsealed).hexdigest() == seal


def describe_input(preprocessing: Preprocessing) -> str:
    """The preprocessing contract in one sentence."""
    p = preprocessing
    how = f"({p.interpolation}, antialiased)"
    if p.fit == "stretch":
        placed = f"resize the whole image to {p.size} x {p.size} pixels, each side by itself {how}"
    else:
        placed = f"resize the short side to {p.resize} pixels {how}, cut the central {p.size} x {p.size}"
    return f"uint8 [N, {p.size}, {p.size}, 3], RGB, 0 to 255: {placed}; (x / 255 - mean) / std is in the model"


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


def _from_contract(path: Path, text: str, sha256: str) -> Artifact:
    try:
        contract = json.loads(text)
        return Artifact(
            path=path,
            format=FORMATS[path.suffix],
            precision=contract["precision"],
            spec=from_data(contract["spec"]),
            input=_tensor(contract["input"]),
            output=_tensor(contract["output"]),
            created=Created(**contract["created"]),
            sha256=sha256,
        )
    except (ValueError, KeyError, TypeError, ConfigurationError) as error:
        raise ExportError(
            f"{path} was exported by another version of pocketvision, whose description this one cannot read "
            f"({type(error).__name__}: {error}); export the model again with this version"
        ) from None


def _tensor(data: dict[str, str | list[int | None]]) -> TensorInfo:
    return TensorInfo(**data | {"shape": tuple(data["shape"])})  # type: ignore[arg-type]
