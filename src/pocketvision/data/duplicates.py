"""The same picture twice, though it was encoded again, resized or mirrored: found by a hash, proved by its pixels."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .image import THUMB, Glimpse

# Measured on clothing10, CIFAR-10 and scikit-learn's digits (docs/LOG.md, "Duplicates"): copies pass, others do not.
CORRELATION, RESIDUAL, RESIDUAL_TINY = 0.98, 10.0, 5.0
_TINY = 48  # pixels: shorter sides up to here hold too little to tell look-alikes from copies that were encoded again
_FLAT = 4.0  # levels of standard deviation, up to which an image has nothing to compare
_RADIUS = 10  # of 64 bits
_ASPECT = 0.03
_BLOCK, _CHUNK = 1 << 22, 1 << 11  # pairs of hashes compared, and pairs of pictures, at a time
_THREADS = min(8, os.cpu_count() or 1)


class Pairs(NamedTuple):
    """Pairs of images: ``first`` < ``second``, int64 [P]; ``mirrored``: bool [P], one is the other's mirror image."""

    first: np.ndarray
    second: np.ndarray
    mirrored: np.ndarray


@dataclass(frozen=True, eq=False)
class Looks:
    """How the images of a data set look at a glance, in one order: what finding copies needs, 2 kB an image."""

    images: tuple[str, ...]
    thumbs: np.ndarray
    sizes: np.ndarray
    moments: tuple[tuple[str, float | None], ...]

    @classmethod
    def of(cls, images: Iterable[str], glimpses: Sequence[Glimpse]) -> "Looks":
        """Glimpses, put together: ``thumbs`` uint8 [N, 24, 24, 3], ``sizes`` (width, height) int64 [N, 2]."""
        thumbs = np.stack([look.thumb for look in glimpses]) if glimpses else np.zeros((0, THUMB, THUMB, 3), np.uint8)
        sizes = np.array([(look.width, look.height) for look in glimpses], np.int64).reshape(-1, 2)
        return cls(tuple(images), thumbs, sizes, tuple((look.camera, look.taken) for look in glimpses))

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Width and height of each image."""
        return {image: (width, height) for image, (width, height) in zip(self.images, self.sizes.tolist(), strict=True)}

    @cached_property
    def pairs(self) -> Pairs:
        """All pairs that show the same picture."""
        hashes = perceptual_hashes(self.thumbs)
        textured = np.flatnonzero(_deviation(self.thumbs) > _FLAT)
        found = [Pairs(*(np.zeros(0, kind) for kind in (np.int64, np.int64, bool)))]
        for near in near_hashes(hashes[textured]):
            pairs = Pairs(textured[near.first], textured[near.second], near.mirrored)
            found.append(_selected(pairs, self.same(pairs)))
        return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def same(self, pairs: Pairs) -> np.ndarray:
        """Which pairs show the same picture, bool [P]: equal shape, equal pixels but for brightness and contrast."""
        aspect = np.log(self.sizes[:, 0] / self.sizes[:, 1])
        short = np.minimum(*(self.sizes[index].min(1) for index in (pairs.first, pairs.second)))
        same = np.abs(aspect[pairs.first] - aspect[pairs.second]) < _ASPECT + 1 / short
        left = np.flatnonzero(same)
        correlation, residual = self.compare(_selected(pairs, left))
        allowed = np.where(short[left] > _TINY, RESIDUAL, RESIDUAL_TINY)
        same[left] = (correlation >= CORRELATION) & (residual <= allowed)
        return same

    def compare(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """Of each pair, float32 [P]: the correlation of their pixels (each channel around its own mean), and the
        root mean square, in levels of 255, of what no brightness and contrast of the whole picture explains.
        """
        results = [np.zeros((2, 0), np.float32)]
        for start in range(0, len(pairs.first), _CHUNK):
            first, second, mirrored = (column[start : start + _CHUNK] for column in pairs)
            a, b = (self.thumbs[index].astype(np.float32) for index in (first, second))
            b[mirrored] = b[mirrored, :, ::-1]
            a, b = (x - x.mean((1, 2, 3), keepdims=True) for x in (a, b))
            gain = (a * b).sum((1, 2, 3)) / (b * b).sum((1, 2, 3)).clip(1)
            residual = np.sqrt(((a - gain[:, None, None, None] * b) ** 2).mean((1, 2, 3)))
            a, b = (x - x.mean((1, 2), keepdims=True) for x in (a, b))
            norm = np.sqrt((a * a).sum((1, 2, 3)) * (b * b).sum((1, 2, 3))).clip(1)
            results.append(np.stack([(a * b).sum((1, 2, 3)) / norm, residual]))
        correlation, residual = np.concatenate(results, axis=1)
        return correlation, residual


def perceptual_hashes(thumbs: np.ndarray) -> np.ndarray:
    """64-bit hashes of thumbs uint8 [N, S, S, 3] and of their mirror images: uint64 [N, 2].

    A bit says whether one of the 8 x 8 lowest frequencies of the grey picture (discrete cosine transform) is above
    their median; encoding, size and brightness hardly move any.
    """
    side = thumbs.shape[1]
    cosines = np.cos(np.pi / side * (np.arange(side) + 0.5) * np.arange(8)[:, None]).astype(np.float32)
    hashes = np.zeros((len(thumbs), 2), np.uint64)
    for start in range(0, len(thumbs), _CHUNK):
        grey = thumbs[start : start + _CHUNK].mean(3, dtype=np.float32)
        waves = cosines @ grey @ cosines.T
        waves[:, 0, 0] = 0  # the brightness
        for column, sign in enumerate((1, (-1) ** np.arange(8))):  # mirroring turns the odd waves across round
            flat = (waves * sign).reshape(len(waves), 64)
            bits = np.packbits(flat > np.median(flat, axis=1, keepdims=True), axis=1)
            hashes[start : start + _CHUNK, column] = bits.view(np.uint64)[:, 0]
    return hashes


def near_hashes(hashes: np.ndarray, radius: int = _RADIUS) -> Iterator[Pairs]:
    """Pairs whose hashes (uint64 [N, 2], as they are and mirrored) differ in at most ``radius`` bits, block by block.

    A pair that is near both ways comes as two. Memory is bounded; time grows with N squared.
    """
    plain, mirror = np.ascontiguousarray(hashes.T)
    rows = max(1, _BLOCK // max(1, len(hashes)))

    def block(start: int) -> list[Pairs]:
        found = list[Pairs]()
        for other, mirrored in ((plain, False), (mirror, True)):
            distance = np.bitwise_count(plain[start : start + rows, None] ^ other[None, start + 1 :])
            first, second = np.nonzero(distance <= radius)
            later = second >= first
            first, second = first[later] + start, second[later] + start + 1
            found.append(Pairs(first, second, np.full(len(first), mirrored)))
        return found

    with ThreadPoolExecutor(_THREADS) as threads:  # numpy computes outside Python's global lock
        for pairs in threads.map(block, range(0, len(hashes), rows)):
            yield from pairs


def grouped(count: int, links: Iterable[tuple[int, int]]) -> np.ndarray:
    """The group of each of ``count`` things, int64 [count], where links put two into one: its lowest member."""
    group = list(range(count))

    def root(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = group[index]
        return index

    for first, second in links:
        a, b = root(first), root(second)
        group[max(a, b)] = min(a, b)
    return np.array([root(index) for index in range(count)], np.int64)


def _selected(pairs: Pairs, which: np.ndarray) -> Pairs:
    return Pairs(*(column[which] for column in pairs))


def _deviation(thumbs: np.ndarray) -> np.ndarray:
    """Standard deviation of the pixels of each thumb, each channel around its own mean: float [N]."""
    chunks = (thumbs[start : start + _CHUNK].astype(np.float32) for start in range(0, len(thumbs), _CHUNK))
    return np.concatenate([np.zeros(0), *(np.sqrt(chunk.var((1, 2)).mean(1)) for chunk in chunks)])
