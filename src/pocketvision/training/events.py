"""What a training run reports: one frozen dataclass per kind of event."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Reason = Literal["finished", "patience", "interrupted"]


@dataclass(frozen=True, slots=True)
class Started:
    """The first event. ``step``: steps done already (above 0: a resumed run); ``warning``: of a damaged checkpoint."""

    run: Path
    step: int
    steps: int
    steps_per_epoch: int
    train_images: int
    val_images: int
    device: str
    warning: str = ""


@dataclass(frozen=True, slots=True)
class HeadFirst:
    """The last layer is now fitted to ``images`` as the frozen backbone sees them, before the first step."""

    images: int


@dataclass(frozen=True, slots=True)
class Step:
    """Some steps were done; at most a few of these a second. ``steps`` is the plan, which a time limit shortens.

    ``loss``: of the last step. ``epoch`` counts from 1. ``images_per_s``: since the last event. ``eta_s``: seconds
    to the end.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    lr: float
    images_per_s: float
    eta_s: float


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """An epoch was trained and evaluated; ``best``: by the task's metric none was better. ``epochs`` is the plan."""

    epoch: int
    epochs: int
    train_loss: float
    metrics: Mapping[str, float]
    best: bool
    lr: float
    images_per_s: float
    eta_s: float


@dataclass(frozen=True, slots=True)
class Averaged:
    """The weights of the record epochs were averaged and evaluated; ``kept``: they are the best now."""

    epochs: tuple[int, ...]
    metrics: Mapping[str, float]
    kept: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint of step ``step`` is on the disk: from here the run can go on."""

    path: Path
    step: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event. ``best``: the metric of weights/best.safetensors, of epoch ``best_epoch`` (None, 0: no epoch
    was finished). ``seconds``: of all sessions of the run together."""

    reason: Reason
    run: Path
    step: int
    steps: int
    metric: str
    best: float | None
    best_epoch: int
    seconds: float


Event = Started | HeadFirst | Step | EpochEnd | Averaged | Saved | Stopped
