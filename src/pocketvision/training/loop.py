"""The one training loop of every task: a generator of events."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from .. import files
from ..data.sources import Dataset, load_split, parse_split, save_split, split_text
from ..errors import ConfigurationError, TrainingError
from ..nn.fold import fold
from ..nn.model import Model, build
from ..tasks import Task
from ..tasks.named import task_named
from . import checkpoint, distributed
from .averaging import average_records, forget_others, keep_record
from .checkpoint import Snapshot
from .events import EpochEnd, Event, HeadFirst, Reason, Saved, Started, Step, Stopped
from .head import train_head
from .interrupts import Interrupts
from .lock import LOCK, only_here
from .optim import EMA
from .recipe import Recipe
from .training import Clock, Training, prepare, suitable_threads

STEP_EVENTS_S = 0.25
WARM_STEP, FIRST_PLAN = 2, 10  # speed is measured from the one step on, and used for a plan at the other


def fit(model: Model, task: Task, data: Dataset, recipe: Recipe, run: Path) -> Iterator[Event]:
    """Train ``model`` on ``data.train``, evaluate on ``data.val`` after each epoch, keep all in ``run``.

    ``model`` itself is changed, with ``fold_bn`` a folded copy. Work is done as events are asked for; who stops
    asking can go on with ``resume`` from the last checkpoint. There is one before the first step, one every
    ``recipe.save_every_s``, one at each epoch's end, and one on the first Ctrl-C or SIGTERM, which end the run with
    Stopped("interrupted"). Of equally good epochs the latest is the best one. Step s seeds torch's global
    generators from (seed, s), and data is drawn from (seed, epoch, position), so that on a CPU with one thread a
    resumed run ends with the same bits as one that was never stopped. On a CPU the process keeps freed memory from
    here on (``keep_freed_memory``).

    Raises TrainingError when the loss is not finite or another process trains in ``run``, ConfigurationError for a
    device that is not there or a folder that holds a run, DataError for an image that cannot be read.
    """
    first = distributed.first()
    if first:
        (run / LOCK).parent.mkdir(parents=True, exist_ok=True)
    with only_here(run):
        if first and (run / checkpoint.STATE).exists():
            raise ConfigurationError(f"{run} holds a run already; resume it, or make a new folder with create_run")
        recipe = _resolved(recipe)
        model = fold(model.eval()).train() if recipe.fold_bn else model
        training = prepare(model, task, data, recipe, run)
        with _telling(run):
            if first:
                files.write_text(run / checkpoint.ARGS, training.recipe.to_yaml())
                save_split(data, run / checkpoint.SPLIT)
            training.save()
        yield from _events(training, data, "")


def resume(run: str | Path, task: Task | None = None) -> Iterator[Event]:
    """Go on with the run in folder ``run`` from its last checkpoint; of a finished run only the end is reported again.

    ``task``: the run's own where none is given.

    The recipe is that of the checkpoint, the images are those of split.json. Raises TrainingError for a folder
    without a checkpoint, of another task or in which another process trains, WeightsError where every checkpoint is
    damaged, and what ``fit`` raises.
    """
    run = Path(run)
    with only_here(run):
        yield from _resumed(run, task)


def _resumed(run: Path, task: Task | None) -> Iterator[Event]:
    snapshot, data, warning = _read(run)
    task = task or task_named(snapshot.task)
    if snapshot.task != task.name:
        raise TrainingError(f"{run} is a run of the task {snapshot.task!r}, not of {task.name!r}; resume it as that")
    recipe, progress = snapshot.recipe, snapshot.progress
    if progress.step >= progress.steps and (progress.averaged or len(progress.records) < 2):
        recipe = replace(recipe, teachers=())  # who is not needed any more need not be there
    training = prepare(build(snapshot.spec), task, data, recipe, run)
    training.progress, training.clock = snapshot.progress, Clock(snapshot.progress.seconds)
    checkpoint.restore(snapshot, training.model, "model.")
    checkpoint.restore_optimizer(snapshot, training.optimizer, training.model)
    if training.ema:
        checkpoint.restore(snapshot, training.ema.model, "ema.")
    if distributed.first():
        checkpoint.remove_leftovers(run)
    yield from _events(training, data, warning)


def _read(run: Path) -> tuple[Snapshot, Dataset, str]:
    """A run's newest state, its images, and a warning of a damaged state.

    Of several processes the first one reads: the others may be on machines that do not have the folder.
    """
    found = list[tuple[Snapshot, Dataset, str]]()
    if distributed.first():
        snapshot, warning = checkpoint.read_state(run)
        found.append((snapshot, load_split(run / checkpoint.SPLIT), warning))
    if distributed.world() > 1:
        state = distributed.from_first(lambda: checkpoint.encode(found[0][0]))
        split = distributed.from_first(lambda: split_text(found[0][1]).encode())
        found.append((checkpoint.decode(state), parse_split(split.decode()), ""))
    return found[0]


def _resolved(recipe: Recipe) -> Recipe:
    """The recipe with what "auto" and None mean on this machine."""
    cuda = torch.cuda.is_available()
    device = ("cuda" if cuda else "cpu") if recipe.device == "auto" else recipe.device
    return replace(recipe, device=device, amp=device == "cuda" if recipe.amp is None else recipe.amp)


def _events(training: Training, data: Dataset, warning: str) -> Iterator[Event]:
    recipe, progress, clock, run = training.recipe, training.progress, training.clock, training.run
    counts = len(training.batches), len(data.train), len(data.val)
    yield Started(run, progress.step, progress.steps, *counts, device=recipe.device, warning=warning)
    clock.mark(progress.step)
    together = distributed.world() > 1
    if recipe.head_first and not progress.head_fitted:
        yield HeadFirst(len(data.train))
        _fit_head(training, data)
    with (
        distributed.advising(f"pocketvision train --resume {run}"),
        suitable_threads(training.model.spec, recipe),
        Interrupts(patient=together) as interrupts,
    ):
        while (reason := _reason_to_stop(training, interrupts)) is None:
            yield from _epoch(training, interrupts)
    if reason != "interrupted" and len(progress.records) > 1 and not progress.averaged:
        with _telling(run):
            averaged = average_records(training)
            path = training.save()
        yield averaged
        yield Saved(path, progress.step)
    metric, seconds = training.task.metric, clock.seconds()
    yield Stopped(reason, run, progress.step, progress.steps, metric, progress.best, progress.best_epoch, seconds)


def _fit_head(training: Training, data: Dataset) -> None:
    """Before the first step; a process killed meanwhile starts it again."""
    train_head(training.model, data.train, training.recipe)
    distributed.same_as_first(training.model.state_dict().values())
    training.ema = EMA(training.model, training.recipe.ema) if training.recipe.ema else None
    training.progress.head_fitted = True
    with _telling(training.run):
        training.save()


@contextmanager
def _telling(run: Path) -> Iterator[None]:
    """Say what to do when the run's files cannot be written, as on a full disk."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"cannot write {error.filename or run}: {error.strerror}; what was written before is whole: "
            f"make room, or the folder writable, then pocketvision train --resume {run}"
        ) from None


def _reason_to_stop(training: Training, interrupts: Interrupts) -> Reason | None:
    if training.progress.step >= training.progress.steps:
        return "finished"
    if 0 < training.recipe.patience <= training.progress.stale:
        return "patience"
    return "interrupted" if distributed.any_of(interrupts.received)[0] else None


def _epoch(training: Training, interrupts: Interrupts) -> Iterator[Event]:
    """From the present step to the end of its epoch, with the evaluation; or to an interruption."""
    recipe, progress, clock = training.recipe, training.progress, training.clock
    epoch, position = divmod(progress.step, len(training.batches))
    warm, lr = progress.step + WARM_STEP, 0.0
    told, saved = (time.monotonic(), progress.step), time.monotonic()
    training.train_mode()
    for batch in training.epoch_batches(epoch, position):
        loss, lr = training.step(batch)
        now = time.monotonic()
        if progress.step == warm:
            clock.mark(warm)
        stop, due = distributed.any_of(interrupts.received, now - saved >= recipe.save_every_s)
        save = stop or due
        if save or progress.step == FIRST_PLAN:
            clock.lap(progress.step)
            training.plan()
        ends = progress.step >= progress.steps or progress.step % len(training.batches) == 0
        if ends or now - told[0] >= STEP_EVENTS_S:
            speed = (progress.step - told[1]) * training.images_per_step / (now - told[0])
            told = (now, progress.step)
            yield Step(epoch + 1, progress.step, progress.steps, loss, lr, speed, _eta_s(training))
        if ends:
            break
        if save:
            with _telling(training.run):
                path = training.save()
            saved = time.monotonic()
            clock.mark(progress.step)
            yield Saved(path, progress.step)
            if stop:
                return
    yield from _epoch_end(training, epoch + 1, lr)


def _epoch_end(training: Training, epoch: int, lr: float) -> Iterator[Event]:
    progress, clock = training.progress, training.clock
    clock.lap(progress.step)
    metrics = training.evaluate()
    value, record = metrics.get(training.task.metric), progress.best
    best = value is None or record is None or value >= record
    progress.stale = 0 if value is None or record is None or value > record else progress.stale + 1
    if best:
        progress.best, progress.best_epoch = value, epoch
    train_loss = progress.loss_sum / progress.images
    progress.loss_sum, progress.images = 0.0, 0
    row = {"epoch": epoch, "step": progress.step, "lr": lr, "train_loss": train_loss}
    row |= {f"val_{name}": number for name, number in metrics.items()} | {"seconds": round(clock.seconds(), 3)}
    progress.rows.append(row)
    if progress.step < progress.steps:
        training.plan()
    with _telling(training.run):
        if distributed.first():
            checkpoint.write_results(training.run, progress.rows)
        if best:
            keep_record(training, epoch)
        path = training.save(best=best)
        forget_others(training)
    clock.mark(progress.step)
    epochs = math.ceil(progress.steps / len(training.batches))
    speed = training.images_per_step / clock.step_s if clock.step_s else 0.0  # 0: an epoch too short to be timed
    yield EpochEnd(epoch, epochs, train_loss, metrics, best, lr, speed, _eta_s(training))
    yield Saved(path, progress.step)


def _eta_s(training: Training) -> float:
    """Seconds to the end at the present speed."""
    clock, left = training.clock, training.progress.steps - training.progress.step
    return left * (clock.lap(training.progress.step) + (clock.evaluation_s or 0.0) / len(training.batches))
