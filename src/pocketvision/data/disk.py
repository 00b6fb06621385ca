"""Decoded images as files, by what they were made from, for every process and every later run."""

import os
import shutil
import struct
import time
import warnings
import zlib
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import numpy as np

from . import samples
from .cache import shaped

LIMIT = 20 << 30  # bytes
_OF_FREE = 4  # the cache takes up to a quarter of what is free
_AGAIN = 256 << 20  # after writing so much, look what other processes have added
_ABANDONED_S = 3600
_VERSION = 1  # raise it when the same file and preparation give other pixels
_HEADER = struct.Struct("<4sIII")  # "PVIC", CRC-32 of the pixels, height, width


def cache_folder() -> Path | None:
    """``$POCKETVISION_CACHE`` (empty: no files), or pocketvision/images below ``$XDG_CACHE_HOME`` or ~/.cache."""
    named = os.environ.get("POCKETVISION_CACHE")
    if named is not None:
        return Path(named) if named else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pocketvision" / "images"


def image_key(image: str, preparation: str) -> str | None:
    """The name of what ``preparation`` makes of the bytes of a file; None for what needs no file.

    Equal files share an entry; a changed file has another one, and so has a new version of what decodes (Pillow) and
    resizes (torch). Raises OSError.
    """
    if image.startswith(samples.PREFIX):
        return None
    import PIL
    import torch

    digest = sha256(f"{_VERSION} {PIL.__version__} {torch.__version__} {preparation}\n".encode())
    digest.update(Path(image).read_bytes())
    return digest.hexdigest()


class DiskCache:
    """Images uint8 [H, W, 3] and masks [H, W] as files in ``folder``, at most ``limit`` bytes and a share of the free
    space.

    An entry is written beside its place and renamed, so a process that is killed leaves no part of one; what a power
    cut or a bad disk leaves has a wrong length or checksum and is made again. Where there is no more room, the entries
    that were not used for longest go, but none that was used since this object was made.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self._since, self._writes = time.time(), True
        self._total = self._written = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (probe := folder / f".{uuid4().hex}.part").touch()
            probe.unlink()
            self._make_room(0)
        except OSError as error:
            self._stop(f"{folder} cannot be written ({error.strerror})")

    def get(self, key: str) -> np.ndarray | None:
        """The image of ``key``, mapped from its file (read only), or None."""
        path = self._path(key)
        try:
            data = np.memmap(path, np.uint8, mode="r")
            mark, checksum, height, width = _HEADER.unpack(data[: _HEADER.size].tobytes())
            pixels = data[_HEADER.size :]
            if mark != b"PVIC" or zlib.crc32(pixels.data) != checksum:
                raise ValueError
            image = shaped(np.asarray(pixels), height, width)
        except (OSError, ValueError, struct.error):  # absent, damaged, or not ours to read: it is made again
            return None
        with suppress(OSError):  # a folder that is only read never makes room either
            os.utime(path)
        return image

    def put(self, key: str, image: np.ndarray) -> bool:
        """Write ``image`` if there is room; whether it is there now."""
        image = np.ascontiguousarray(image)
        header = _HEADER.pack(b"PVIC", zlib.crc32(image.data), *image.shape[:2])
        path, size = self._path(key), _HEADER.size + image.nbytes
        if not self._writes:
            return False
        part = path.with_name(f".{uuid4().hex}.part")
        try:
            if self._total + size > self.limit or self._written > _AGAIN:
                self._make_room(size)
            if self._total + size > self.limit:
                return False
            path.parent.mkdir(exist_ok=True)
            with open(part, "wb") as file:
                file.write(header)
                file.write(image.data)
            os.replace(part, path)
        except OSError as error:
            with suppress(OSError):  # what forbids writing may forbid this too
                part.unlink()
            self._stop(f"{path.parent} cannot be written ({error.strerror})")
            return False
        self._total, self._written = self._total + size, self._written + size
        return True

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]

    def _make_room(self, size: int) -> None:
        """Count what is there; when ``size`` more is too much, delete down to nine tenths of the limit."""
        self._written, now = 0, time.time()
        entries = list[tuple[float, int, Path]]()
        for path in self.folder.glob("??/*"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process deleted it
                continue
            if path.suffix != ".part":
                entries.append((status.st_mtime, status.st_size, path))
            elif now - status.st_mtime > _ABANDONED_S:
                path.unlink(missing_ok=True)
        self._total = sum(bytes_ for _, bytes_, _ in entries)
        self.limit = min(self.limit, self._total + shutil.disk_usage(self.folder).free // _OF_FREE)
        if self._total + size <= self.limit:
            return
        for used, bytes_, path in sorted(entries):
            if used >= self._since or self._total + size <= 0.9 * self.limit:
                break
            path.unlink(missing_ok=True)
            self._total -= bytes_

    def _stop(self, why: str) -> None:
        self._writes = False
        warnings.warn(
            f"{why}: decoded images are kept in memory only, so later runs decode them again; "
            "name another folder in POCKETVISION_CACHE",
            RuntimeWarning,
            stacklevel=2,
        )
