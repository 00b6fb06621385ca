"""pocketvision: give it your images and a latency budget, get back a mobile vision model that meets it.

Every command is a function here. Importing this module imports neither torch nor anything else that is slow.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app.advise import advise
    from .app.build import build
    from .app.commands import evaluate, measure, predict
    from .app.data_report import data_report
    from .app.deploy import export
    from .app.doctor import doctor
    from .app.models import models
    from .app.options import TrainOptions
    from .app.training import train
    from .app.verify import verify
    from .nn.load import create_model
    from .zoo import model_spec

try:
    __version__ = metadata.version("pocketvision")
except metadata.PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"
_HOMES = {
    "advise": ".app.advise",
    "build": ".app.build",
    "train": ".app.training",
    "evaluate": ".app.commands",
    "predict": ".app.commands",
    "export": ".app.deploy",
    "measure": ".app.commands",
    "models": ".app.models",
    "data_report": ".app.data_report",
    "doctor": ".app.doctor",
    "verify": ".app.verify",
    "TrainOptions": ".app.options",
    "create_model": ".nn.load",
    "model_spec": ".zoo",
}
__all__ = [
    "TrainOptions",
    "advise",
    "build",
    "create_model",
    "data_report",
    "doctor",
    "evaluate",
    "export",
    "measure",
    "model_spec",
    "models",
    "predict",
    "train",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import a public name's module at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
