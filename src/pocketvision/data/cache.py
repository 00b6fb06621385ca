"""Decoded images kept in memory that worker processes share."""

import mmap
import multiprocessing
import os
from pathlib import Path

import numpy as np

LIMIT = 2 << 30
_UNKNOWN_MEMORY = 4 << 30
_LOCK_TIMEOUT_S = 1.0


class ImageCache:
    """Up to ``count`` uint8 images [H, W, 3] or masks [H, W] by index, in at most ``limit`` bytes; what does not fit is
    not kept.

    The memory is anonymous and shared: processes forked later see what the others put in. A process that was
    spawned instead of forked starts with an empty cache of its own.
    """

    def __init__(self, count: int, limit: int) -> None:
        self._arguments = (count, limit)
        self._lock = multiprocessing.Lock()
        self._pixels = _shared(limit, np.uint8)
        self._used = _shared(1, np.int64)
        self._entries = _shared(4 * count, np.int64).reshape(count, 4)  # 1 + offset, height, width, bytes

    def __reduce__(self) -> tuple:
        return ImageCache, self._arguments

    def get(self, index: int) -> np.ndarray | None:
        """The image of ``index`` (a view: do not write to it), or None."""
        offset, height, width, size = self._entries[index].tolist()
        if not offset:
            return None
        return shaped(self._pixels[offset - 1 : offset - 1 + size], height, width)

    def put(self, index: int, image: np.ndarray) -> None:
        """Keep a copy of ``image`` if there is room."""
        if not self._lock.acquire(timeout=_LOCK_TIMEOUT_S):  # a worker was killed just while it held the lock
            return
        try:
            start = int(self._used[0])
            if start + image.size > self._pixels.size:
                return
            self._used[0] = start + image.size
        finally:
            self._lock.release()
        self._pixels[start : start + image.size].reshape(image.shape)[...] = image
        self._entries[index, 1:] = *image.shape[:2], image.size
        self._entries[index, 0] = start + 1  # last: from here on the entry counts


def shaped(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bytes as an image [height, width, 3], or as a mask [height, width] where they are as few. Raises ValueError."""
    return pixels.reshape((height, width) if pixels.size == height * width else (height, width, 3))


def cache_limit() -> int:
    """Bytes that a cache may take: a quarter of the memory that is free now, at most 2 GiB.

    The processes that torchrun started on this machine share that quarter.
    """
    return min(LIMIT, _available_memory() // 4 // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _shared(count: int, kind: type) -> np.ndarray:
    size = max(1, count * np.dtype(kind).itemsize)
    return np.frombuffer(mmap.mmap(-1, size), kind, count)


def _available_memory() -> int:
    """Free bytes of this machine or container; a careful guess where the system does not tell."""
    free = [_UNKNOWN_MEMORY]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")] or free
    except OSError:
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
            free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    try:
        group = Path("/sys/fs/cgroup")
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no such group, or "max": no limit
        pass
    return max(0, min(free))
