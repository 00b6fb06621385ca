"""How much memory the activations of a network need, and in which order its operators need least (S4 §5.1; FACTS M1).

A runtime that frees a tensor after its last use needs at each operator what is alive before it, its inputs among them,
and its output. Weights, and what an operator's own implementation needs, are not counted.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..spec.cost import row_costs
from ..spec.heads import ClassifierHead, FasterRCNNHead
from ..spec.model import ModelSpec
from ..spec.rows import Conv, InvertedResidual
from ..spec.transform import as_folded

if TYPE_CHECKING:
    from ..nn.model import Model

MOST_STATES = 200_000  # that the search for the best order looks at
# Elementwise: such an operator writes its output over an input that nothing else needs.
_IN_PLACE = ("relu", "hardtanh", "clamp", "hardswish", "hardsigmoid", "sigmoid", "silu", "add", "mul", "div", "sub")
_SAME_DATA = ("view", "reshape", "flatten", "permute", "dropout", "contiguous", "clone", "alias", "detach", "unsqueeze")


@dataclass(frozen=True, slots=True)
class Operator:
    """A step of a network: the tensors that it reads, the one that it writes, of ``elements`` numbers.

    ``in_place``: it may write over an input of that size that nothing else reads. ``scratch``: elements that it needs
    for itself while it runs.
    """

    name: str
    inputs: tuple[str, ...]
    elements: int
    in_place: bool = False
    scratch: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """An order of the operators, the elements alive at the worst of them, and its name; ``exact``: no order needs
    less."""

    order: tuple[str, ...]
    peak: int
    at: str
    exact: bool = False

    def kilobytes(self, bits: int = 32) -> float:
        """``peak`` in 1,000 bytes."""
        return self.peak * bits / 8000


def operators(model: Model) -> tuple[Operator, ...]:
    """The steps of ``model`` (eval mode) in deploy form for one image, as torch runs them; the first is the image.

    Raises ConfigurationError for a model in train mode, or whose steps depend on what is in the image (Faster R-CNN).
    """
    import torch

    from ..nn.fold import fold

    class Tensors(torch.nn.Module):
        """The network with the tensors of its outputs alone, which is what can be exported."""

        def __init__(self) -> None:
            super().__init__()
            self.model = fold(model)

        def forward(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
            outputs = self.model(x_BCHW)
            values = [getattr(outputs, each.name) for each in fields(outputs)] if is_dataclass(outputs) else [outputs]
            return tuple(value for value in values if isinstance(value, torch.Tensor))

    if isinstance(model.spec.head, FasterRCNNHead):
        raise ConfigurationError("the memory of a Faster R-CNN depends on what it finds; an SSD's does not")
    size = model.spec.preprocessing.size
    with torch.no_grad():
        program = torch.export.export(Tensors().eval(), (torch.zeros(1, 3, size, size),))
    tensors, found = dict[str, str](), list[Operator]()
    images = program.graph_signature.user_inputs
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in images:
            tensors[node.name] = node.name
            found.append(Operator(node.name, (), _elements(node)))
        if node.op != "call_function":
            continue
        inputs = tuple(dict.fromkeys(tensors[one.name] for one in node.all_input_nodes if one.name in tensors))
        kind = str(getattr(node.target, "__name__", node.target)).partition(".")[0].rstrip("_")
        if not inputs:
            continue  # made of weights alone
        tensors[node.name] = inputs[0] if kind in _SAME_DATA else node.name
        if kind not in _SAME_DATA:
            found.append(Operator(node.name, inputs, _elements(node), kind in _IN_PLACE))
    return tuple(found)


def _elements(node: Any) -> int:
    value = node.meta["val"]
    return sum(each.numel() for each in (value if isinstance(value, tuple | list) else (value,)))


def table_operators(spec: ModelSpec, parts: int | None = None) -> tuple[Operator, ...]:
    """The rows of a classifier's table as one operator each, for one image (S4 §5.1, Table 3; FACTS M3, M4).

    ``parts``: in how many groups a row computes its expanded channels, which are its ``scratch``; None leaves them out,
    as S4 does, whose bound has them grow with t only. Raises ConfigurationError for a network of another task.
    """
    if not isinstance(spec.head, ClassifierHead):
        raise ConfigurationError(
            "rows as single operators are known of classifiers; operators(model) knows all networks"
        )
    size, backbone = spec.preprocessing.size, as_folded(spec).backbone
    channels, height, width = backbone.in_channels, size, size
    found = [Operator("image", (), channels * height * width)]
    costs = row_costs(backbone, (size, size))
    for place, (row, cost) in enumerate(zip(backbone.rows, costs, strict=True)):
        out, rows, columns = cost.out_shape
        expanded = row.expand if isinstance(row, InvertedResidual) else channels
        group = 0 if parts is None or isinstance(row, Conv) else -(-expanded // parts)
        is_made = isinstance(row, InvertedResidual) and row.has_expansion(channels)
        scratch = group * (rows * columns + (height * width if is_made else 0))
        found.append(Operator(f"row {place}", (found[-1].name,), out * rows * columns, scratch=scratch))
        channels, height, width = out, rows, columns
    for name, elements in (("pool", channels), ("classes", spec.head.classes)):
        found.append(Operator(name, (found[-1].name,), elements))
    return tuple(found)


def in_order(steps: Sequence[Operator]) -> Plan:
    """The peak of ``steps`` one after another as they stand."""
    graph = _Graph(steps)
    done, peak, at = 0, 0, steps[0].name
    for index, step in enumerate(steps):
        needed = graph.needed(done, index)
        if needed > peak:
            peak, at = needed, step.name
        done |= 1 << index
    return Plan(tuple(step.name for step in steps), peak, at)


def best_order(steps: Sequence[Operator]) -> Plan:
    """An order of ``steps`` whose peak is least: M(G) of S4 §5.1.

    Best first over the sets of steps that may be done: the set reached with the least peak is continued. A step that
    leaves no more alive than before, and needs no more than the peak so far, is taken at once: to wait is never better.
    Where ``MOST_STATES`` sets do not suffice, the order as it stands, if no better one is found (``exact`` false).
    """
    graph = _Graph(steps)
    whole = (1 << len(steps)) - 1
    waiting: list[tuple[int, int, int, tuple[int, ...]]] = [(0, 0, 0, ())]
    seen = set[int]()
    while waiting and len(seen) < MOST_STATES:
        peak, _, done, order = heapq.heappop(waiting)
        if done in seen:
            continue
        seen.add(done)
        if done == whole:
            names = tuple(steps[index].name for index in order)
            by_name = {step.name: step for step in steps}
            return replace(in_order([by_name[name] for name in names]), exact=True)
        ready = graph.ready(done)
        free = [i for i in ready if graph.needed(done, i) <= peak and graph.alive(done | 1 << i) <= graph.alive(done)]
        for index in free[:1] or ready:
            after = done | 1 << index
            if after not in seen:
                heapq.heappush(waiting, (max(peak, graph.needed(done, index)), -len(order), after, (*order, index)))
    return in_order(steps)


class _Graph:
    """Which steps wait for which; sets of steps are the bits of an integer."""

    def __init__(self, steps: Sequence[Operator]) -> None:
        place = {step.name: index for index, step in enumerate(steps)}
        self.steps = steps
        self.inputs = [[place[name] for name in step.inputs] for step in steps]
        self.before = [sum(1 << index for index in inputs) for inputs in self.inputs]
        self.readers = [0] * len(steps)
        for index, inputs in enumerate(self.inputs):
            for each in inputs:
                self.readers[each] |= 1 << index

    def ready(self, done: int) -> list[int]:
        """Steps that are not done and whose inputs are."""
        return [index for index in range(len(self.steps)) if not done >> index & 1 and self.before[index] & ~done == 0]

    def alive(self, done: int) -> int:
        """Elements that are there and still wanted; the network's outputs are wanted to the end."""
        return sum(
            step.elements
            for index, step in enumerate(self.steps)
            if done >> index & 1 and (not self.readers[index] or self.readers[index] & ~done)
        )

    def needed(self, done: int, index: int) -> int:
        """Elements that are there while step ``index`` runs."""
        step, after = self.steps[index], done | 1 << index
        written_over = step.in_place and any(
            self.steps[each].elements == step.elements and not self.readers[each] & ~after
            for each in self.inputs[index]
        )
        return self.alive(done) + step.scratch + (0 if written_over else step.elements)
