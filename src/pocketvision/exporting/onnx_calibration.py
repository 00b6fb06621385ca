"""A float ONNX file run on calibration images: what its tensors look like, and which ranges harm its outputs least."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..quant.ranges import LEVELS, Range, Seen, candidates

if TYPE_CHECKING:
    from onnx import ModelProto

TRIALS = 8  # images on which ranges are tried
_SAME = 0.05  # of a range's width: what differs less is not tried again


@dataclass(frozen=True, slots=True)
class Scale:
    """real = (byte - zero) * step"""

    step: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Scale:
        """That of a range around 0."""
        step = max((high - low) / LEVELS, 1e-8)
        return cls(step, round(-low / step))

    @classmethod
    def before_hard_swish(cls, high: float) -> Scale:
        """Byte 0 is -3, below which hard-swish is 0; zero is the whole number that reaches up to ``high``."""
        zero = int(np.clip(3 * LEVELS // (max(high, 0.1) + 3), 1, LEVELS - 1))
        return cls(3 / zero, zero)

    def applied(self, values: np.ndarray) -> np.ndarray:
        """What is left of float ``values`` after their way through bytes."""
        bytes_ = np.clip(np.round(values / np.float32(self.step)) + self.zero, 0, LEVELS)
        return ((bytes_ - self.zero) * self.step).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Trial:
    """A tensor whose range is to be found; its values are cut to ``floor`` and ``ceiling``. ``known``: the range that
    the network was trained with, where it was."""

    name: str
    floor: float = -np.inf
    ceiling: float = np.inf
    before_hard_swish: bool = False
    known: Range | None = None

    def candidates(self, seen: Seen) -> list[Range]:
        """``quant.ranges.candidates``, or what is known."""
        return [self.known] if self.known else candidates(seen, floor=self.floor, ceiling=self.ceiling)

    def scale(self, found: Range) -> Scale:
        """The bytes for that range."""
        return Scale.before_hard_swish(found[1]) if self.before_hard_swish else Scale.of(*found)


@dataclass(frozen=True, slots=True)
class Harm:
    """The best range found for a tensor, and the squared error that its bytes alone make in the network's outputs, as a
    share of their variance."""

    range: Range
    error: float


def observe(proto: ModelProto, names: Iterable[str], images: np.ndarray, *, counts: bool) -> dict[str, Seen]:
    """What the tensors ``names`` are on uint8 ``images`` [N, S, S, 3], one image at a time, so that memory stays small.

    ``counts``: in a second run also how often each value comes, which only the extremes of the first make countable.
    """
    inputs = {value.name for value in proto.graph.input}
    fetched = sorted(set(names) - inputs)
    session = _session(proto, fetched)
    feed = session.get_inputs()[0].name
    seen = {name: Seen() for name in (*fetched, feed)}
    for second in (False, True)[: 1 + counts]:
        for image in images:
            values = dict(zip(fetched, session.run(fetched, {feed: image[None]}), strict=True))
            values[feed] = image[None].transpose(0, 3, 1, 2)
            for name, value in values.items():
                (seen[name].count if second else seen[name].extend)(np.asarray(value))
    return seen


def least_harm(
    proto: ModelProto, trials: Sequence[Trial], ends: Sequence[str], seen: Mapping[str, Seen], images: np.ndarray
) -> dict[str, Harm]:
    """For each of ``trials`` that of its ``candidates`` which changes the tensors ``ends`` least on some of the
    ``images``, when nothing else is in bytes.

    No measure of the tensor itself finds that range: values far out are noise in one place (MobileNetV3-Small's
    hardswish_15: error 0.19 with everything seen, 0.003 without the outermost 0.1%) and all that counts in another
    (hardswish_17, before the pooling: 0.002 and 0.13).
    """
    images = images[:: max(1, len(images) // TRIALS)][:TRIALS]
    whole = _session(proto, list({*ends, *(trial.name for trial in trials)}))
    feed = whole.get_inputs()[0].name
    truth = [whole.run(ends, {feed: image[None]}) for image in images]
    variances = [max(float(np.var(np.stack(values))), 1e-12) for values in zip(*truth, strict=True)]
    found = dict[str, Harm]()
    for trial in trials:
        options = _different(trial.candidates(seen[trial.name]))
        if trial.name in ends:  # nothing comes after it: the least squared error itself
            found[trial.name] = Harm(options[min(1, len(options) - 1)], 0.0)
            continue
        after = _session(proto, ends, given=trial.name)
        errors = np.zeros(len(options))
        for image, expected in zip(images, truth, strict=True):
            values = np.asarray(whole.run([trial.name], {feed: image[None]})[0])
            for index, option in enumerate(options):
                given = {feed: image[None], trial.name: trial.scale(option).applied(values)}
                answers = zip(after.run(ends, given), expected, variances, strict=True)
                errors[index] += sum(float(np.mean((a - b) ** 2)) / variance for a, b, variance in answers)
        best = int(errors.argmin())
        found[trial.name] = Harm(options[best], float(errors[best]) / len(images))
    return found


def _different(options: list[Range]) -> list[Range]:
    kept = list[Range]()
    for low, high in options:
        if all(max(abs(low - a), abs(high - b)) > _SAME * (b - a) for a, b in kept):
            kept.append((low, high))
    return kept or options[:1]


def _session(proto: ModelProto, outputs: Sequence[str], given: str | None = None) -> Any:
    """``proto`` with other outputs, and the tensor ``given`` as one more input."""
    import onnx
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if given:
        for node in copy.graph.node:
            node.output[:] = [name + "_not_used" if name == given else name for name in node.output]
        copy.graph.input.append(onnx.helper.make_tensor_value_info(given, onnx.TensorProto.FLOAT, None))
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
