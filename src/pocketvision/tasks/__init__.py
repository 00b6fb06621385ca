"""What varies from task to task in one training loop: the loss and the metrics."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from ..data.loader import Batch


class LossOptions(Protocol):
    """The settings of a training run that losses read; a Recipe has them."""

    @property
    def label_smoothing(self) -> float: ...
    @property
    def temperature(self) -> float: ...
    @property
    def hard_labels(self) -> float: ...


class Meter(Protocol):
    """Collects metrics over the batches of an evaluation."""

    def update(self, outputs: Any, batch: Batch) -> None:
        """Take in a model's outputs, on any device."""
        ...

    def merge(self, gathered: Callable[[Tensor], list[Tensor]]) -> None:
        """Take in what the meters of other processes have seen; of a tensor [n], which may be longer in some,
        ``gathered`` gives each process's."""
        ...

    def compute(self) -> dict[str, float]:
        """The metrics of everything taken in; the first is the one that decides which weights are best."""
        ...


class Task(Protocol):
    """A kind of problem. ``name`` is the folder below ``runs/``; of ``metric``, a higher value is better."""

    @property
    def name(self) -> str: ...
    @property
    def metric(self) -> str: ...

    def loss(self, outputs: Any, batch: Batch, options: LossOptions) -> Tensor:
        """What training minimises, a float32 scalar; ``batch`` is on the device of ``outputs``.

        Of an empty batch, the share of a process that has no images left, it is 0 and still depends on ``outputs``.
        """
        ...

    def imitation(self, outputs: Any, teachers: Sequence[Any], temperature: float) -> Tensor:
        """How far ``outputs`` are from the mean of what ``teachers`` say of the same images; 0: they agree."""
        ...

    def meter(self) -> Meter:
        """A new, empty meter."""
        ...
