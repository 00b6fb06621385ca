"""What a user points at (a run folder, an exported file, a weights file, a model's name) -> a model or an artifact."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigurationError, WeightsError, nearest
from ..export.artifact import FORMATS, Artifact
from ..nn.model import Model
from ..zoo import MODELS, model_spec

BEST = Path("weights") / "best.safetensors"


def load_trained(source: str | Path) -> tuple[Model, Path]:
    """The trained model of a run folder or a weights file, in eval mode, and the file it was read from.

    Raises WeightsError with the path and the fix.
    """
    from ..nn.load import load_model

    path = Path(source)
    if path.is_dir():
        if not (path / BEST).is_file():
            raise WeightsError(f"{path} is not a finished run: it has no {BEST}; name a folder below runs/")
        path = path / BEST
    model, _ = load_model(None, path)
    return model.eval(), path


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
        model, path = load_trained(source)
        beside = path.with_suffix(".onnx")
        if beside.is_file() and beside.stat().st_mtime_ns >= path.stat().st_mtime_ns:
            yield Artifact.load(beside), model
            return
        writable = os.access(path.parent, os.W_OK)
        yield _export(model, beside if writable else Path(scratch) / "model.onnx"), model


def _export(model: Model, out: Path) -> Artifact:
    from ..export.onnx import export

    return export(model, out=out)
