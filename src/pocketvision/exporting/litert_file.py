"""A .tflite file as objects that can be changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from ..quant.ranges import Range
from .extras import imported

MOST_BIAS = 2**30  # a bias is a 32-bit number of steps


@cache
def _tools() -> Any:
    return imported("ai_edge_litert.tools.flatbuffer_utils", "litert")


@cache
def _schema() -> Any:
    return imported("ai_edge_litert.schema_py_generated", "litert")


def read(content: bytes) -> Any:
    """The file as the schema's objects."""
    return _tools().read_model_from_bytearray(bytearray(content))


def write(file: Any) -> bytes:
    """The bytes of ``file``; equal vectors, such as the many zero points of weights, are there once."""
    flatbuffers = imported("flatbuffers", "litert")

    class Builder(flatbuffers.Builder):  # type: ignore[misc, name-defined]
        def CreateNumpyVector(self, x: np.ndarray) -> int:
            key = x.dtype.str, x.tobytes()
            if key not in known:
                known[key] = super().CreateNumpyVector(x)
            return known[key]

    known = dict[tuple[str, bytes], int]()
    builder = Builder(1 << 20)
    builder.Finish(file.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def kind(file: Any, operator: Any) -> int:
    """The builtin operator's number."""
    return _tools().get_builtin_code_from_operator_code(file.operatorCodes[operator.opcodeIndex])


def name_of(graph: Any, index: int) -> str:
    """The name of a tensor."""
    return graph.tensors[index].name.decode()


def with_names(content: bytes, image: str, outputs: tuple[str, ...]) -> bytes:
    """``content`` with its input called ``image``, and its outputs as in its signature, in the order of ``outputs``."""
    file = read(content)
    graph, signature = file.subgraphs[0], file.signatureDefs[0]
    places = {output.name.decode(): output.tensorIndex for output in signature.outputs}
    graph.outputs = [places[name] for name in outputs]
    for name, place in ((image, graph.inputs[0]), *places.items()):
        graph.tensors[place].name = name.encode()
    return write(file)


def with_buffer(content: bytes, name: str, data: bytes) -> bytes:
    """``content`` with ``data`` as its metadata ``name``, in the place of what had that name before."""
    schema = _schema()
    file = read(content)
    file.metadata = [entry for entry in file.metadata or [] if entry.name.decode() != name]
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = name.encode(), len(file.buffers)
    buffer.data = np.frombuffer(data, np.uint8)
    file.buffers.append(buffer)
    file.metadata.append(entry)
    return write(file)


def with_least_weights(content: bytes, ranges: Mapping[str, Range]) -> bytes:
    """The float file ``content`` with a weight in each channel that (nearly) has none, too small to be seen.

    The step of a channel's bias is that of the input times that of the channel's weights. Where all weights are 0, as
    in squeeze-and-excites that a training has switched off, the bias would overflow, and the channel say the opposite.
    """
    file = read(content)
    graph = file.subgraphs[0]
    for operator, axis in _convolutions(file):
        kernel, offsets = (graph.tensors[index] for index in operator.inputs[1:3])
        low, high = ranges[name_of(graph, operator.inputs[0])]
        out_low, out_high = ranges[name_of(graph, operator.outputs[0])]
        weights, bias = _values(file, kernel, np.float32), _values(file, offsets, np.float32)
        by_channel = np.moveaxis(weights, axis, 0)
        largest = np.abs(by_channel).reshape(len(bias), -1).max(1)
        least = 127 * np.maximum(np.abs(bias), out_high - out_low) / MOST_BIAS / ((high - low) / 255)
        if (lacking := np.flatnonzero(largest < least)).size:
            for channel in lacking:
                by_channel[(channel, *(0,) * (by_channel.ndim - 1))] = least[channel]
            _set(file, kernel, weights)
    return write(file)


def with_corrected_biases(content: bytes, quantized: bytes, means: Mapping[str, np.ndarray]) -> bytes:
    """``quantized`` with biases less what its rounded weights add, in the mean, to those of the float file ``content``.

    ``means``: of each channel of every tensor.
    """
    whole, rounded = read(content), read(quantized)
    graph, other = whole.subgraphs[0], rounded.subgraphs[0]
    for (before, axis), (after, _) in zip(_convolutions(whole), _convolutions(rounded), strict=True):
        kernel, offsets = (other.tensors[index] for index in after.inputs[1:3])
        if offsets.quantization is None or offsets.quantization.scale is None:  # it stayed float
            continue
        weights = _values(whole, graph.tensors[before.inputs[1]], np.float32)
        shape = [-1 if each == axis else 1 for each in range(weights.ndim)]
        steps = np.asarray(kernel.quantization.scale).reshape(shape)
        added = _values(rounded, kernel, np.int8).astype(np.float64) * steps - weights
        mean = means[name_of(graph, before.inputs[0])]
        error = added.sum((0, 1, 2)) * mean if axis == 3 else added.reshape(len(added), -1, len(mean)).sum(1) @ mean
        bias = _values(rounded, offsets, np.int32) - np.round(error / np.asarray(offsets.quantization.scale))
        _set(rounded, offsets, np.clip(bias, -(2**31), 2**31 - 1).astype(np.int32))
    return write(rounded)


def with_rounding(content: bytes, name: str, low: float, high: float) -> bytes:
    """The float file ``content`` with the tensor ``name`` going through 8 bits of that range."""
    schema = _schema()

    file = read(content)
    graph = file.subgraphs[0]
    place = next(index for index, tensor in enumerate(graph.tensors) if tensor.name.decode() == name)
    step = (high - low) / 255
    small = _tensor(graph.tensors[place], f"{name}_rounded", schema.TensorType.INT8, step, round(-128 - low / step))
    back = _tensor(graph.tensors[place], f"{name}_back", schema.TensorType.FLOAT32)
    first = len(graph.tensors)
    for operator in graph.operators:
        operator.inputs = np.array([first + 1 if index == place else index for index in operator.inputs], np.int32)
    graph.tensors += [small, back]
    made = [index for index, operator in enumerate(graph.operators) if place in operator.outputs]
    at = made[0] + 1 if made else 0
    graph.operators[at:at] = [
        _operator(file, schema.BuiltinOperator.QUANTIZE, place, first),
        _operator(file, schema.BuiltinOperator.DEQUANTIZE, first, first + 1),
    ]
    graph.outputs = [first + 1 if index == place else index for index in graph.outputs]
    return write(file)


def beginning(content: bytes, harmful: Collection[str], most: int) -> list[str]:
    """What the operators make from the first one to the last reader of a ``harmful`` tensor, up to the ``most``
    convolutions at the beginning: what is read again much later, by a head, is float to there and no further."""
    file = read(content)
    graph, convolutions, last = file.subgraphs[0], 0, -1
    starts, harmed = [operator for operator, _ in _convolutions(file)], set[int]()
    for place, operator in enumerate(graph.operators):
        convolutions += any(operator is start for start in starts)
        if convolutions > most:
            break
        if harmed & set(operator.inputs):
            last = place
        harmed |= {index for index in operator.outputs if name_of(graph, index) in harmful}
    return [name_of(graph, index) for operator in graph.operators[: last + 1] for index in operator.outputs]


def with_bytes(content: bytes, zero: int) -> bytes:
    """``content``, whose input is int8 pixels less 128, or float pixels less ``zero``, with uint8 pixels as its input;
    one operator makes the other of them."""
    schema = _schema()
    file = read(content)
    graph = file.subgraphs[0]
    (inner,) = graph.inputs
    kind = schema.BuiltinOperator.DEQUANTIZE
    if graph.tensors[inner].type == schema.TensorType.INT8:
        kind = schema.BuiltinOperator.QUANTIZE
        graph.tensors[inner].quantization.scale = np.array([1], np.float32)
        assert graph.tensors[inner].quantization.zeroPoint[0] == zero - 128
    graph.tensors.append(_tensor(graph.tensors[inner], "pixels", schema.TensorType.UINT8, 1.0, zero))
    outer = len(graph.tensors) - 1
    graph.operators.insert(0, _operator(file, kind, outer, inner))
    graph.inputs = np.array([outer], np.int32)
    file.signatureDefs[0].inputs[0].tensorIndex = outer
    return write(file)


def _convolutions(file: Any) -> Iterator[tuple[Any, int]]:
    """Convolutions and fully connected layers with a bias, in order, each with the axis of the weights' channels."""
    schema = _schema()

    kinds = schema.BuiltinOperator
    axes = {kinds.CONV_2D: 0, kinds.FULLY_CONNECTED: 0, kinds.DEPTHWISE_CONV_2D: 3}
    for operator in file.subgraphs[0].operators:
        axis = axes.get(kind(file, operator))
        if axis is not None and len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            yield operator, axis


def _values(file: Any, tensor: Any, dtype: Any) -> np.ndarray:
    return np.frombuffer(bytes(file.buffers[tensor.buffer].data), dtype).reshape(tensor.shape).copy()


def _set(file: Any, tensor: Any, values: np.ndarray) -> None:
    file.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)


def _tensor(like: Any, name: str, dtype: int, step: float | None = None, zero: int = 0) -> Any:
    """A tensor of the shape of ``like``; with a ``step``, real = (value - zero) * step."""
    schema = _schema()

    made = schema.TensorT()
    made.name, made.type, made.shape, made.shapeSignature = name.encode(), dtype, like.shape, like.shapeSignature
    if step is not None:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = np.array([step], np.float32), np.array([zero], np.int64)
    return made


def _operator(file: Any, builtin: int, source: int, target: int) -> Any:
    """QUANTIZE or DEQUANTIZE of one tensor into another."""
    schema = _schema()

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 2
    file.operatorCodes.append(code)
    made = schema.OperatorT()
    made.opcodeIndex = len(file.operatorCodes) - 1
    made.inputs, made.outputs = np.array([source], np.int32), np.array([target], np.int32)
    return made
