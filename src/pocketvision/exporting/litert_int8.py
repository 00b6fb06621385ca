"""int8 for LiteRT: the ranges of 8 bits are tried on real images, and an image's bytes go in as they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..quant.choice import chosen_ranges, output_error
from ..quant.qat import Trained
from ..quant.ranges import Range, Seen, candidates
from . import litert_file
from .extras import imported

# 8 bits cost time or accuracy here: XNNPACK has no int8 hard-swish; scores and what is decoded keep their resolution.
FLOAT = ("HARD_SWISH", "SOFTMAX", "OUTPUT")
LEAST_RANGE = 1e-3  # of a tensor that is always 0: XNNPACK rejects scales that are out of all proportion
LEAST_LOSS = 1  # in ``ranges.candidates``
WATCHED = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "conv",
    "FULLY_CONNECTED": "linear",
    "HARD_SWISH": "hard_swish",
    "MEAN": "pool",
    "ADD": "add",
    "MUL": "mul",
    "CONCATENATION": "concat",
}
TRIALS = 16  # images on which ranges are tried
MOST_FLOAT = 8  # convolutions at the beginning that may stay float


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of a float tensor: its shape, its values, the candidates for its range, and the operator that made
    it, as ``nn.rounding.watched`` counts them."""

    shape: tuple[int, ...]
    seen: Seen
    ranges: tuple[Range, ...]
    maker: str = ""


def quantize(content: bytes, images: np.ndarray, zero: int, trained: Mapping[str, Trained] | None = None) -> bytes:
    """``content``, a float file whose input is pixels less ``zero``, with 8 bits; its input is uint8 pixels.

    ``images``: uint8 [N, S, S, 3] of the training data. Weights: int8, symmetric, a range for each output channel;
    activations: int8, a range for each tensor (``quant.choice.chosen_ranges``); the mean error that rounded weights
    make on the images is taken out of the biases. Where tensors at the network's beginning had better not be bytes,
    whatever the range, it stays float up to there.
    ``trained``: the ranges that a network was trained with, which are taken; then nothing is corrected or left float.
    (The quantiser's own rule for ranges, a moving average of each image's extremes, costs MobileNetV2 5 points.)
    """
    trials = images[:: max(1, len(images) // TRIALS)][:TRIALS]
    tensors = observe(content, images, zero)
    if trained:
        ranges = {name: _trained(tensor, trained) or tensor.ranges[LEAST_LOSS] for name, tensor in tensors.items()}
        return litert_file.with_bytes(_quantized(content, tensors, ranges, correct_bias=False), zero)
    truth = _outputs(content, trials, zero)

    def error(ranges: Mapping[str, Range]) -> float:
        if ranges.keys() == tensors.keys():
            changed = _quantized(content, tensors, ranges)
        else:
            changed = content
            for name, (low, high) in ranges.items():
                changed = litert_file.with_rounding(changed, name, low, high)
        return output_error(truth, _outputs(changed, trials, zero))

    choice = chosen_ranges({name: tensor.ranges for name, tensor in tensors.items()}, error)
    beginning = litert_file.beginning(content, choice.harmful, MOST_FLOAT)
    return litert_file.with_bytes(_quantized(content, tensors, choice.ranges, beginning), zero)


def observe(content: bytes, images: np.ndarray, zero: int) -> dict[str, Tensor]:
    """Every float tensor that an operator makes, and the input, which has all values that a byte can have."""
    interpreter = _interpreter(content, experimental_preserve_all_tensors=True)
    (image,) = interpreter.get_input_details()
    operators = interpreter._get_ops_details()
    made = {index for operator in operators for index in operator["outputs"]}
    details = [each for each in interpreter.get_tensor_details() if each["index"] in made or each is image]
    details = [image, *(each for each in details if each["dtype"] == np.float32 and each["index"] != image["index"])]
    before_hard_swish = {each["inputs"][0] for each in operators if each["op_name"] == "HARD_SWISH"}
    found = {each["name"]: Seen() for each in details}
    makers = _makers(operators)
    for second in (False, True):  # how often each value comes is countable between the extremes of the first run
        for one in images:
            interpreter.set_tensor(image["index"], one[None].astype(np.float32) - zero)
            interpreter.invoke()
            for each in details:
                values = np.moveaxis(np.atleast_2d(interpreter.get_tensor(each["index"])), -1, 1)  # anchors: one axis
                (found[each["name"]].count if second else found[each["name"]].extend)(values)
    tensors = dict[str, Tensor]()
    for each in details:
        seen = found[each["name"]]
        floor = -3.0 if each["index"] in before_hard_swish else -np.inf  # what is below becomes 0
        ranges = tuple((low, max(high, low + LEAST_RANGE)) for low, high in candidates(seen, floor=floor))
        tensors[each["name"]] = Tensor(tuple(each["shape"]), seen, ranges, makers.get(each["index"], ""))
    pixels = tensors[image["name"]]
    tensors[image["name"]] = replace(pixels, ranges=((float(-zero), float(255 - zero)),) * len(pixels.ranges))
    return tensors


def _makers(operators: Sequence[Any]) -> dict[int, str]:
    """Of tensors, the operators that made them, as ``nn.rounding.watched`` counts them."""
    names, counts = dict[int, str](), Counter[str]()
    made = {index for operator in operators for index in operator["outputs"]}
    for operator in operators:
        name = operator["op_name"]
        constant = name in ("ADD", "MUL") and not made.issuperset(operator["inputs"])
        if name in WATCHED and not constant:
            kind = WATCHED[name]
            names[int(operator["outputs"][0])] = f"{kind}{counts[kind]}"
            counts[kind] += 1
    return names


def _trained(tensor: Tensor, trained: Mapping[str, Trained]) -> Range | None:
    """The range that ``tensor`` was trained with, where it has as many channels."""
    known = trained.get(tensor.maker)
    return known.range if known and known.channels == tensor.shape[-1] else None


def _outputs(content: bytes, images: np.ndarray, zero: int) -> list[np.ndarray]:
    """Outputs of a file that takes pixels less ``zero``, as float32 or as int8 of step 1."""
    interpreter = _interpreter(content)
    (image,), outputs = interpreter.get_input_details(), interpreter.get_output_details()
    answers = list[list[np.ndarray]]()
    for one in images:
        pixels = one.astype(np.int16) - (128 if image["dtype"] == np.int8 else zero)
        interpreter.set_tensor(image["index"], pixels[None].astype(image["dtype"]))
        interpreter.invoke()
        answers.append([interpreter.get_tensor(output["index"]) for output in outputs])
    return [np.concatenate(each) for each in zip(*answers, strict=True)]


def _quantized(
    content: bytes,
    tensors: Mapping[str, Tensor],
    ranges: Mapping[str, Range],
    keep_float: Collection[str] = (),
    *,
    correct_bias: bool = True,
) -> bytes:
    """``content`` in 8 bits with these ranges, but for the operators that make the tensors ``keep_float``; its input is
    int8 pixels less 128, or float pixels less ``zero`` where the first operator stays float."""
    qtyping, quantizer, recipe, algorithms = (
        imported(f"ai_edge_quantizer.{module}", "litert")
        for module in ("qtyping", "quantizer", "recipe", "algorithm_manager")
    )
    work = quantizer.Quantizer(bytearray(litert_file.with_least_weights(content, ranges)))
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    keep = algorithms.AlgorithmName.NO_QUANTIZE
    for name in FLOAT:
        kind = qtyping.TFLOperationName[name]
        work.update_quantization_recipe(regex=".*", operation_name=kind, algorithm_key=keep)
    if keep_float:
        names = "|".join(map(re.escape, keep_float))
        everything = qtyping.TFLOperationName.ALL_SUPPORTED
        work.update_quantization_recipe(regex=f"^(?:{names});?$", operation_name=everything, algorithm_key=keep)
    found: dict[str, Any] = {
        name: {
            key: np.full((1,) * len(tensors[name].shape), end, np.float32)
            for key, end in zip(("min", "max"), ends, strict=True)
        }
        for name, ends in ranges.items()
    }
    result = work.quantize(found, enable_progress_report=False, enable_progress_bar=False)
    if not correct_bias:
        return bytes(result.quantized_model)
    means = {name: tensor.seen.channel_mean for name, tensor in tensors.items()}
    return litert_file.with_corrected_biases(content, bytes(result.quantized_model), means)


def _interpreter(content: bytes, **options: Any) -> Any:
    interpreter = imported("ai_edge_litert.interpreter", "litert").Interpreter(
        model_content=content, num_threads=1, **options
    )
    interpreter.allocate_tensors()
    return interpreter
