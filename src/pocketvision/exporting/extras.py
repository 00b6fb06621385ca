"""Packages that an installation of pocketvision may lack."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
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
