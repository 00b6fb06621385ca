"""Which layers lose what a network loses in 8 bits, on the user's own images, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..nn.model import Model
from ..nn.rounding import watched, whole_steps
from .choice import output_error
from .qat import Watched, check_network, without_branches

SPREAD = 8.0  # a channel's range as a share of the tensor's, below which few of the 256 values are left for it
WORTH_TELLING = 1e-4  # error of the outputs, as a share of their variance, below which nothing is said


@dataclass(frozen=True, slots=True)
class Finding:
    """What one layer alone loses. ``part``: "weights" or "activations"; ``error``: squared error of the network's
    outputs when only this is in 8 bits, as a share of their variance; ``spread``: range of the whole tensor divided by
    the median range of its channels."""

    layer: str
    part: str
    error: float
    spread: float
    cause: str

    def to_dict(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {"error": round(self.error, 6), "spread": round(self.spread, 2)}

    def __str__(self) -> str:
        return f"{self.layer} ({self.part}): error {self.error:.2%} of the outputs; {self.cause}"


def sensitivity(model: Model, images: np.ndarray, *, least: float = WORTH_TELLING) -> list[Finding]:
    """Every activation (with the range of everything seen) and every layer's weights of ``model`` that alone change its
    outputs on ``images`` (uint8 [N, S, S, 3]), the worst first.

    Those below ``least`` are left out. Raises ConfigurationError for Faster R-CNN.
    """
    check_network(model)
    network = Watched(without_branches(model), images)
    spreads = _spreads(network)
    weighted = [name for name in network.labels if name.startswith(("conv", "linear"))]
    found = list[Finding]()
    for name, each in network.activations.items():
        error = network.error({name: each.ranges[0]})
        cause = _cause(name, weighted, spreads[name], depthwise=name in network.depthwise)
        found.append(Finding(network.labels[name], _part(name), error, spreads[name], cause))
    for name in weighted:
        with watched(lambda _, x, __: x, lambda own, weight, name=name: whole_steps(weight) if own == name else weight):
            error = output_error(network.truth, network.outputs(network.trials))
        cause = _position(name, weighted) or "rounding of the weights"
        found.append(Finding(network.labels[name], "weights", error, 1.0, cause))
    return sorted((each for each in found if each.error > least), key=lambda each: -each.error)


def _part(name: str) -> str:
    kind = name.rstrip("0123456789")
    kinds = {
        "hard_swish": "after hard-swish",
        "mul": "gated",
        "add": "sum with the shortcut",
        "pool": "mean",
        "concat": "joint",
    }
    return f"activations, {kinds[kind]}" if kind in kinds else "activations"


def _position(name: str, weighted: list[str]) -> str:
    if name == weighted[0]:
        return "the first layer, whose errors every other one passes on"
    return "the last layer, whose errors nothing evens out" if name == weighted[-1] else ""


def _cause(name: str, weighted: list[str], spread: float, *, depthwise: bool) -> str:
    """The most particular reason that applies."""
    what = "a depthwise convolution's channels" if depthwise else "its channels"
    unlike = f"{what} differ: the tensor's range is {spread:.0f} times a usual channel's" if spread > SPREAD else ""
    kind = name.rstrip("0123456789")
    reason = {
        "hard_swish": "hard-swish squeezes what is below 0 into 0.375 and leaves what is above unbounded",
        "concat": "joined maps share one scale",
        "mul": "the gate of squeeze-and-excitation multiplies channels apart",
    }.get(kind, _position(name, weighted))
    return "; ".join(filter(None, (reason, unlike))) or "one range for all channels"


def _spreads(network: Watched) -> dict[str, float]:
    """Range of each activation divided by the median range of its channels."""
    ends = dict[str, tuple[Tensor, Tensor]]()

    def visit(name: str, x: Tensor, floor: float) -> Tensor:
        by_channel = x.transpose(0, 1).flatten(1)
        ends[name] = by_channel.amin(1).clamp(min=floor), by_channel.amax(1).clamp(min=floor)
        return x

    with watched(visit):
        network.outputs(network.trials)
    return {
        name: float((high.max() - low.min()) / (high - low).median().clamp(min=1e-6))
        for name, (low, high) in ends.items()
    }
