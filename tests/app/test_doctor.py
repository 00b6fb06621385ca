"""What doctor says of a machine on which something is missing."""

import sys
from importlib import metadata

import pytest

from pocketvision.app.doctor import PACKAGES, doctor


@pytest.mark.parametrize("missing", PACKAGES)
def test_a_missing_package_is_named_with_the_fix(missing: str, monkeypatch: pytest.MonkeyPatch):
    version = metadata.version

    def without(name: str) -> str:
        if name == missing:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without)
    checks = {check.name: check for check in doctor().checks}
    assert (checks[missing].ok, checks[missing].fix) == (False, f"pip install {missing}")
    assert all(checks[name].ok for name in PACKAGES if name != missing)


def test_without_torch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    check = next(check for check in doctor().checks if check.name == "accelerator")
    assert (check.ok, check.fix) == (False, "pip install torch")


@pytest.mark.parametrize(("torch", "is_split"), [("2.14.1", False), ("2.15.0+cu130", True), ("3.0", True)])
def test_exporters_that_cannot_share_an_environment(torch: str, is_split: bool, monkeypatch: pytest.MonkeyPatch):
    def version(name: str) -> str:
        if name in ("litert-torch", "coremltools"):
            raise metadata.PackageNotFoundError(name)
        return torch if name == "torch" else "1.0"

    monkeypatch.setattr(metadata, "version", version)
    checks = {check.name: check for check in doctor().checks}
    litert, coreml = checks["export --to litert"], checks["export --to coreml"]
    assert not litert.ok and (f"torch below 2.15, here is {torch}" in litert.found) is is_split
    assert ("python3 -m venv" in litert.fix) is is_split and 'pip install "pocketvision[litert]"' in litert.fix
    assert coreml.fix == 'pip install "pocketvision[coreml]"'
    assert checks["export --to openvino"].ok
