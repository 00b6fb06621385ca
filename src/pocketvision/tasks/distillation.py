"""Any task with teachers: the student learns what they say of each image, more than what its label says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..data.loader import Batch
from ..errors import ConfigurationError, nearest
from ..nn.heads.masks import MaskOutputs
from ..nn.heads.ssd import SSDOutputs
from ..nn.layers import Normalize
from ..nn.model import Model
from . import LossOptions, Meter, Task


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained network that is only asked. ``columns``: where its outputs have the student's classes, in order."""

    model: Model
    normalize: Normalize
    columns: Tensor

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Any:
        """What it says, of the student's classes, of the pixels that the student sees, prepared as it wants them."""
        x_BCHW = self.normalize(batch.images.to(self.columns.device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x_BCHW.device.type, torch.bfloat16, enabled=x_BCHW.is_cuda):
            outputs = self.model(x_BCHW)
        if isinstance(outputs, SSDOutputs):
            return replace(outputs, logits=outputs.logits[:, :, [0, *(1 + self.columns).tolist()]])
        if isinstance(outputs, MaskOutputs):
            return MaskOutputs(outputs.logits[:, self.columns])
        return outputs[:, self.columns] if isinstance(outputs, Tensor) else outputs


def make_teacher(model: Model, classes: Sequence[str], device: str) -> Teacher:
    """``model`` in eval mode on ``device``, for a student of ``classes``.

    Raises ConfigurationError when it does not know one of them.
    """
    known = model.spec.labels
    if missing := [name for name in classes if name not in known]:
        raise ConfigurationError(
            f"the teacher {model.spec.backbone.name} does not know the class {missing[0]!r} "
            f"({nearest(missing[0], known)}); train it on the same classes first, and name its run"
        )
    model = model.to(device).eval().requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    columns = torch.tensor([known.index(name) for name in classes], device=device)
    return Teacher(model, Normalize(model.spec.preprocessing).to(device), columns)


@dataclass(frozen=True, slots=True)
class Distillation:
    """``task`` with ``teachers``, which are neither trained, averaged nor saved (FACTS K1 to K3).

    The loss is the task's imitation of their mean prediction, and ``options.hard_labels`` is the share of
    the task's own loss beside it: 0 as in MEAL V2 (arXiv:2009.08453 §3), above 0 as in arXiv:1503.02531 §2.
    """

    task: Task
    teachers: tuple[Teacher, ...]

    @property
    def name(self) -> str:
        """The task's: runs are kept, and resumed, as its runs."""
        return self.task.name

    @property
    def metric(self) -> str:
        """The task's."""
        return self.task.metric

    def loss(self, outputs: Any, batch: Batch, options: LossOptions) -> Tensor:
        """Scalar float32; ``batch`` holds the pixels of which ``outputs`` are the student's."""
        if not batch.items:
            return self.task.loss(outputs, batch, options)
        loss = self.imitation(outputs, [teacher.outputs(batch) for teacher in self.teachers], options.temperature)
        if options.hard_labels:
            loss = torch.lerp(loss, self.task.loss(outputs, batch, options), options.hard_labels)
        return loss

    def imitation(self, outputs: Any, teachers: Sequence[Any], temperature: float) -> Tensor:
        """The task's."""
        return self.task.imitation(outputs, teachers, temperature)

    def meter(self) -> Meter:
        """The task's."""
        return self.task.meter()
