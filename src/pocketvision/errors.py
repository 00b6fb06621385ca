"""Errors a user can act on: each says the cause, names the path or value, and how to fix it."""

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN = 60  # choices that an error lists at most


class PocketvisionError(Exception):
    """Base of every error that this package raises on purpose; the command line prints it without a traceback."""


class ConfigurationError(PocketvisionError):
    """An option, name, field or row that does not exist or is out of range."""


class DataError(PocketvisionError):
    """A data set or image that cannot be used."""


class WeightsError(PocketvisionError):
    """A checkpoint or weights file that is missing, damaged, unsafe or does not fit the network."""


class TrainingError(PocketvisionError):
    """A training run that cannot start, resume or go on."""


class BudgetError(PocketvisionError):
    """A budget that nothing can meet, with what comes nearest."""


class ExportError(PocketvisionError):
    """A conversion that failed, or an exported file that does not compute what the model computes."""


def nearest(name: object, valid: Iterable[object]) -> str:
    """One clause for an error message that names the closest valid choice, or all when none is close."""
    choices = [str(choice) for choice in valid]
    close = get_close_matches(str(name), choices, n=1, cutoff=0.5)
    more = f" and {len(choices) - _SHOWN} more" if len(choices) > _SHOWN else ""
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(choices[:_SHOWN])}{more}"
