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
