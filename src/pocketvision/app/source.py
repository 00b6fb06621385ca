"""What a user points at (a run folder, an exported file, a weights file, a model's name) -> a model or an artifact."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigurationError, nearest
from ..exporting.artifact import FORMATS, Artifact
from ..nn.model import Model
from ..training.checkpoint import BEST, load_model
from ..zoo import MODELS, model_spec


def weights_file(source: str | Path) -> Path:
    """The weights that a run folder or a file stands for; whether they can be read, ``load_model`` says."""
    path = Path(source)
    return path / BEST if path.is_dir() else path


def is_artifact(source: str | Path) -> bool:
    """Whether a path is to be read as an exported file."""
    return Path(source).suffix in FORMATS


def is_model_name(source: str) -> bool:
    """Whether ``source`` names a network of the zoo (or a JSON file of rows) and no file or folder."""
    return source in MODELS or (source.endswith(".json") and Path(source).is_file())


@contextmanager
def opened(source: str | Path, *, imgsz: int | None = None) -> Iterator[tuple[Artifact, Model | None]]:
    """``source`` as an exported file, and as a model where it is one.

    A run's export is kept beside its weights and made again when they are newer; a model's name gives random weights,
    which is enough for measuring. Raises ConfigurationError for a source that is none of these.
    """
    if is_artifact(source):
        yield Artifact.load(source), None
        return
    if not Path(source).exists() and not is_model_name(str(source)):
        raise ConfigurationError(
            f"{source!s} is no run folder, exported file or weights file, and no model either; "
            f"{nearest(source, MODELS)}"
        )
    with tempfile.TemporaryDirectory() as scratch:
        if is_model_name(str(source)):
            from ..nn.model import build

            model = build(model_spec(str(source), imgsz=imgsz)).eval()
            yield _export(model, Path(scratch) / "model.onnx"), model
            return
        model, path = load_model(source), weights_file(source)
        beside = path.with_suffix(".onnx")
        if beside.is_file() and beside.stat().st_mtime_ns >= path.stat().st_mtime_ns:
            yield Artifact.load(beside), model
            return
        writable = os.access(path.parent, os.W_OK)
        yield _export(model, beside if writable else Path(scratch) / "model.onnx"), model


def _export(model: Model, out: Path) -> Artifact:
    from ..exporting.onnx import export

    return export(model, out=out)
