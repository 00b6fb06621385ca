"""int8 for ONNX Runtime: a float file of this package, calculated with 8 bits from the image's bytes to the scores.

What ONNX Runtime's own quantiser makes of MobileNetV3 is slower than float. Here the operators are written as its
kernels are fast (``onnx_bytes``), and two things are found out on calibration images: which range of each tensor
harms the network's outputs least (``onnx_calibration.least_harm``), and whether tensors at the network's beginning
should not be bytes at all, whatever the range; up to there it stays float. In MobileNetV3-Small that is the output of
the first convolution, whose channels span 0.2 to 19 while some that matter change by 0.04, and three after it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigurationError
from ..quant.qat import Trained
from ..quant.ranges import RangeMethod, Seen, chosen
from .onnx_bytes import LANE, Writer
from .onnx_calibration import Trial, least_harm, observe
from .onnx_layers import Network, made_by, normalisation, read

if TYPE_CHECKING:
    from onnx import ModelProto

HARM_LIMIT = 0.003  # squared error by one tensor, as a share of the variance of the network's outputs
MOST_FLOAT = 8  # convolutions at the beginning that are asked


def beginning(proto: ModelProto, convolutions: int) -> set[str]:
    """The names of the operators up to that many convolutions, for ``keep_float``."""
    network = read(proto)
    places = [place for place, layer in enumerate(network.layers) if layer.kind == "conv"]
    end = [*places, len(network.layers)][min(convolutions, len(places))]
    return {layer.nodes[0].name for layer in network.layers[:end]} if convolutions else set()


def quantize(
    proto: ModelProto,
    images: np.ndarray,
    *,
    ranges: RangeMethod = "harm",
    correct_bias: bool = True,
    keep_float: Collection[str] | None = None,
    trained: Mapping[str, Trained] | None = None,
) -> ModelProto:
    """The int8 form of ``proto``, a float file of this package; it has the same input and outputs.

    ``images``: uint8 [N, S, S, 3] of the training data. ``ranges``: how the range of a tensor is found, see
    ``quant.ranges``; "harm": that which harms the outputs least. ``correct_bias``: take the mean error that rounding
    the weights makes on the images out of the biases. ``keep_float``: names of operators to leave as they are; None:
    with "harm" the beginning, while a tensor there does more than ``HARM_LIMIT``, else none. ``trained``: ranges that
    the network was trained with, which are taken, by the names of ``nn.rounding``.

    Raises ConfigurationError for images of another type or size, or too few.
    """
    size = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim][1:]
    if images.dtype != np.uint8 or images.ndim != 4 or list(images.shape[1:]) != size or not len(images):
        raise ConfigurationError(
            f"calibration takes uint8 images [N, {', '.join(map(str, size))}], not {images.dtype} "
            f"{list(images.shape)}; data.transforms.load_prepared makes them"
        )
    network = read(proto, keep_float or ())
    trials = _with_known(_trials(network), network, trained or {})
    inputs = {name for layer in network.layers if layer.output in network.quantized for name in layer.inputs}
    seen = observe(proto, inputs | {trial.name for trial in trials}, images, counts=ranges != "minmax")
    if ranges == "harm":
        harms = least_harm(proto, trials, _ends(network), seen, images)
        scales = {trial.name: trial.scale(harms[trial.name].range) for trial in trials}
        if keep_float is None:
            errors = {name: harm.error for name, harm in harms.items()}
            network = read(proto, _better_float(network, errors))
    else:
        scales = {trial.name: trial.scale(_chosen(seen, trial, ranges)) for trial in trials}
    writer = Writer(
        network, scales, {name: one.channel_mean for name, one in seen.items()}, correct_bias, _padded(network)
    )
    for layer in network.layers:
        writer.write(layer)
    return writer.finish(proto)


def _with_known(trials: list[Trial], network: Network, trained: Mapping[str, Trained]) -> list[Trial]:
    """``trials`` with the ranges of ``trained``, where their tensors have as many channels."""
    makers = made_by(network)
    of = {name: trained[maker] for name, maker in makers.items() if maker in trained}
    fits = {name for name in of if network.shapes[name][1] == of[name].channels}
    return [replace(trial, known=of[trial.name].range) if trial.name in fits else trial for trial in trials]


def _chosen(seen: dict[str, Seen], trial: Trial, ranges: RangeMethod) -> tuple[float, float]:
    if trial.known:
        return trial.known
    return chosen(seen[trial.name], ranges, floor=trial.floor, ceiling=trial.ceiling)


def _trials(network: Network) -> list[Trial]:
    """Every tensor that may become bytes and whose range is not known beforehand."""
    trials = list[Trial]()
    for layer in network.layers:
        if layer.output in network.quantized:
            trials += [Trial(name) for name in layer.inputs if name not in network.trunk and layer.kind != "float"]
        if layer.output not in network.trunk or layer.kind == "flatten" or layer.activation == "HardSigmoid":
            continue
        if layer.activation == "HardSwish":
            trials.append(Trial(layer.linear, floor=-3.0, before_hard_swish=True))
        floor = 0.0 if layer.activation in ("Relu", "Clip") else -np.inf
        trials.append(Trial(layer.output, floor, network.ceiling(layer)))
    image = {
        normal[0] for layer in network.layers if layer.kind == "conv" and (normal := normalisation(network, layer))
    }
    return list({trial.name: trial for trial in trials if trial.name not in image}.values())


def _ends(network: Network) -> list[str]:
    """What leaves the part of the network that can be bytes: its outputs, before anything is decoded."""
    read_as_float = {name for layer in network.layers if layer.output not in network.trunk for name in layer.inputs}
    return sorted(network.trunk & (read_as_float | network.outputs))


def _better_float(network: Network, errors: dict[str, float]) -> set[str]:
    """The operators at the network's beginning up to the last reader there of a tensor above the limit. What comes
    later is left as it is: each change between float and bytes costs time."""
    convolutions, last, harmed = 0, -1, set[str]()
    for place, layer in enumerate(network.layers):
        convolutions += layer.kind == "conv"
        if convolutions > MOST_FLOAT:
            break
        if harmed & set(layer.inputs):
            last = place
        if max(errors.get(layer.linear, 0), errors.get(layer.output, 0)) > HARM_LIMIT:
            harmed.add(layer.output)
    return {layer.nodes[0].name for layer in network.layers[: last + 1]}


def _padded(network: Network) -> dict[str, int]:
    """Of tensors that get more channels than they have: how many.

    Tensors that must have the same channels, because an operator combines them, are one group. A group is filled up to
    a multiple of ``LANE`` where a depthwise convolution is in it and nothing else than 8-bit operators sees it.
    """
    groups: dict[str, str] = {}

    def group(name: str) -> str:
        while groups.setdefault(name, name) != name:
            name = groups[name]
        return name

    depthwise, fixed = set[str](), set(network.outputs)
    for layer in network.layers:
        if layer.output not in network.quantized or layer.kind == "concat":
            fixed |= {*layer.inputs, layer.output}
        elif layer.kind == "gemm":
            fixed.add(layer.output)
        elif network.depthwise(layer) or layer.kind != "conv":
            for name in layer.inputs:
                groups[group(name)] = group(layer.output)
        if network.depthwise(layer):
            depthwise.add(layer.output)
    fixed |= set(groups) - network.quantized
    wanted = {group(name) for name in depthwise} - {group(name) for name in fixed}
    return {name: -(-network.shapes[name][1] // LANE) * LANE for name in network.quantized if group(name) in wanted}
