"""A network in 8 bits, in ONNX Runtime's own operators, as its kernels are fast.

Channels are last throughout, so that nothing is transposed; the image's bytes go into the first convolution, whose
weights hold the normalisation; it calculates two neighbouring pixels at once; and maps of depthwise convolutions have
a multiple of ``LANE`` channels. The activations:

- Relu, Clip: nothing. The output's range starts at 0 (and ends at 6).
- hard-sigmoid(x) = clip(x / 6 + 0.5, 0, 1): nothing. x written with step 6/255 around 127.5 (which the bias sees to) is
  cut off at -3 and 3, and *read* with step 1/255 from 0 it is the result.
- hard-swish(x) = x * hard-sigmoid(x): below -3 it is 0, so that the range of x starts at -3, with the step 3 / zero for
  a whole number zero. Then the same bytes, cut off at 2 zero and read with the step / 6 from 0, are hard-sigmoid(x)
  without any error: a minimum of bytes (a table, QLinearLeakyRelu, takes eight times as long) and one multiplication.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..quant.ranges import LEVELS
from .onnx_calibration import Scale
from .onnx_layers import Layer, Network, normalisation

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

DOMAIN = "com.microsoft"
LANE = 16  # channels that the depthwise kernel takes at once; the rest it takes one by one, at a third of the speed
_GROUP = 4  # neighbouring pixels that the first convolution reads as one


@dataclass(frozen=True, slots=True)
class Bytes:
    """A tensor of bytes [N, H, W, C] or [N, C] in the new graph, with as many ``channels`` as are in it."""

    name: str
    scale: Scale
    channels: int


class Weights(NamedTuple):
    """int8 ``values`` [O, I, ...], of each output channel the ``steps`` [O] and the int32 ``biases`` [O]."""

    values: np.ndarray
    steps: np.ndarray
    biases: np.ndarray


@dataclass(slots=True)
class Writer:
    """The new graph while it is written.

    ``scales`` of tensors that may become bytes, ``means`` of the channels of what they are calculated from, ``padded``:
    channels of tensors that get more than they have.
    """

    network: Network
    scales: Mapping[str, Scale]
    means: Mapping[str, np.ndarray]
    correct_bias: bool
    padded: Mapping[str, int]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    written: dict[str, Bytes] = field(default_factory=dict)
    floats: set[str] = field(default_factory=set)

    def write(self, layer: Layer) -> None:
        """Add ``layer`` to the graph."""
        if layer.output not in self.network.quantized:
            for name in layer.inputs:
                self.as_float(name)
            self.nodes.extend(layer.nodes)
            self.floats |= {layer.linear, layer.output}
        elif layer.kind == "conv":
            self._conv(layer)
        elif layer.kind == "gemm":
            self._gemm(layer)
        else:
            self.written[layer.output] = self._other(layer, [self.as_bytes(name) for name in layer.inputs])

    def finish(self, proto: ModelProto) -> ModelProto:
        """The new file: ``proto`` with the new graph; what nothing uses is left out."""
        from onnx import ModelProto, helper, numpy_helper

        used, kept = {self.as_float(output.name) for output in proto.graph.output}, list[Any]()
        for node in reversed(self.nodes):
            if used & set(node.output):
                kept.append(node)
                used |= set(node.input)
        result = ModelProto()
        result.CopyFrom(proto)
        del result.graph.node[:], result.graph.initializer[:]
        result.graph.node.extend(reversed(kept))
        constants = {**self.network.constants, **self.constants}
        made = {name for node in kept for name in node.output}
        for name in sorted((used & constants.keys()) - made):
            result.graph.initializer.append(numpy_helper.from_array(constants[name], name))
        result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        return result

    def as_float(self, name: str) -> str:
        """The tensor ``name`` as the float graph has it."""
        if name in self.floats or name not in self.written:
            return name
        x = self.written[name]
        source = x.name
        if len(self.network.shapes[name]) == 4:
            source = self._node("Transpose", [source], name + "_first", domain="", perm=[0, 3, 1, 2])
        self.floats.add(name)
        return self._node("DequantizeLinear", [source, *self._of(x.scale)], name, domain="")

    def as_bytes(self, name: str) -> Bytes:
        """The tensor ``name`` in 8 bits."""
        if name not in self.written:
            scale, shape = self.scales[name], self.network.shapes[name]
            source = self._node("QuantizeLinear", [name, *self._of(scale)], name + "_bytes", domain="")
            if len(shape) == 4:
                source = self._node("Transpose", [source], name + "_q", domain="", perm=[0, 2, 3, 1])
            self.written[name] = Bytes(source, scale, shape[1])
        return self.written[name]

    def _node(self, operator: str, inputs: list[str], output: str, *, domain: str = DOMAIN, **settings: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, domain=domain, **settings))
        return output

    def _constant(self, name: str, value: Any, dtype: type) -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def _of(self, scale: Scale) -> list[str]:
        """The names of the two constants of ``scale``."""
        step = self._constant(f"step_{np.float32(scale.step):.9g}", scale.step, np.float32)
        return [step, self._constant(f"zero_{scale.zero}", scale.zero, np.uint8)]

    def _other(self, layer: Layer, inputs: list[Bytes]) -> Bytes:
        """Sums, products, means, and what moves bytes only."""
        first, name = inputs[0], layer.output + "_q"
        if layer.kind == "flatten":
            return replace(first, name=self._node("Flatten", [first.name], name, domain=""))
        scale = self.scales[layer.output]
        read = [each for x in inputs for each in (x.name, *self._of(x.scale))]
        if layer.kind == "concat":
            self._node("QLinearConcat", [*self._of(scale), *read], name, axis=3)
            return Bytes(name, scale, sum(x.channels for x in inputs))
        if layer.kind == "pool":
            self._node("QLinearGlobalAveragePool", [*read, *self._of(scale)], name, channels_last=1)
        else:
            self._node("QLinearAdd" if layer.kind == "add" else "QLinearMul", [*read, *self._of(scale)], name)
        return Bytes(name, scale, first.channels)

    def _linear_scale(self, layer: Layer) -> Scale:
        """Of the output before what is left of the activation."""
        if layer.activation == "HardSigmoid":
            return Scale(6 / LEVELS, 128)
        return self.scales[layer.linear if layer.activation == "HardSwish" else layer.output]

    def _activated(self, layer: Layer, linear: Bytes) -> Bytes:
        """The output of ``layer``, of which all but the activation is written."""
        if layer.activation == "HardSigmoid":
            return replace(linear, scale=Scale(1 / LEVELS, 0))
        if layer.activation != "HardSwish":
            return linear
        gate, cut, scale = linear.name, 2 * linear.scale.zero, self.scales[layer.output]
        if cut < LEVELS:
            gate = self._node(
                "Min", [gate, self._constant(f"zero_{cut}", cut, np.uint8)], layer.output + "_gate", domain=""
            )
        opened = self._of(Scale(linear.scale.step / 6, 0))
        inputs = [linear.name, *self._of(linear.scale), gate, *opened, *self._of(scale)]
        return Bytes(self._node("QLinearMul", inputs, layer.output + "_q"), scale, linear.channels)

    def _weights(self, layer: Layer, weight: np.ndarray, bias: np.ndarray, x: Scale, mean: np.ndarray) -> Weights:
        """``weight``, ``bias``: of float inputs; ``mean``: of their channels."""
        steps = np.abs(weight).max(tuple(range(1, weight.ndim))) / 127
        steps = np.maximum(steps, np.maximum(np.abs(bias) / x.step, 1e-12) / 2**30).astype(np.float32)
        by_row = steps.reshape(-1, *[1] * (weight.ndim - 1))
        values = np.clip(np.round(weight / by_row), -127, 127)
        if self.correct_bias:
            error = (weight - values * by_row).reshape(*weight.shape[:2], -1).sum(2)
            bias = bias + (error[:, 0] * mean if self.network.depthwise(layer) else error @ mean)
        if layer.activation == "HardSigmoid":
            bias = bias - 3 / LEVELS  # half a step of the output: its zero is 127.5
        return Weights(values.astype(np.int8), steps, np.round(bias / (steps * x.step)).astype(np.int32))

    def _float_weights(self, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
        node, constants = layer.nodes[0], self.network.constants
        weight = constants[node.input[1]].astype(np.float64)
        return weight, constants[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(len(weight))

    def _conv(self, layer: Layer) -> None:
        weight, bias = self._float_weights(layer)
        options = {key: layer.attributes[key] for key in ("strides", "pads", "dilations") if key in layer.attributes}
        if image := normalisation(self.network, layer):
            source, factor, added = image
            # padding is 0 of the normalised image: the byte that comes closest in all three channels
            zero = int(np.clip(np.round(np.mean(-added / factor)), 0, LEVELS))
            x, mean = Bytes(source, Scale(1.0, zero), 3), self.means[source] - zero
            bias = bias + weight.sum((2, 3)) @ (added + zero * factor)
            weights = self._weights(layer, weight * factor[:, None, None], bias, x.scale, mean)
            if _in_groups(self.network.shapes[source], weights.values, options):
                self.written[layer.output] = self._activated(layer, self._grouped_conv(layer, x, weights, options))
                return
        else:
            x = self.as_bytes(layer.inputs[0])
            weights = self._weights(layer, weight, bias, x.scale, self.means[layer.inputs[0]])
        depthwise, channels = self.network.depthwise(layer), self.padded.get(layer.output, len(weight))
        filled = Weights(
            _filled(weights.values, channels, 1 if depthwise else x.channels),
            np.pad(weights.steps, (0, channels - len(weight)), constant_values=1),
            _filled(weights.biases, channels),
        )
        y = Bytes(layer.linear + "_q", self._linear_scale(layer), channels)
        self._qlinearconv(x, y, filled, options | {"group": channels if depthwise else 1})
        self.written[layer.output] = self._activated(layer, y)

    def _qlinearconv(self, x: Bytes, y: Bytes, weights: Weights, options: dict[str, Any]) -> None:
        values = self._constant(f"{y.name}_weight", weights.values, np.int8)
        steps = self._constant(f"{y.name}_steps", weights.steps, np.float32)
        biases = self._constant(f"{y.name}_bias", weights.biases, np.int32)
        no_zero = self._constant("no_zero", 0, np.int8)
        inputs = [x.name, *self._of(x.scale), values, steps, no_zero, *self._of(y.scale), biases]
        shape = weights.values.shape[2:]
        self._node("QLinearConv", inputs, y.name, channels_last=1, kernel_shape=shape, **options)

    def _grouped_conv(self, layer: Layer, x: Bytes, weights: Weights, options: dict[str, Any]) -> Bytes:
        """A 3x3 convolution of the image with stride 2 that reads four pixels of a row as one with 12 channels, and
        gives two as one: half as many small copies, which are what takes time (84 us instead of 210 of 16 channels)."""
        channels, (_, height, width, _) = len(weights.values), self.network.shapes[x.name]
        top, left, bottom, _ = options["pads"]
        wide = np.zeros((2, channels, 2 * _GROUP, 3, 3), np.int8)  # output of a pair, channel, pixel, colour, row
        for place in range(2):
            for column in range(3):
                at = 2 * place + column + (_GROUP - left if left else 0)
                wide[place, :, at] = weights.values[:, :, :, column]
        wide = wide.reshape(2 * channels, 2, 3 * _GROUP, 3).transpose(0, 2, 3, 1)
        shape = self._constant("shape_in_fours", [0, height, width // _GROUP, 3 * _GROUP], np.int64)
        fours = replace(x, name=self._node("Reshape", [x.name, shape], "image_in_fours", domain=""))
        pairs = Bytes(layer.linear + "_pairs", self._linear_scale(layer), 2 * channels)
        doubled = Weights(wide, np.tile(weights.steps, 2), np.tile(weights.biases, 2))
        options = {"strides": [2, 1], "pads": [top, int(left > 0), bottom, int(left == 0)]}
        self._qlinearconv(fours, pairs, doubled, options)
        rows = (height + top + bottom - 3) // 2 + 1
        shape = self._constant("shape_of_pairs", [0, rows, width // 2, channels], np.int64)
        return replace(
            pairs, name=self._node("Reshape", [pairs.name, shape], layer.linear + "_q", domain=""), channels=channels
        )

    def _gemm(self, layer: Layer) -> None:
        x, (weight, bias) = self.as_bytes(layer.inputs[0]), self._float_weights(layer)
        weights = self._weights(layer, weight, bias, x.scale, self.means[layer.inputs[0]])
        name = layer.linear
        constants = [
            self._constant(f"{name}_weight", _filled(weights.values, len(weight), x.channels), np.int8),
            self._constant(f"{name}_steps", weights.steps, np.float32),
            self._constant(f"{name}_zeros", np.zeros(len(weight)), np.int8),
            self._constant(f"{name}_bias", weights.biases, np.int32),
        ]
        inputs = [x.name, *self._of(x.scale), *constants]
        readers = [other for other in self.network.layers if layer.output in other.inputs]
        if not layer.activation and not any(other.output in self.network.quantized for other in readers):
            self.floats.add(self._node("QGemm", inputs, name, transB=1))  # sums as they are, rounded to nothing
            return
        y = Bytes(name + "_q", self._linear_scale(layer), len(weight))
        self._node("QGemm", [*inputs, *self._of(y.scale)], y.name, transB=1)
        self.written[layer.output] = self._activated(layer, y)


def _in_groups(shape: tuple[int, ...], values: np.ndarray, options: dict[str, Any]) -> bool:
    """Whether ``_grouped_conv`` fits."""
    _, left, _, right = options.get("pads", [0, 0, 0, 0])
    plain = values.shape[2:] == (3, 3) and list(options.get("strides", [])) == [2, 2]
    plain = plain and set(options.get("dilations", [1])) == {1}
    return plain and shape[2] % _GROUP == 0 and (left, right) in ((1, 1), (1, 0), (0, 1))


def _filled(values: np.ndarray, *sizes: int) -> np.ndarray:
    """``values`` with zeros behind them, up to ``sizes`` in the first dimensions."""
    more = [(0, size - had) for size, had in zip(sizes, values.shape, strict=False)]
    return np.pad(values, more + [(0, 0)] * (values.ndim - len(sizes)))
