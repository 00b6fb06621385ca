"""One process at a time trains a run."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import TrainingError
from . import distributed

LOCK = Path("state/lock")
_held = set[int]()  # file descriptors


@contextmanager
def only_here(run: Path) -> Iterator[None]:
    """Hold ``run`` for as long as the block runs; the system lets go of it however this process ends.

    Raises TrainingError when another process holds it. Does nothing on Windows, for a folder without checkpoints, and
    on a file system that keeps no locks. Of processes that train together the first one holds it.
    """
    if sys.platform == "win32" or not distributed.first() or not (run / LOCK).parent.is_dir():
        yield
        return
    import fcntl

    try:
        descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise TrainingError(f"cannot write {run / LOCK}: {error.strerror}; make the run's folder writable") from None
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"another process is training this run, {run}; wait for its end, stop it, or start a new run"
            ) from None
        except OSError:  # no locks here: better to train than to refuse
            pass
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)


def _release_in_child() -> None:
    """A forked data worker that outlives a killed training for some seconds must not go on holding its lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_release_in_child)
