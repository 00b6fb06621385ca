"""The mean of the weights of several epochs (FACTS T8)."""

import copy
from pathlib import Path

import torch

from ..nn.load import load_model, save_model
from . import distributed
from .checkpoint import BEST
from .events import Averaged
from .training import Training


def record_path(run: Path, epoch: int) -> Path:
    """Where the weights of a record epoch wait for being averaged."""
    return run / "weights" / f"epoch-{epoch}.safetensors"


def keep_record(training: Training, epoch: int) -> None:
    """Keep the weights of ``epoch``, which are the best so far, and forget the oldest ones above the recipe's count.

    Files of an epoch that no state file lists (the process was killed in between) are overwritten when it comes again.
    """
    records, count = training.progress.records, training.recipe.average_best
    if count and distributed.first():
        save_model(training.evaluated, record_path(training.run, epoch))
    if count:
        records[:] = [*(number for number in records if number != epoch), epoch][-count:]


def forget_others(training: Training) -> None:
    """Delete what ``keep_record`` has put aside of epochs that are no longer listed."""
    if not distributed.first():
        return
    kept = {record_path(training.run, epoch) for epoch in training.progress.records}
    for path in (training.run / "weights").glob("epoch-*.safetensors"):
        if path not in kept:
            path.unlink(missing_ok=True)


def average_records(training: Training) -> Averaged:
    """Average the kept epochs, BatchNorm's statistics too; the mean becomes the best if it is no worse."""
    progress, run = training.progress, training.run
    model = copy.deepcopy(training.evaluated)
    if distributed.first():
        states = [load_model(None, record_path(run, epoch))[0].state_dict() for epoch in progress.records]
        mean = {
            name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
            for name, tensor in model.state_dict().items()
        }
        model.load_state_dict(mean)
    distributed.same_as_first(model.state_dict().values())
    metrics = training.evaluate(model)
    value = metrics.get(training.task.metric)
    kept = value is None or progress.best is None or value >= progress.best
    if kept:
        progress.best = value
        if distributed.first():
            save_model(model, run / BEST)
    progress.averaged = True
    return Averaged(tuple(progress.records), metrics, kept)
