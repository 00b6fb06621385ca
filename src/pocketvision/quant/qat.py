"""Quantisation-aware training: a finished float network goes on training while it rounds as int8 runtimes do.

What comes out is a float network whose weights stand rounding better, with the range of each activation beside them
(``Model.rounding``). It is exported like any other, to every target.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.transforms import Augment
from ..errors import ConfigurationError
from ..nn.blocks import MobileOneUnit
from ..nn.fold import fold
from ..nn.heads.faster_rcnn import FasterRCNN
from ..nn.heads.masks import MaskOutputs
from ..nn.heads.ssd import SSDOutputs
from ..nn.layers import Normalize
from ..nn.model import Model
from ..nn.rounding import LEVELS, Rounding, rounded, watched
from ..training.recipe import Recipe
from .choice import Choice, chosen_ranges, output_error
from .ranges import Range, Seen, candidates

TRIALS = 8  # images on which ranges are tried
LEAST_RANGE = 1e-3  # of a tensor that is always 0
_BATCH = 4


def prepare(model: Model, images: np.ndarray) -> Model:
    """A copy of ``model`` that rounds as int8 does; its ranges are found on ``images``, uint8 [N, S, S, 3] of training.

    Ranges are those that harm the outputs least (``quant.choice``), not the extremes, and stay as they are in training.
    MobileOne's branches are merged first: they are never what is rounded.
    Raises ConfigurationError for Faster R-CNN, whose second stage is not made of these operators.
    """
    check_network(model)
    result = without_branches(model)
    result.rounding = Rounding(calibrated(Watched(result, images)).ranges, on=True)
    return result


def check_network(model: Model) -> None:
    """Raises ConfigurationError for Faster R-CNN, whose roundings can neither be trained nor looked at one by one."""
    if isinstance(model.head, FasterRCNN):
        raise ConfigurationError(
            "Faster R-CNN can neither train for int8 nor be asked what int8 loses (--max-drop); use SSDLite, leave "
            "--max-drop out, or keep this network in float"
        )


def recipe(images: int, classes: int) -> Recipe:
    """A short fine-tuning at a hundredth of the learning rate of the float run, as torchvision's (FACTS Q4).

    BatchNorm's statistics stay. Images are cropped little and not reduced, so that activations are as in use.
    """
    return Recipe(
        epochs=int(np.clip(8_000 / max(images, 1), 3, 20)),
        optimizer="adamw",
        lr=5e-5,
        warmup_epochs=0.5,
        weight_decay=0.01,
        frozen_bn=True,
        ema=0.99,
        amp=False,
        augment=Augment(scale=(0.6, 1.0)),
    )


class Trained(NamedTuple):
    """The range of a tensor, and how many ``channels`` it has."""

    range: Range
    channels: int


def trained_ranges(model: Model) -> dict[str, Trained]:
    """The ranges that ``model`` was trained with, none of most models."""
    if model.rounding is None:
        return {}
    ranges, channels = model.rounding.ranges, dict[str, int]()

    def visit(name: str, x: Tensor, floor: float) -> Tensor:
        channels[name] = x.shape[1]
        return x

    size = model.spec.preprocessing.size
    with torch.no_grad(), watched(visit):
        fold(model)(torch.zeros(1, 3, size, size))
    return {name: Trained(ranges[name], count) for name, count in channels.items() if name in ranges}


def without_branches(model: Model) -> Model:
    """A copy of ``model`` in eval mode that does not round, with MobileOne's branches merged."""
    model = copy.deepcopy(model).eval()
    model.rounding = None
    branches = any(isinstance(unit, MobileOneUnit) and not unit.is_folded for unit in model.modules())
    return fold(model) if branches else model


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen of an activation: its values, and the candidates for its range."""

    shape: tuple[int, ...]
    seen: Seen
    ranges: tuple[Range, ...]


class Watched:
    """A model in eval mode and images, of which anything can be asked.

    ``activations``: by the names of ``nn.rounding.watched``, in order; ``labels``: a layer's name for each, and for
    weights; ``depthwise``: the names of such convolutions.
    """

    def __init__(self, model: Model, images: np.ndarray) -> None:
        self.model = model.eval()
        normalize = Normalize(model.spec.preprocessing)
        self.images = [normalize(torch.from_numpy(part).permute(0, 3, 1, 2)) for part in _parts(images)]
        self.trials = normalize(torch.from_numpy(spread(images, TRIALS)).permute(0, 3, 1, 2))
        self.depthwise = set[str]()
        self.labels = self._labels()
        self.activations = self._looked()
        self.truth = self.outputs(self.trials)

    @torch.no_grad()
    def outputs(self, x_BCHW: Tensor) -> list[np.ndarray]:
        """What the network says, as arrays."""
        outputs = self.model(x_BCHW)
        if isinstance(outputs, SSDOutputs):
            return [outputs.logits.numpy(), outputs.codes.numpy()]
        return [(outputs.logits if isinstance(outputs, MaskOutputs) else outputs).numpy()]

    def error(self, ranges: Mapping[str, Range]) -> float:
        """What the outputs lose when these activations, and only these, are bytes (``output_error``)."""
        with watched(lambda name, x, _: rounded(x, *ranges[name]) if name in ranges else x):
            return output_error(self.truth, self.outputs(self.trials))

    def _looked(self) -> dict[str, Looked]:
        found, shapes, floors = dict[str, Seen](), dict[str, tuple[int, ...]](), dict[str, float]()

        def visit(name: str, x: Tensor, floor: float, *, second: bool) -> Tensor:
            seen, values = found.setdefault(name, Seen()), x.numpy()
            shapes[name], floors[name] = tuple(x.shape[1:]), max(floor, floors.get(name, floor))
            (seen.count if second else seen.extend)(values)
            return x

        for second in (False, True):  # how often each value comes is countable between the extremes of the first run
            for part in self.images:
                with watched(lambda name, x, floor, second=second: visit(name, x, floor, second=second)):
                    self.outputs(part)
        return {name: Looked(shapes[name], found[name], _options(found[name], floors[name])) for name in found}

    def _labels(self) -> dict[str, str]:
        names = {id(value): name.removesuffix(".weight") for name, value in self.model.named_parameters()}
        labels, latest = dict[str, str](), ["image"]

        def weigh(name: str, weight: Tensor) -> Tensor:
            latest[0] = labels[name] = names.get(id(weight), name)
            if weight.ndim == 4 and weight.shape[1] == 1 < len(weight):
                self.depthwise.add(name)
            return weight

        def visit(name: str, x: Tensor, floor: float) -> Tensor:
            labels.setdefault(name, latest[0])
            return x

        with watched(visit, weigh):
            self.outputs(self.trials[:1])
        return labels


def calibrated(network: Watched) -> Choice:
    """The range of each activation that harms the network's outputs least."""
    return chosen_ranges({name: each.ranges for name, each in network.activations.items()}, network.error)


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """So many of ``images``, evenly."""
    return images[:: max(1, len(images) // count)][:count]


def _options(seen: Seen, floor: float) -> tuple[Range, ...]:
    ranges = [(low, max(high, low + LEAST_RANGE)) for low, high in candidates(seen, floor=floor)]
    if floor == -3.0:  # before hard-swish: as ONNX Runtime's form of it, -3 is a whole number of steps below 0
        zeros = [int(np.clip(3 * LEVELS // (high + 3), 1, LEVELS - 1)) for _, high in ranges]
        ranges = [(-3.0, 3 * LEVELS / zero - 3.0001) for zero in zeros]
    return tuple(ranges)


def _parts(images: np.ndarray) -> list[np.ndarray]:
    return [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
