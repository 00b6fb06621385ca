"""Image files -> labels, as fast as the cores allow."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..data.image import SUFFIXES
from ..data.transforms import load_prepared
from ..errors import DataError
from ..exporting.artifact import Artifact
from ..measuring.machine import usable_cores
from ..measuring.runtimes import check_threads, open_artifact

CHUNK = 8  # images of one task: enough to make the hand-over cheap, few enough to keep the output flowing
AHEAD = 4  # tasks in flight per thread


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most probable class of an image; ``score`` is its probability, 0 to 1."""

    file: str
    label: str
    score: float

    def to_dict(self) -> dict[str, Any]:
        return {"file": self.file, "label": self.label, "score": round(self.score, 6)}

    def __str__(self) -> str:
        return f"{self.file}: {self.label} {self.score:.3f}"


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that could not be read, and why."""

    file: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return {"file": self.file, "reason": self.reason}

    def __str__(self) -> str:
        return f"{self.file}: skipped, {self.reason}"


def label_images(
    artifact: Artifact, images: list[str | Path], *, threads: int = 0
) -> Iterator[Prediction | SkippedFile]:
    """A result for each image, in order. ``images``: files, and folders that are searched for images.

    Each thread decodes, prepares and classifies images of its own, so no core waits for another (0: all cores).
    Raises DataError when a path does not exist or a folder holds no images.
    """
    threads = threads or usable_cores()
    check_threads(threads)
    session = open_artifact(artifact, threads=1)
    names = artifact.labels or tuple(str(index) for index in range(artifact.spec.head.classes))

    def label(files: list[str]) -> list[Prediction | SkippedFile]:
        results = list[Prediction | SkippedFile]()
        for file in files:
            try:
                image = load_prepared(file, artifact.spec.preprocessing)
            except DataError as error:
                results.append(SkippedFile(file, str(error).removeprefix(f"{file}: ")))
                continue
            scores = session(image[None])[0]
            best = int(np.argmax(scores))
            results.append(Prediction(file, names[best], float(scores[best])))
        return results

    chunks = _chunks(find_images(images))
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(label, chunk) for chunk in islice(chunks, AHEAD * threads))
        while waiting:
            done = waiting.popleft()
            yield from done.result()
            waiting.extend(pool.submit(label, chunk) for chunk in islice(chunks, 1))


def find_images(paths: list[str | Path]) -> list[str]:
    """The files among ``paths``, and below the folders among them every file with an image's suffix, sorted.

    Raises DataError for a path that does not exist and a folder without images, before any work is done.
    """
    files = list[str]()
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(
                str(file)
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
            )
            if not found:
                raise DataError(f"{path}: no images in this folder; known suffixes: {', '.join(sorted(SUFFIXES))}")
            files += found
        elif path.exists() or str(path).startswith("sample:"):
            files.append(str(path))
        else:
            raise DataError(f"{path}: there is no such file or folder; check the path")
    return files


def _chunks(files: list[str]) -> Iterator[list[str]]:
    rest = iter(files)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
