"""Image and video files -> labels, boxes or masks, as fast as the cores allow."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from ..data.image import SUFFIXES, shown_size
from ..data.transforms import load_prepared, prepare
from ..errors import ConfigurationError, DataError
from ..exporting.artifact import Artifact
from ..measuring.machine import usable_cores
from ..measuring.runtimes import check_threads, open_artifact, open_detector, open_segmenter
from .album import DRAWN, JSON_NAME, Album
from .predicted import BoxedImage, FoundBox, FoundClass, Moment, Prediction, Result, Seen, SegmentedImage, SkippedFile
from .video import VIDEO_SUFFIXES, Frame, check_video_support, is_video, read_frames

CHUNK = 8  # images of one task: enough to make the hand-over cheap, few enough to keep the output flowing
AHEAD = 4  # tasks in flight per thread
MIN_SCORE = 0.25
# What is seen in a prepared image: (file, image as the network takes it, (width, height) as shown, frame of a video).
Look = Callable[[str, np.ndarray, tuple[int, int], Moment | None], Seen]
Done = tuple[Result, Frame | None]  # a result, and the frame to write for it


def predict_files(
    artifact: Artifact,
    paths: list[str | Path],
    *,
    threads: int = 0,
    min_score: float | None = None,
    out: Path | None = None,
) -> Iterator[Result]:
    """A result for each image and each frame of a video, in order. ``paths``: files, and folders that are searched.

    Each thread decodes, prepares and looks at images of its own, so no core waits for another (0: all cores). Boxes
    that score below ``min_score`` (None: 0.25) are not told. ``out``: a folder for an ``Album``. Raises DataError when
    a path does not exist or a folder holds no images, ConfigurationError for a score outside 0 to 1 or for a network
    that finds no boxes, or a video without PyAV.
    """
    threads = threads or usable_cores()
    check_threads(threads)
    look = _look(artifact, min_score)
    files = find_images(paths)
    with ExitStack() as stack:
        album = stack.enter_context(Album(out, artifact, files)) if out else None
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        tasks = _tasks(files, artifact, look, album)
        waiting = deque(pool.submit(task) for task in islice(tasks, AHEAD * threads))
        while waiting:
            for result, frame in waiting.popleft().result():
                if album:
                    album.add(result, frame)
                yield result
            waiting.extend(pool.submit(task) for task in islice(tasks, 1))


def find_images(paths: list[str | Path]) -> list[str]:
    """The files among ``paths``, and below the folders among them every image and video, sorted.

    The pictures that ``predict --out`` drew are left out. Raises DataError for a path that does not exist and a folder
    without images, and ConfigurationError for a video where PyAV is missing, before any work is done.
    """
    files = list[str]()
    for path in map(Path, paths):
        if path.is_dir():
            drawn = [album.with_name(name) for album in path.rglob(JSON_NAME) for name in DRAWN]
            found = sorted(
                str(file)
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES
                and not file.name.startswith(".")
                and not any(file.is_relative_to(folder) for folder in drawn)
                and file.is_file()
            )
            if not found:
                raise DataError(f"{path}: no images in this folder; known suffixes: {', '.join(sorted(SUFFIXES))}")
            files += found
        elif path.exists() or str(path).startswith("sample:"):
            if is_video(path):
                check_video_support(path)
            files.append(str(path))
        else:
            raise DataError(f"{path}: there is no such file or folder; check the path")
    return files


def _look(artifact: Artifact, min_score: float | None) -> Look:
    if artifact.task == "detect":
        score = MIN_SCORE if min_score is None else min_score
        if not 0 <= score <= 1:
            raise ConfigurationError(f"min_score={score} is outside 0 to 1; nearest valid: {int(score > 1)}")
        return _detector(artifact, score)
    if min_score is not None:
        raise ConfigurationError(
            f"min_score is for detectors, {artifact.path} is made to {artifact.task}; leave it out"
        )
    return _segmenter(artifact) if artifact.task == "segment" else _classifier(artifact)


def _classifier(artifact: Artifact) -> Look:
    session, names = open_artifact(artifact, threads=1), artifact.class_names

    def look(file: str, image: np.ndarray, size: tuple[int, int], moment: Moment | None) -> Prediction:
        scores = session(image[None])[0]
        best = int(np.argmax(scores))
        return Prediction(file, names[best], float(scores[best]), moment)

    return look


def _detector(artifact: Artifact, min_score: float) -> Look:
    session, names = open_detector(artifact, threads=1), artifact.class_names
    height, width = artifact.image_shape[:2]

    def look(file: str, image: np.ndarray, size: tuple[int, int], moment: Moment | None) -> BoxedImage:
        found = session(image[None])[0]
        found = found.at(found.scores >= min_score).stretched((width, height), size)
        boxes = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        told = (FoundBox(names[label], label, score, (x1, y1, x2, y2)) for label, score, (x1, y1, x2, y2) in boxes)
        return BoxedImage(file, size, tuple(told), moment)

    return look


def _segmenter(artifact: Artifact) -> Look:
    session, names = open_segmenter(artifact, threads=1), artifact.class_names

    def look(file: str, image: np.ndarray, size: tuple[int, int], moment: Moment | None) -> SegmentedImage:
        found = session(image[None])[0]
        counts = np.bincount(found.ravel(), minlength=len(names))
        ranked = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
        classes = tuple(FoundClass(names[index], index, counts[index] / found.size) for index in ranked)
        return SegmentedImage(file, size, classes, moment, found)

    return look


def _tasks(files: list[str], artifact: Artifact, look: Look, album: Album | None) -> Iterator[Callable[[], list[Done]]]:
    """Work for the threads: some images, or a frame of a video, which is decoded here because frames have an order."""

    def images(chunk: list[str]) -> list[Done]:
        return [(_image(file, artifact, look, album), None) for file in chunk]

    def frame(file: str, frame: Frame) -> list[Done]:
        size = (frame.pixels.shape[1], frame.pixels.shape[0])
        result = look(file, prepare(frame.pixels, artifact.spec.preprocessing), size, frame.moment)
        if album and not isinstance(result, Prediction):
            album.save_mask(result)
            return [(result, replace(frame, pixels=album.picture(frame.pixels, result)))]
        return [(result, None)]

    for of_videos, group in groupby(files, is_video):
        if not of_videos:
            for chunk in _chunks(group):
                yield lambda chunk=chunk: images(chunk)
            continue
        for file in group:
            try:
                for shown in read_frames(file):
                    yield lambda file=file, shown=shown: frame(file, shown)
            except (DataError, ConfigurationError) as error:
                skipped = SkippedFile(file, str(error).removeprefix(f"{file}: "))
                yield lambda skipped=skipped: [(skipped, None)]


def _image(file: str, artifact: Artifact, look: Look, album: Album | None) -> Result:
    """What is seen in an image file; its picture is written."""
    try:
        image = load_prepared(file, artifact.spec.preprocessing)
    except DataError as error:
        return SkippedFile(file, str(error).removeprefix(f"{file}: "))
    size = shown_size(file) if artifact.task != "classify" else (0, 0)
    if isinstance(size, str):
        return SkippedFile(file, size)
    result = look(file, image, size, None)
    if album and not isinstance(result, Prediction):
        album.save_mask(result)
        album.save_picture(result)
    return result


def _chunks(files: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(files)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
