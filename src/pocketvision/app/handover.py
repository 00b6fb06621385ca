"""`pocketvision export --to web, hub, timm or torchvision`: what is no single file for a runtime."""

import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

import numpy as np

from ..errors import ConfigurationError
from ..exporting.artifact import Artifact
from ..exporting.contract import Form
from ..exporting.targets import Precision
from ..measuring.parity import AnyParity
from ..nn.model import Model
from .source import export_checked, split_file, weights_file

Place = Literal["web", "hub", "timm", "torchvision"]
PLACES: tuple[Place, ...] = get_args(Place)
PRECISIONS: dict[Place, tuple[Precision, ...]] = {"web": ("float32", "int8")}  # the others hold the weights as trained
CARD = "model_card.md"  # of a run that `build` made


@dataclass(frozen=True, slots=True)
class Handed:
    """What was written to ``path``, and ``how`` it is used. ``parity``: of a web folder's model."""

    path: Path
    to: Place
    precision: Precision
    size_mb: float
    how: str
    artifact: Artifact | None = None
    parity: AnyParity | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "artifact": str(self.path),
            "format": self.to,
            "precision": self.precision,
            "size_mb": round(self.size_mb, 6),
            "parity": self.parity.to_dict() if self.parity else None,
            "speedup": None,
            "golden": None,
            "diagnosis": None,
            "how": self.how,
        }

    def __str__(self) -> str:
        parity = f"; parity on {self.parity.n} images: {self.parity}" if self.parity else ""
        return f"{self.path}: {self.to} {self.precision}, {self.size_mb:.2f} MB{parity}\n{self.how}"


def is_place(name: str) -> TypeGuard[Place]:
    """Whether ``name`` is one of ``PLACES``."""
    return name in PLACES


def check_place(name: Place, precision: Precision, outputs: Form | None, more: bool) -> None:
    """Raises ConfigurationError for what it has not: a precision, outputs, or ``more`` (a golden pack or a limit)."""
    valid = PRECISIONS.get(name, ("float32",))
    if precision not in valid:
        raise ConfigurationError(f"{name} has no {precision} export; valid: {', '.join(valid)}")
    if outputs is not None:
        raise ConfigurationError(f"{name} decides itself what comes out: leave out outputs={outputs}")
    if more:
        raise ConfigurationError(f"{name} has neither golden pack nor max_drop; --to onnx has them of the same network")


def check_network(name: Place, model: Model) -> None:
    """Raises ExportError where ``name`` is a project that has no network like this one."""
    if name == "timm" or name == "torchvision":
        from ..exporting.peers import loading_line

        loading_line(model.spec, name, "")


def hand_over(
    name: Place,
    model: Model,
    source: str | Path,
    out: Path | None,
    *,
    stem: str,
    precision: Precision = "float32",
    images: np.ndarray | None = None,
) -> Handed:
    """Write ``model`` of ``source`` for ``name``, beside the weights or to ``out``.

    ``images`` calibrate int8. Raises ExportError where ``name`` has no such network or something cannot be had.
    """
    path = weights_file(source)
    if name == "web":
        return _web(model, source, out or path.with_name(f"{stem}.web"), precision, images)
    if name == "hub":
        from ..exporting.hub import write_hub

        split = split_file(source)
        card = split.with_name(CARD) if split and split.with_name(CARD).is_file() else None
        place = write_hub(model, out or path.with_name(f"{stem}.hub"), card=card)
        pushed = f'upload_folder(repo_id="USER/NAME", folder_path="{place}")'
        how = f"python: from huggingface_hub import upload_folder; {pushed}"
        return Handed(place, name, precision, size_mb(place), how)
    from ..exporting.peers import write_peer

    place = out or path.with_name(f"{stem}.{name}.safetensors")
    line = write_peer(model, name, place)
    return Handed(place, name, precision, size_mb(place), f"python: {line}")


def _web(model: Model, source: str | Path, out: Path, precision: Precision, images: np.ndarray | None) -> Handed:
    from ..exporting.web.folder import write_web

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        made, parity = export_checked(model, file, split_file(source), None, ("onnx", precision, images))
        artifact = write_web(made, out)
    how = f"try it: python -m http.server --directory {shlex.quote(str(out))}, then open http://localhost:8000"
    return Handed(out, "web", precision, size_mb(out), how, artifact, parity)


def size_mb(path: Path) -> float:
    """Size of a file, or of all files in a folder, in MB (10^6 bytes)."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
