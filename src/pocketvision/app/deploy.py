"""`pocketvision export`: a run -> files for runtimes, compared with the model and, in int8, with their float form."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.sources import load_split
from ..errors import ConfigurationError, ExportError, nearest
from ..exporting.artifact import Artifact, files_of
from ..exporting.contract import Form
from ..exporting.golden import Golden, write_pack
from ..exporting.litert_metadata import WITHOUT
from ..exporting.targets import TARGETS, Precision, check_packages, check_target, export_to, file_name, form_of
from ..files import check_writable
from ..measuring.latency import measure_sessions
from ..measuring.parity import AnyParity
from ..measuring.runtimes import RUNTIMES, open_file, runtime_of
from ..nn.model import Model
from ..quant.qat import check_network as check_network_int8
from ..training.checkpoint import load_model
from .handover import PLACES, Handed, check_network, check_place, hand_over, is_place
from .int8 import Diagnosis, Patient, within_drop
from .progress import tell
from .qat import calibration_images
from .source import export_checked, is_artifact, resized, split_file, weights_file


@dataclass(frozen=True, slots=True)
class Exported:
    """A file, how far it is from the model (None where no data set was at hand to compare on), and of int8 by how much
    it is faster than the float32 file in its runtime with one thread (None where that is not installed). ``diagnosis``:
    what was tried to keep int8 within a given loss."""

    artifact: Artifact
    parity: AnyParity | None
    speedup: float | None = None
    golden: Golden | None = None
    diagnosis: Diagnosis | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "artifact": str(self.artifact.path),
            "format": self.artifact.format,
            "precision": self.artifact.precision,
            "size_mb": round(self.artifact.size_mb, 6),
            "parity": self.parity.to_dict() if self.parity else None,
            "speedup": self.speedup,
            "golden": self.golden and self.golden.to_dict(),
            "diagnosis": self.diagnosis and self.diagnosis.to_dict(),
            "how": None,
        }

    def __str__(self) -> str:
        more = [str(part) for part in (self.diagnosis, self.golden) if part]
        return "\n".join([self._file(), *more])

    def _file(self) -> str:
        file = self.artifact
        parity = f"parity not checked: {why_unchecked(file)}"
        if self.parity:
            parity = f"parity on {self.parity.n} images: {self.parity}"
        text = f"{file.path}: {file.format} {file.precision}, {file.size_mb:.2f} MB; {parity}"
        if file.format == "coreml" and file.precision == "int8":
            text += "; weights of 8 bits, calculated with 16"
        if file.format == "litert" and file.form in WITHOUT:
            text += f"; {WITHOUT[file.form]}"
        if self.speedup is None:
            return text
        if self.speedup < 1:
            return f"{text}; SLOWER than float32: {1 / self.speedup:.2f} times its time; ship the float32 file instead"
        return f"{text}; {self.speedup:.2f} times as fast as float32"


@dataclass(frozen=True, slots=True)
class Export:
    """The files that were written; the JSON has the first one's keys at the top and all as ``artifacts``."""

    files: tuple[Exported | Handed, ...]

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The models alone that a runtime opens."""
        return tuple(file.artifact for file in self.files if file.artifact)

    @property
    def met(self) -> bool:
        """Whether every file loses no more than was asked for."""
        return all(isinstance(file, Handed) or not file.diagnosis or file.diagnosis.met for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        rows = [file.to_dict() for file in self.files]
        return rows[0] | {"artifacts": rows}

    def __str__(self) -> str:
        return "\n".join(map(str, self.files))


def export(
    source: str | Path,
    *,
    to: Sequence[str] = ("onnx",),
    precision: Precision = "float32",
    max_drop: float | None = None,
    outputs: Form | None = None,
    imgsz: int | None = None,
    out: Path | None = None,
    golden: bool = False,
) -> Export:
    """Fold and convert a run or a weights file, and compare the files with the model on the run's own images.

    ``to``: names of ``exporting.targets.TARGETS``, or "web", "hub", "timm" and "torchvision" (``app.handover``), for
    which the file is a folder, or the weights with the other project's names. ``precision``: "int8" calibrates with
    images of the run's training split; with ``max_drop`` remedies are tried until it loses at most so many points
    (``app.int8``). ``outputs``: what the file gives, see ``Artifact``: of a detector "nms" (default), "dense" or "raw",
    of a segmenter "classes" (default) or "logits". ``imgsz``: of the input, where it is not the run's own; such files
    have the size in their names. ``out``: the file, of one format. ``golden``: beside each file a folder with images of
    the run's validation split and the expected result of every stage, for ``verify`` and for apps.

    Raises ConfigurationError for an unknown format or outputs that the network has not, ExportError when a file does
    not compute what the model does.
    """
    to = tuple(dict.fromkeys(to))
    _check(to, precision, outputs, golden or max_drop is not None)
    if max_drop is not None and (precision != "int8" or max_drop < 0):
        raise ConfigurationError(f"max_drop={max_drop:g} is for int8 (--int8), and at least 0 points")
    _check_source(source, to, out)
    model, path, split = resized(load_model(source), imgsz), weights_file(source), split_file(source)
    stem = path.stem if imgsz is None else f"{path.stem}-{imgsz}"
    places = {name: out or path.with_name(file_name(stem, name, precision)) for name in to if not is_place(name)}
    if max_drop is not None:
        check_network_int8(model)
    _check_all(to, places, model, precision, outputs)
    if golden:
        _check_images(source, split)
    images = calibration_images(source, split, model) if precision == "int8" and _calibrates(to) else None
    if model.rounding is not None:  # int8 is compared with what was trained for it
        model.rounding.on = precision == "int8"
    files = list[Exported | Handed]()
    for name in to:
        tell(f"{name}: converting")
        if is_place(name):
            handed = hand_over(name, model, source, out, stem=stem, precision=precision, images=images)
            files.append(handed)
            tell(f"{name}: wrote {handed.path}")
            continue
        place, diagnosis = places[name], None
        if max_drop is None or images is None or split is None:
            artifact, parity = export_checked(model, place, split, outputs, (name, precision, images))
        else:
            patient = Patient(model, Path(source), split, name, outputs, images)
            artifact, parity, diagnosis = within_drop(patient, max_drop, place)
        faster = speedup(artifact, model) if precision == "int8" else None
        pack = golden_pack(source, split, artifact) if golden else None
        files.append(Exported(artifact, parity, faster, pack, diagnosis))
        tell(f"{name}: wrote {place}")
    return Export(tuple(files))


def _check(to: Sequence[str], precision: Precision, outputs: Form | None, more: bool) -> None:
    """Raises ConfigurationError for no target, or one that is unknown or has not this precision; ``more``: see
    ``check_place``."""
    if not to:
        raise ConfigurationError(f"to is empty; name at least one of {', '.join((*TARGETS, *PLACES))}")
    for name in to:
        if is_place(name):
            check_place(name, precision, outputs, more)
        elif name not in TARGETS:
            raise ConfigurationError(f"export format {name!r} is unknown; {nearest(name, (*TARGETS, *PLACES))}")
        elif not check_target(name, precision).calibrates and more:
            raise ConfigurationError(f"a golden pack and max_drop need a runtime on this machine, which {name} has not")


def _calibrates(to: Sequence[str]) -> bool:
    return any(is_place(name) or TARGETS[name].calibrates for name in to)


def _check_source(source: str | Path, to: Sequence[str], out: Path | None) -> None:
    """Raises ConfigurationError for a source that cannot be exported, or to ``out``."""
    if out is not None and len(to) > 1:
        raise ConfigurationError(f"out={out} names one file, to={', '.join(to)} are {len(to)}; leave one of them out")
    if is_artifact(source) or not Path(source).exists():
        raise ConfigurationError(f"{source} is no run folder or weights file, which is what export takes")
    if out is not None and out.resolve() in (weights_file(source).resolve(), Path(source).resolve()):
        raise ConfigurationError(f"out={out} is what is exported, which would be lost; choose another place")


def _check_all(
    to: Sequence[str], places: dict[str, Path], model: Model, precision: Precision, outputs: Form | None
) -> None:
    """Whatever can be known before the first file is written: what the second lacks would show minutes later."""
    for name in to:
        if is_place(name):
            check_network(name, model)
        else:
            form_of(name, model.spec.head, outputs)
            check_packages(name, precision)
            _check_writable(places[name], name)


def _check_writable(place: Path, name: str) -> None:
    """Raises ConfigurationError or ExportError where no file of the target can be written to ``place``."""
    suffix = TARGETS[name].suffix  # ncnn's whole, because of OpenVINO's .bin
    if place.name.removesuffix(suffix) in ("", place.name):
        raise ConfigurationError(f"{place} must end in {suffix}; nearest valid: {place.with_suffix(suffix)}")
    try:
        for file in () if place.is_dir() and name == "coreml" else files_of(place):
            check_writable(file)
    except OSError as error:
        raise ExportError(f"cannot write {place}: {error.strerror}; choose another place") from None


def why_unchecked(artifact: Artifact) -> str:
    """Why a file could not be compared with its model."""
    if runtime_of(artifact):
        return "no images of its run"
    runtime = next((one for one in RUNTIMES.values() if one.open and one.format == artifact.format), None)
    if runtime is None:
        return "Core ML runs on macOS and iOS only; try the file there"
    return f"{runtime.name} is not installed: {runtime.install}"


def precision_asked(int8: bool, fp16: bool) -> Precision:
    """What two switches mean. Raises ConfigurationError for both."""
    if int8 and fp16:
        raise ConfigurationError("--int8 and --fp16 exclude each other; give one of them")
    return "int8" if int8 else "float16" if fp16 else "float32"


def golden_pack(source: str | Path, split: Path | None, artifact: Artifact) -> Golden:
    """Write the golden pack of a file of a run. Raises ConfigurationError where the run's split is not at hand or the
    file's runtime is not installed."""
    split, session = _check_images(source, split), open_file(artifact)
    return write_pack(artifact, load_split(split).val, session, f"{session.runtime} {session.version}")


def _check_images(source: str | Path, split: Path | None) -> Path:
    if split is None:
        raise ConfigurationError(
            f"a golden pack needs images of the validation split, which {source} does not name (no split.json); "
            "export the run's folder instead"
        )
    return split


def speedup(artifact: Artifact, model: Model) -> float | None:
    """How many times as fast as its float32 form ``artifact`` is in its runtime with one thread, both in turns."""
    if runtime_of(artifact) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"float{artifact.path.suffix}"
        float32 = export_to(artifact.format, model, place, form=artifact.form)
        sessions = {"int8": open_file(artifact), "float32": open_file(float32)}
        found = measure_sessions(sessions, seconds=10)
    return round(found["float32"].median_ms / found["int8"].median_ms, 3)
