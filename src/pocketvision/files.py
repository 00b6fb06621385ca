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
