"""Photos of one burst: taken within seconds, frames of one video, or the same picture twice."""

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import PurePath

import numpy as np

from .duplicates import Looks, Pairs, grouped

SECONDS = 2.0  # between two photos of one burst
_ALIKE = 0.9  # correlation from which neighbours in a numbered series are frames of one scene
_TIME = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_. T]?(\d\d)[-_.:]?(\d\d)[-_.:]?(\d\d)(?!\d{4})")
_NUMBER = re.compile(r"(.*?)(\d+)(\D*)")


def bursts_of(looks: Looks) -> dict[str, int]:
    """The burst that each image belongs to: the lowest index among its images."""
    links = [*_same_pictures(looks), *_within_seconds(looks), *_next_frames(looks)]
    return dict(zip(looks.images, grouped(len(looks.images), links).tolist(), strict=True))


def _same_pictures(looks: Looks) -> Iterator[tuple[int, int]]:
    yield from zip(looks.pairs.first.tolist(), looks.pairs.second.tolist(), strict=True)
    seen: dict[tuple[bytes, bytes], int] = {}  # flat images, too, when they are equal
    for index, (thumb, size) in enumerate(zip(looks.thumbs, looks.sizes, strict=True)):
        yield seen.setdefault((thumb.tobytes(), size.tobytes()), index), index


def _within_seconds(looks: Looks) -> Iterator[tuple[int, int]]:
    """Neighbours in one camera's time; the time in a file's name counts where EXIF has none, within its folder."""
    times: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for index, (image, (camera, taken)) in enumerate(zip(looks.images, looks.moments, strict=True)):
        path = PurePath(image)
        moment = _named_time(path.stem) if taken is None else taken
        if moment is not None:
            times["" if taken is not None else str(path.parent), camera].append((moment, index))
    for moments in times.values():
        moments.sort()
        for (before, first), (after, second) in pairwise(moments):
            if after - before <= SECONDS:
                yield first, second


def _named_time(name: str) -> float | None:
    """The time in names such as IMG_20240131_235959.jpg, in seconds."""
    found = _TIME.search(name)
    try:
        return datetime(*map(int, found.groups()), tzinfo=UTC).timestamp() if found else None  # type: ignore[arg-type]
    except ValueError:  # digits that are no time
        return None


def _next_frames(looks: Looks) -> Iterator[tuple[int, int]]:
    """Images of following numbers in one folder (frame_0007, frame_0008) that look alike."""
    numbered: dict[tuple[str, str, int], int] = {}
    for index, image in enumerate(looks.images):
        path = PurePath(image)
        if found := _NUMBER.fullmatch(path.stem):
            name, number, rest = found.groups()
            numbered[str(path.parent / name), rest, int(number)] = index
    pairs = np.array(
        [(index, numbered[name, rest, number + 1]) for (name, rest, number), index in numbered.items()
         if (name, rest, number + 1) in numbered], np.int64,
    ).reshape(-1, 2)  # fmt: skip
    correlation, _ = looks.compare(Pairs(pairs[:, 0], pairs[:, 1], np.zeros(len(pairs), bool)))
    yield from map(tuple, pairs[correlation >= _ALIKE].tolist())
