"""What a user points at (a run folder, an exported file, a weights file, a model's name) -> a model or an artifact."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np

from ..data.sources import load_split
from ..data.transforms import load_prepared
from ..errors import ConfigurationError, DataError, nearest
from ..exporting import onnx
from ..exporting.artifact import FORMATS, Artifact, remove, rename
from ..exporting.contract import Form
from ..exporting.targets import Precision, export_to
from ..measuring.parity import AnyParity, check_parity
from ..measuring.runtimes import runtime_of
from ..nn.model import Model
from ..spec.transform import with_size
from ..training.checkpoint import BEST, HUB, SPLIT, load_model
from ..zoo import MODELS, model_spec
from .progress import tell

PARITY_IMAGES, BOX_PARITY_IMAGES = 32, 100


def weights_file(source: str | Path) -> Path:
    """The weights that a run folder or a file stands for; whether they can be read, ``load_model`` says."""
    path = Path(source)
    if not path.is_dir():
        return path
    return path / HUB if (path / HUB).is_file() else path / BEST


def is_artifact(source: str | Path) -> bool:
    """Whether a path is to be read as an exported file."""
    return Path(source).suffix in FORMATS


def is_model_name(source: str) -> bool:
    """Whether ``source`` names a network of the zoo (or a JSON file of rows) and no file or folder."""
    return source in MODELS or (source.endswith(".json") and Path(source).is_file())


def split_file(source: str | Path) -> Path | None:
    """The split.json of the run that a run folder, or a file in its ``weights``, belongs to."""
    path = Path(source)
    split = (path if path.is_dir() else path.parent.parent) / SPLIT
    return split if split.is_file() else None


@contextmanager
def opened(
    source: str | Path, *, imgsz: int | None = None, random_weights: bool = False
) -> Iterator[tuple[Artifact, Model | None]]:
    """``source`` as an exported file, and as a model where it is one.

    A run's export is kept beside its weights and made again when they are newer. ``imgsz``: another input size than the
    run's own, for which it is exported each time. With ``random_weights`` the name of a network is a source too: enough
    for measuring. Raises ConfigurationError for a source that is none of these.
    """
    if is_model_name(str(source)) and random_weights:
        from ..nn.model import stand_in

        with tempfile.TemporaryDirectory() as scratch:
            model = stand_in(model_spec(str(source), imgsz=imgsz))
            yield onnx.export(model, out=Path(scratch) / "model.onnx"), model
        return
    if is_artifact(source):
        if imgsz is not None:
            raise ConfigurationError(
                f"{source} is an exported file, whose input size is fixed: --imgsz is for runs and weights files"
            )
        yield Artifact.load(source), None
        return
    if not Path(source).exists():
        hint = f"; or {nearest(source, MODELS)}" if random_weights else "; `pocketvision train` makes a run"
        raise ConfigurationError(f"{source!s} is no run folder, exported file or weights file{hint}")
    model, path = resized(load_model(source), imgsz), weights_file(source)
    beside = path.with_suffix(".onnx")
    if imgsz is None and beside.is_file() and beside.stat().st_mtime_ns >= path.stat().st_mtime_ns:
        yield Artifact.load(beside), model
    elif imgsz is None and os.access(path.parent, os.W_OK):
        yield export_checked(model, beside, split_file(source))[0], model
    else:
        with tempfile.TemporaryDirectory() as scratch:
            yield export_checked(model, Path(scratch) / "model.onnx", split_file(source))[0], model


def resized(model: Model, imgsz: int | None) -> Model:
    """``model``, from now on for an input of ``imgsz`` pixels; None: as it is."""
    if imgsz is not None:
        model.spec = with_size(model.spec, imgsz)
    return model


def export_checked(
    model: Model,
    out: Path,
    split: Path | None,
    form: Form | None = None,
    to: tuple[str, Precision, np.ndarray | None] = ("onnx", "float32", None),
) -> tuple[Artifact, AnyParity | None]:
    """Export to ``out``, which appears only when the file computes what the model does on images of ``split``'s val.

    ``form``: what the file gives (``exporting.artifact.Artifact``); ``to``: format, precision, images that calibrate.
    Parity is None, and said, where there is no split, none of its images can be read or the format's runtime is not
    here. Raises ExportError, which names where the bad file is kept.
    """
    name, precision, images = to
    place = out.with_name(f"{out.stem}.unchecked-{uuid4().hex[:8]}{out.suffix}")  # another export may be at work
    parity = None
    try:
        unchecked = export_to(name, model, place, precision=precision, form=form, calibration=images)
        try:
            if split is not None and runtime_of(unchecked) is not None:
                parity = check_parity(unchecked, model, parity_images(split, unchecked))
        except DataError as error:
            tell(f"warning: parity is not checked, because the run's images cannot be read: {error}")
        rename(unchecked.path, out)
    except BaseException:
        remove(place)
        raise
    return Artifact.load(out), parity


def parity_images(split: Path, artifact: Artifact) -> np.ndarray:
    """Some of a run's validation images as the network takes them: uint8 [N, S, S, 3]."""
    items, wanted = load_split(split).val, BOX_PARITY_IMAGES if artifact.task == "detect" else PARITY_IMAGES
    step = max(1, len(items) // wanted)
    return np.stack([load_prepared(item.image, artifact.spec.preprocessing) for item in items[::step][:wanted]])
