"""Packages that an installation of pocketvision may lack."""

from importlib import import_module
from typing import Any

from ..errors import ConfigurationError


def imported(module: str, extra: str) -> Any:
    """The module of that name. Raises ConfigurationError, with the line that installs it, where it is not there."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f'this needs {error.name}, which is not installed: pip install "pocketvision[{extra}]"'
        ) from None
