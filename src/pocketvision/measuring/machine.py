"""Facts of this machine: what every measured number has to say about where it was measured."""

import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

_CHAIN = 2000  # additions: their operands stay in the innermost cache


@dataclass(frozen=True, slots=True)
class Machine:
    """``cores`` is how many this process may use; ``memory_mb`` is None where the system does not tell."""

    cpu: str
    cores: int
    memory_mb: int | None
    os: str
    architecture: str
    python: str

    def to_dict(self) -> dict[str, str | int | None]:
        """The fields, ready for JSON."""
        return asdict(self)


@cache
def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(
        cpu=cpu_name(),
        cores=usable_cores(),
        memory_mb=_memory_mb(),
        os=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        python=platform.python_version(),
    )


def usable_cores() -> int:
    """Cores that this process is allowed to run on (fewer than the machine has under taskset or in a container)."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def load_average() -> float | None:
    """Runnable processes on average over the last minute; None on Windows, which does not count them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def addition_ns() -> float:
    """Nanoseconds of one addition that waits for the one before, the least of a few chains: it follows the clock of the
    core that this thread is on, and nothing else."""
    import numpy as np

    numbers, sums, least = np.ones(_CHAIN), np.empty(_CHAIN), float("inf")
    for _ in range(8):
        start = time.perf_counter_ns()
        np.cumsum(numbers, out=sums)
        least = min(least, (time.perf_counter_ns() - start) / _CHAIN)
    return least


def cpu_name() -> str:
    """The processor's name as its maker prints it, or the board's where an ARM processor has no name."""
    if sys.platform == "linux":
        return _linux_cpu_name(Path("/proc/cpuinfo").read_text(errors="replace")) or platform.machine()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        return asked.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def _linux_cpu_name(cpuinfo: str) -> str:
    """The name in /proc/cpuinfo, with family and model numbers: cloud machines call whole generations "AMD EPYC"."""
    facts = dict[str, str]()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or facts.get("Model") or facts.get("Hardware") or ""
    if "cpu family" in facts and "model" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return name


def _memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):
        return None
