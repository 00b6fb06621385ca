"""An exported float graph as layers: each operator with its activation, and which of them can calculate in 8 bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Kind = Literal["conv", "gemm", "add", "mul", "pool", "flatten", "concat", "float"]
_KINDS: dict[str, Kind] = {
    "Conv": "conv",
    "Gemm": "gemm",
    "Add": "add",
    "Mul": "mul",
    "GlobalAveragePool": "pool",
    "Reshape": "flatten",
    "Flatten": "flatten",
    "Concat": "concat",
}
_WATCHED = {"Conv": "conv", "Gemm": "linear", "HardSwish": "hard_swish"}
_CUT = ("Relu", "Clip")  # an output that starts at 0 (and ends at 6) is this already
_NORMALISATION = ("Add", "Mul", "Cast", "Transpose")  # of the image, backwards from the first convolution


@dataclass(frozen=True, slots=True)
class Layer:
    """``nodes``: the operator and the activation that it is followed by; ``inputs``: without constants; ``linear``: the
    output before the activation, the same as ``output`` where there is none."""

    kind: Kind
    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    linear: str
    output: str

    @property
    def activation(self) -> str:
        """ONNX's name of it, or nothing."""
        return self.nodes[1].op_type if len(self.nodes) > 1 else ""

    @property
    def attributes(self) -> dict[str, Any]:
        """The operator's."""
        return attributes(self.nodes[0])


@dataclass(frozen=True, slots=True)
class Network:
    """``layers`` in order; ``shapes`` of tensors, 0 for what is free; ``trunk``: outputs of convolutions and what only
    combines those; ``quantized``: those of them that are 8 bits wide."""

    layers: tuple[Layer, ...]
    constants: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]
    outputs: frozenset[str]
    quantized: set[str] = field(default_factory=set)
    trunk: set[str] = field(default_factory=set)

    def depthwise(self, layer: Layer) -> bool:
        """Whether each channel is convolved by itself."""
        return layer.kind == "conv" and layer.attributes.get("group", 1) > 1

    def ceiling(self, layer: Layer) -> float:
        """Where a Clip ends."""
        if layer.activation != "Clip":
            return np.inf
        return float(self.constants[layer.nodes[1].input[2]])


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of ``node``."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def read(proto: ModelProto, keep_float: Collection[str] = ()) -> Network:
    """The layers of ``proto``; those whose operator is named in ``keep_float`` stay as they are."""
    from onnx import numpy_helper, shape_inference

    graph = shape_inference.infer_shapes(proto).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(attributes(node)["value"])
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    users = {name: node for node in graph.node for name in node.input}
    network = Network((), constants, shapes, frozenset(output.name for output in graph.output))
    layers, fused = list[Layer](), set[str]()
    for node in graph.node:
        if node.output[0] in fused:
            continue
        kind = _kind(node, network)
        nodes = [node]
        if kind in ("conv", "gemm", "add") and uses[node.output[0]] == 1:
            follower = users.get(node.output[0])
            if follower is not None and _is_activation(follower, kind, constants):
                nodes.append(follower)
                fused.add(follower.output[0])
        inputs = tuple(name for name in node.input if name and name not in constants)
        layer = Layer(kind, tuple(nodes), inputs, node.output[0], nodes[-1].output[0])
        layers.append(layer)
        if kind in ("conv", "gemm") or (kind != "float" and network.trunk.issuperset(inputs)):
            network.trunk.add(layer.output)
            if node.name not in keep_float:
                network.quantized.add(layer.output)
    return replace(network, layers=tuple(layers))


def made_by(network: Network) -> dict[str, str]:
    """Of tensors, the names of the operators that made them, as ``nn.rounding.watched`` counts them."""
    names, counts, latest = dict[str, str](), Counter[str](), ""
    for layer in network.layers:
        combines = (
            layer.kind if layer.kind in ("add", "mul", "pool", "concat") and layer.output in network.trunk else ""
        )
        for node, kind in zip(layer.nodes, (combines, ""), strict=False):
            if kind := _WATCHED.get(node.op_type, kind):
                latest = f"{kind}{counts[kind]}"
                counts[kind] += 1
            elif node is layer.nodes[0]:
                continue
            names[node.output[0]] = latest
    return names


def normalisation(network: Network, conv: Layer) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Where ``conv`` reads the normalised image: the image's name, and by what its channels are multiplied and what is
    added to them, each [3]."""
    makers = {layer.output: layer for layer in network.layers}
    name, found = conv.inputs[0], dict[str, np.ndarray]()
    for expected in _NORMALISATION:
        node = makers[name].nodes[0] if name in makers else None
        if node is None or node.op_type != expected:
            return None
        constant = [network.constants[each] for each in node.input if each in network.constants]
        if expected in ("Add", "Mul"):
            if len(constant) != 1 or constant[0].size not in (1, 3):
                return None
            found[expected] = np.broadcast_to(constant[0].reshape(-1), 3).astype(np.float64)
        name = next(each for each in node.input if each not in network.constants)
    shape = network.shapes.get(name, ())
    if name in makers or len(shape) != 4 or shape[3] != 3:
        return None
    return name, found["Mul"], found["Add"]


def _kind(node: NodeProto, network: Network) -> Kind:
    """What ``node`` is, "float" where 8 bits are not for it."""
    constants, shapes = network.constants, network.shapes
    kind = _KINDS.get(node.op_type, "float")
    shape = shapes.get(node.output[0], ())
    first = shapes.get(node.input[0] if node.input else "", ())
    fits = True
    if kind == "conv":
        weight = constants.get(node.input[1])
        group = attributes(node).get("group", 1)
        fits = weight is not None and len(shape) == 4 and (group == 1 or (group == len(weight) and group in first[1:2]))
    elif kind == "gemm":
        settings = attributes(node)
        plain = settings.get("transB") == 1 and settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0
        fits = plain and not settings.get("transA") and node.input[1] in constants
    elif kind in ("add", "mul"):
        inputs = [shapes.get(name, ()) for name in node.input]
        whole = [each for each in inputs if each == shape]
        pooled = [each for each in inputs if each[1:] == (*shape[1:2], 1, 1)]
        fits = len(shape) == 4 and not constants.keys() & set(node.input)
        fits = fits and (len(whole) == 2 or (kind == "mul" and len(whole) == len(pooled) == 1))
    elif kind == "flatten":  # of a pooled map: there is nothing to rearrange
        fits = len(first) == 4 and first[2:] == (1, 1) and len(shape) == 2
    elif kind == "concat":
        fits = len(shape) == 4 and attributes(node)["axis"] in (1, -3)
    return kind if fits else "float"


def _is_activation(node: NodeProto, kind: Kind, constants: dict[str, np.ndarray]) -> bool:
    """Whether ``node`` can be part of the operator of ``kind`` before it."""
    if node.op_type == "Clip":
        return len(node.input) == 3 and set(node.input[1:]) <= constants.keys() and constants[node.input[1]] == 0
    if node.op_type == "HardSigmoid":
        settings = attributes(node)
        return kind == "conv" and abs(settings.get("alpha", 0.2) * 6 - 1) < 1e-5 and settings.get("beta", 0.5) == 0.5
    return node.op_type == "Relu" or (node.op_type == "HardSwish" and kind != "add")
