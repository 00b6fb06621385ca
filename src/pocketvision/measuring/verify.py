"""Replays the golden pack of an exported file with the package's own preprocessing, or compares an app's stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigurationError, ExportError
from ..exporting.artifact import Artifact
from ..exporting.golden import pack_path, pixel_stages
from ..exporting.runners.steps import Pack, PackError, Stages, decide, stage_files, tensors
from ..exporting.runners.verify import Verdict, verify
from .runtimes import RUNTIMES, Runtime, open_file

Preprocess = Callable[[np.ndarray], Stages]  # uint8 [H, W, 3] -> every stage up to what the file takes


@dataclass(frozen=True, slots=True)
class Verified:
    """What a golden pack says of a file in ``runtime``; of ``stages``, where an app's stage files were compared."""

    artifact: Path
    runtime: str
    n: int
    stages: Path | None
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        about = {"artifact": str(self.artifact), "runtime": self.runtime, "n": self.n}
        return about | {"folder": self.stages and str(self.stages)} | self.verdict.to_dict()

    def __str__(self) -> str:
        what = f"stages of {self.stages}" if self.stages else f"preprocessing of pocketvision, model in {self.runtime}"
        return f"{self.artifact}: {what}, {self.n} golden images\n{self.verdict}"


def verify_file(
    artifact: Artifact, *, runtime: str | None = None, stages: Path | None = None, preprocess: Preprocess | None = None
) -> Verified:
    """Replay the golden pack of ``artifact``: what our preprocessing and the file make of its images, stage by stage.

    ``runtime``: one that opens the file, where several do. ``stages``: a folder of files that an app wrote, which are
    compared instead (docs/verify.md has their names). ``preprocess``: another preprocessing than ours.
    Raises ConfigurationError for a runtime that is not there or does not open the file, ExportError where the pack is
    missing, damaged or of another file, and for stage files that cannot be read.
    """
    pack = open_pack(artifact)
    opener = _runtime(artifact, runtime)
    session = open_file(artifact)
    size = artifact.spec.preprocessing.size

    def run(given: Stages) -> list[np.ndarray]:
        pixels = given.get("input", given.get("cropped", given["resized"]))
        return session(pixels.reshape(1, size, size, 3))

    def own(number: int) -> Stages:
        made = (preprocess or (lambda pixels: our_stages(pixels, artifact, pack)))(pack.pixels(number))
        outputs = run(made)
        return made | {"outputs": outputs, "decision": decide(outputs, pack.manifest, pack.images[number])}

    try:
        verdict = verify(pack, stage_files(stages, pack) if stages else own, run)
    except PackError as error:
        raise ExportError(str(error)) from None
    return Verified(artifact.path, f"{opener.name} {opener.version()}", len(pack.images), stages, verdict)


def our_stages(pixels: np.ndarray, artifact: Artifact, pack: Pack) -> Stages:
    """What ``data.transforms.prepare`` and the contract's normalisation make of an image, uint8 [H, W, 3]."""
    made = pixel_stages(pixels, artifact.spec.preprocessing)
    final = made.get("cropped", made["resized"])
    return {"decoded": pixels} | made | tensors(final, pack.contract, None)


def open_pack(artifact: Artifact) -> Pack:
    """The golden pack beside a file. Raises ExportError where it is missing, damaged or of another file."""
    place = pack_path(artifact.path)
    if not place.is_dir():
        raise ExportError(f"{artifact.path} has no golden pack ({place}); write one: pocketvision export RUN --golden")
    try:
        pack = Pack(place)
    except PackError as error:
        raise ExportError(str(error)) from None
    if pack.manifest["artifact"]["sha256"] != artifact.sha256:
        raise ExportError(
            f"{place} is the pack of another file than {artifact.path}, which was exported anew or exchanged; "
            "export the run again with --golden"
        )
    return pack


def _runtime(artifact: Artifact, name: str | None) -> Runtime:
    opens = {one.name: one for one in RUNTIMES.values() if one.open and one.format == artifact.format}
    if name is not None and name not in opens:
        raise ConfigurationError(f"runtime {name!r} does not open {artifact.path}; valid: {', '.join(opens)}")
    if not opens:
        raise ConfigurationError(f"no runtime on this kind of machine opens {artifact.path} ({artifact.format})")
    return opens[name or next(iter(opens))]
