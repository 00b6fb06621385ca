"""Packages that an installation of pocketvision may lack."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import ConfigurationError


def imported(module: str, extra: str) -> Any:
    """The module of that name. Raises ConfigurationError, with the line that installs it, where it is not there."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise _missing(error.name or module, extra) from None


def check_installed(module: str, extra: str) -> None:
    """The same error, without the seconds that importing a module (of the highest level) takes."""
    if find_spec(module) is None:
        raise _missing(module, extra)


def _missing(module: str, extra: str) -> ConfigurationError:
    return ConfigurationError(f'this needs {module}, which is not installed: pip install "pocketvision[{extra}]"')


@contextmanager
def quiet() -> Iterator[None]:
    """Without the notes, warnings and progress bars of converters; errors are raised as ever."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w", encoding="utf-8") as nowhere:
            warnings.simplefilter("ignore")
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(before)
