"""int8 for ExecuTorch: torchao's observers, told on real images which ranges to take."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..quant.choice import chosen_ranges, output_error
from ..quant.ranges import Range, Seen, candidates
from .extras import imported

EXTRA = "executorch"
LEAST_RANGE = 1e-3  # of a tensor that is always 0
MOST_BIAS = 2**30  # a bias is a 32-bit number of steps
TRIALS = 8  # images on which ranges are tried
MOST_ROWS = 3  # of the backbone that may stay float
_WITH_WEIGHTS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
_ROW = re.compile(r"backbone\.rows\.(\d+)")


def quantize(module: nn.Module, image: Tensor, calibration: np.ndarray) -> nn.Module:
    """``module``, which takes images like ``image``, with 8 bits as XNNPACK calculates with them.

    Weights: int8, symmetric, a range for each output channel; activations: int8, a range for each tensor
    (``quant.choice.chosen_ranges``). Where a tensor of the backbone's first rows had better not be bytes, whatever the
    range, the rows up to there stay float.
    """
    prepared = _prepared(module, image, 0)
    observed = _observed(prepared)
    observers = {names[0]: observer for observer, names in observed.items()}
    images = [torch.from_numpy(np.array(one[None], order="C")) for one in calibration]
    trials = images[:: max(1, len(images) // TRIALS)][:TRIALS]
    seen = _seen(prepared, observers, images)
    options = {name: _options(each) for name, each in seen.items()}
    with _replaced(observers, dict.fromkeys(observers, _same)):
        truth = _outputs(prepared, trials)

    def error(ranges: Mapping[str, Range]) -> float:
        with _replaced(observers, {name: _rounding(ranges.get(name)) for name in observers}):
            return output_error(truth, _outputs(prepared, trials))

    choice = chosen_ranges(options, error)
    ranges = {name: choice.ranges[names[0]] for names in observed.values() for name in names}
    if rows := _beginning(prepared, choice.harmful):
        prepared = _prepared(module, image, rows)
        observed = _observed(prepared)
    for observer, names in observed.items():
        _fix(observer, *next(ranges[name] for name in names if name in ranges))
    means = {name: seen[names[0]].channel_mean for names in observed.values() for name in names}
    _fix_weights(prepared, means)
    return imported("torchao.quantization.pt2e.quantize_pt2e", EXTRA).convert_pt2e(prepared)


def _prepared(module: nn.Module, image: Tensor, float_rows: int) -> nn.Module:
    """The exported graph with observers, but for the first rows of the backbone. (Weights belong to no module; the
    operator that reads them decides.)"""
    xnnpack = imported("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", EXTRA)
    quantizer = xnnpack.XNNPACKQuantizer()
    quantizer.set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
    quantizer.set_filter_function(
        lambda node: node.op == "get_attr" or (_in_model(node) and _row(node, float_rows) >= float_rows)
    )
    graph = torch.export.export(module, (image,)).module()
    prepared = imported("torchao.quantization.pt2e.quantize_pt2e", EXTRA).prepare_pt2e(graph, quantizer)
    _outputs(prepared, [image])  # the observers of weights look once, at what never changes
    return prepared


def _observed(prepared: Any) -> dict[Any, list[str]]:
    """The observers of activations, each with the names of the nodes that it observes."""
    found = dict[Any, list[str]]()
    for node in prepared.graph.nodes:
        if node.op == "call_module":
            observer = prepared.get_submodule(node.target)
            if hasattr(observer, "histogram"):
                found.setdefault(observer, []).append(node.args[0].name)
    return found


def _seen(prepared: Any, observers: Mapping[str, Any], images: list[Tensor]) -> dict[str, Seen]:
    found = {name: Seen() for name in observers}

    def looking(name: str, second: bool) -> Any:
        def look(x: Tensor) -> Tensor:
            values = np.atleast_1d(x.detach().numpy())  # constants are observed too
            (found[name].count if second else found[name].extend)(values)
            return x

        return look

    for second in (False, True):  # how often each value comes is countable between the extremes of the first run
        with _replaced(observers, {name: looking(name, second) for name in observers}):
            _outputs(prepared, images)
    return found


def _options(seen: Seen) -> list[Range]:
    return [(low, max(high, low + LEAST_RANGE)) for low, high in candidates(seen)]


@contextmanager
def _replaced(observers: Mapping[str, Any], forwards: Mapping[str, Any]) -> Iterator[None]:
    """With other things for ``observers`` to do."""
    for name, observer in observers.items():
        observer.forward = forwards[name]
    try:
        yield
    finally:
        for observer in observers.values():
            del observer.forward


def _same(x: Tensor) -> Tensor:
    return x


def _rounding(range_: Range | None) -> Any:
    if range_ is None:
        return _same
    scale, zero = _step(*range_)
    return lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127)


def _step(low: float, high: float) -> tuple[float, int]:
    """real = (byte - zero) * step"""
    step = (high - low) / 255
    return step, int(np.clip(round(-128 - low / step), -128, 127))


def _fix(observer: Any, low: float, high: float) -> None:
    """Let ``observer`` say this range, whatever it sees."""
    step, zero = _step(low, high)
    said = torch.tensor([step]), torch.tensor([zero], dtype=torch.int64)
    observer.calculate_qparams = lambda: said


@torch.no_grad()
def _fix_weights(prepared: Any, means: Mapping[str, np.ndarray]) -> None:
    """Steps for the weights of convolutions and linear layers, and biases that make up for their rounding.

    ``means``: of each channel of the tensors that they read.
    XNNPACK's quantiser has no steps below 2**-12, which leaves a weight of 0.01 forty values. Here they are as small as
    the weights want it; only the bias, whose step is that of the input times that of the weights, has to fit into 32
    bits. In a squeeze-and-excite that a training has switched off it did not, and the channel said the opposite.
    """
    for node in prepared.graph.nodes:
        if node.target not in _WITH_WEIGHTS or node.args[1].op != "call_module":  # none, or they stay float
            continue
        image, kernel = node.args[:2]
        observer = prepared.get_submodule(kernel.target)
        bias = torch.zeros(1)
        if len(node.args) > 2 and node.args[2] is not None:
            bias = operator.attrgetter(node.args[2].target)(prepared)
        step = prepared.get_submodule(image.target).calculate_qparams()[0]
        observer.eps = torch.maximum(bias.abs() / MOST_BIAS / step, torch.tensor(1e-12))
        steps, zeros = observer.calculate_qparams()
        weights = operator.attrgetter(kernel.args[0].target)(prepared)
        added = torch.fake_quantize_per_channel_affine(weights, steps, zeros.int(), 0, -127, 127) - weights
        added = added.reshape(*added.shape[:2], -1).sum(2)
        mean = torch.from_numpy(means[image.args[0].name]).float().reshape(-1, added.shape[1])  # a row for each group
        if len(bias) == len(added):
            bias -= (added * mean.repeat_interleave(len(added) // len(mean), 0)).sum(1)


@torch.no_grad()
def _outputs(prepared: Any, images: list[Tensor]) -> list[np.ndarray]:
    answers = [[output.numpy() for output in prepared(image).values()] for image in images]
    return [np.concatenate(each) for each in zip(*answers, strict=True)]


def _beginning(prepared: Any, harmful: list[str]) -> int:
    """How many of the backbone's first rows read or make a harmful tensor."""
    last = -1
    for node in prepared.graph.nodes:
        if node.name in harmful and _row(node, MOST_ROWS) < MOST_ROWS:
            readers = [reader for observer in node.users for reader in observer.users]
            last = max(last, *(_row(each, -1) for each in (node, *readers)))
    return min(last + 1, MOST_ROWS)


def _in_model(node: Any) -> bool:
    """Whether ``node`` belongs to the network, and not to what frames it: the normalisation, what is decoded."""
    return "model." in _path(node)


def _path(node: Any) -> str:
    """The names of the modules that ``node`` is in."""
    return " ".join(str(path) for path, _ in node.meta.get("nn_module_stack", {}).values())


def _row(node: Any, otherwise: int) -> int:
    """The number of the row that ``node`` belongs to."""
    found = _ROW.findall(_path(node))
    return int(found[-1]) if found else otherwise
