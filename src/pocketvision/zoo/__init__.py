"""Every backbone of the sources, as tables of rows."""

from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigurationError, nearest
from ..spec.model import ModelSpec, from_json
from ..spec.transform import WidthRule, with_classes, with_hidden, with_size, with_width
from .efficientnet_lite import efficientnet_lite0
from .mnasnet import mnasnet_a1, mnasnet_b1, mnasnet_small
from .mobilenet_v1 import mobilenet_v1
from .mobilenet_v2 import mobilenet_v2
from .mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from .mobileone import (
    mobileone_mu0,
    mobileone_mu1,
    mobileone_mu2,
    mobileone_s0,
    mobileone_s1,
    mobileone_s2,
    mobileone_s3,
    mobileone_s4,
    mobileone_s4_no_se,
)

MODELS: dict[str, Callable[[], ModelSpec]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mnasnet_a1": mnasnet_a1,
    "mnasnet_b1": mnasnet_b1,
    "mnasnet_small": mnasnet_small,
    "mobilenet_v3_large": mobilenet_v3_large,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobileone_s0": mobileone_s0,
    "mobileone_s1": mobileone_s1,
    "mobileone_s2": mobileone_s2,
    "mobileone_s3": mobileone_s3,
    "mobileone_s4": mobileone_s4,
    "mobileone_s4_no_se": mobileone_s4_no_se,
    "mobileone_mu0": mobileone_mu0,
    "mobileone_mu1": mobileone_mu1,
    "mobileone_mu2": mobileone_mu2,
    "efficientnet_lite0": efficientnet_lite0,
}


def model_spec(
    name: str,
    *,
    width: float = 1.0,
    width_rule: WidthRule = "torchvision",
    classes: int = 1000,
    imgsz: int | None = None,
    hidden: int | None = None,
) -> ModelSpec:
    """The network called ``name``, or read from a JSON file of rows when ``name`` ends in ``.json``.

    ``width_rule="paper"`` also gives MobileNetV3 the paper's hidden layer of 1280 at every width (FACTS A7),
    unless ``hidden`` says otherwise. Raises ConfigurationError for an unknown name, rule or row, or a value out of
    range, naming the nearest valid one.
    """
    if name.endswith(".json"):
        spec = read_spec(Path(name))
    elif name in MODELS:
        spec = MODELS[name]()
    else:
        raise ConfigurationError(f"unknown model {name!r}; {nearest(name, MODELS)}")
    spec = with_width(spec, width, width_rule)
    if hidden is None and width_rule == "paper" and name.startswith("mobilenet_v3"):
        hidden = 1280
    if hidden is not None:
        spec = with_hidden(spec, hidden)
    if imgsz is not None:
        spec = with_size(spec, imgsz)
    return spec if classes == spec.head.classes else with_classes(spec, classes)


def read_spec(path: Path) -> ModelSpec:
    """A ``ModelSpec`` from a file that ``spec.model.to_json`` (or a hand) wrote."""
    try:
        spec = from_json(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"cannot read the network description {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is no text; a network description is JSON") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if not isinstance(spec, ModelSpec):
        raise ConfigurationError(f"{path} describes a {type(spec).__name__}; a whole ModelSpec is needed")
    return spec
