"""Training events as a progress bar on a terminal, or one line per epoch elsewhere; always on standard error."""

import os
import sys
from collections.abc import Iterator

from ..training.events import Averaged, EpochEnd, Event, HeadFirst, Started, Step, Stopped


def speaks() -> bool:
    """Whether this process is alone, or the first of those that torchrun started: the others are silent."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def tell(text: str) -> None:
    """A line for the person who waits."""
    if not speaks():
        return
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def show(events: Iterator[Event]) -> Stopped:
    """Run the training to its end, showing how it goes, and return its last event."""
    on_terminal = sys.stderr.isatty() and speaks()
    for event in events:
        match event:
            case Started():
                _started(event)
            case Step() if on_terminal:
                _bar(event)
            case EpochEnd():
                _epoch(event, on_terminal)
            case HeadFirst():
                tell(f"fitting the last layer to {event.images} images first")
            case Averaged():
                tell(_averaged(event))
            case Stopped():
                return event
    raise AssertionError("a training run ends with Stopped")


def _started(event: Started) -> None:
    if event.warning:
        tell(f"warning: {event.warning}")
    where = f"going on at step {event.step} of {event.steps}" if event.step else f"{event.steps} steps"
    tell(f"{event.run}: {event.train_images} images to train, {event.val_images} to validate, {event.device}, {where}")


def _bar(event: Step) -> None:
    share = event.step / max(1, event.steps)
    filled = round(24 * share)
    sys.stderr.write(
        f"\r\033[K{'█' * filled}{'░' * (24 - filled)} {share:4.0%}  epoch {event.epoch}  loss {event.loss:.3f}  "
        f"lr {event.lr:.1e}  {event.images_per_s:.0f} images/s  {_clock(event.eta_s)} left"
    )
    sys.stderr.flush()


def _epoch(event: EpochEnd, on_terminal: bool) -> None:
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in event.metrics.items())
    start = "\r\033[K" if on_terminal else ""
    best = "  best" if event.best else ""
    tell(
        f"{start}epoch {event.epoch}/{event.epochs}  train loss {event.train_loss:.3f}  val {metrics}  "
        f"{event.images_per_s:.0f} images/s  {_clock(event.eta_s)} left{best}"
    )


def _averaged(event: Averaged) -> str:
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in event.metrics.items())
    outcome = "best" if event.kept else "not better, so not kept"
    return f"mean of epochs {', '.join(map(str, event.epochs))}  val {metrics}  {outcome}"


def _clock(seconds: float) -> str:
    """75 -> "1:15"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
