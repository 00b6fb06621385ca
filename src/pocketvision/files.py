"""Files that are either whole or absent: written beside their place, then renamed onto it."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4


def write_atomic(path: Path | str, write: Callable[[Path], object]) -> Path:
    """Call ``write(temporary_path)`` in the folder of ``path``, then rename the result to ``path``.

    A crash at any moment leaves the old file or the new one, never a part. The data reaches the disk
    before the rename (fsync), so this also holds for a power cut. A link stays, and what it leads to is written.
    Returns ``path``. Raises OSError, also for a folder, a device or a pipe: what is no regular file stays as it is.
    """
    target = _replaceable(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid4().hex[:12]}-{target.name[-80:]}")
    try:
        write(temporary)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Path(path)


def check_writable(path: Path | str) -> None:
    """Raise the OSError that ``write_atomic`` would raise for this place, and leave nothing behind."""
    folder = _replaceable(path).parent
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass


def _replaceable(path: Path | str) -> Path:
    """Where ``path`` leads, if nothing or a regular file is there: a rename would replace even a device."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise FileExistsError(errno.EEXIST, "it exists and is no regular file", str(path))
    return target


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write ``data`` to ``path`` atomically."""
    return write_atomic(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: Path | str, text: str) -> Path:
    """Write ``text`` (UTF-8) to ``path`` atomically."""
    return write_bytes(path, text.encode())


def write_folder(path: Path | str, fill: Callable[[Path], object], *, sign: str) -> Path:
    """Call ``fill(temporary_folder)`` beside ``path``, then rename the result to ``path``; an older folder goes.

    A crash leaves the old folder, the new one or none of that name, never a part. Only an empty folder, or one that
    holds the file ``sign``, is replaced. Returns ``path``. Raises OSError, also where anything else is there.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not (target.is_dir() and ((target / sign).is_file() or not any(target.iterdir()))):
        raise FileExistsError(errno.EEXIST, f"something else is there (no folder with {sign})", str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name[-80:]}-", dir=target.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        fill(new)
        for file in new.rglob("*"):
            if file.is_file():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
        if target.exists():
            os.replace(target, old)
        os.replace(new, target)
    return Path(path)
