"""How the C library hands out memory, which decides half of a training step's time on a CPU."""

import ctypes
import sys
from functools import cache

# Of mallopt(3) in glibc.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


@cache
def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, from now on; True where that is possible (glibc).

    By default glibc asks the kernel for every block above 32 MiB anew and gives it back at once. Activations of a batch
    are that large, and the kernel clears every page again: a training step of MobileNetV2 (224 pixels, batch 32,
    float32, channels_last, one thread) took 1.8 s, and 0.9 s with this (``benchmarks/training.md``). Peak memory
    grows by about a fifth.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
