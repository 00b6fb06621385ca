"""The package's version where it is installed and where it is not."""

import runpy
from importlib import metadata
from pathlib import Path

import pytest

INIT = Path(__file__).parent.parent / "src" / "pocketvision" / "__init__.py"


def test_version_is_that_of_the_installed_package():
    assert runpy.run_path(str(INIT))["__version__"] == metadata.version("pocketvision")


def test_a_source_tree_that_is_not_installed_can_be_imported(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert runpy.run_path(str(INIT))["__version__"] == "0+unknown"
