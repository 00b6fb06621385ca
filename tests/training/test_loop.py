"""fit and resume: what is reported, when it stops, and that a stop in between changes nothing."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pocketvision.errors import ConfigurationError, DataError, TrainingError
from pocketvision.nn.model import Model, build
from pocketvision.tasks.classification import Classification
from pocketvision.training import checkpoint, loop, training
from pocketvision.training.checkpoint import load_model, read_state
from pocketvision.training.evaluate import evaluate, torch_predictor
from pocketvision.training.events import EpochEnd, Event, Saved, Started, Step, Stopped
from pocketvision.training.loop import fit, resume
from pocketvision.training.recipe import from_yaml

from .conftest import RECIPE, SPEC

TASK = Classification()
STEPS = 5  # of an epoch: 72 images in batches of 16


def test_events(started, run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "STEP_EVENTS_S", 0)
    events = list(started())
    assert events[0] == Started(run, 0, 15, STEPS, 72, 40, "cpu")
    assert [type(event) for event in events[1 : 3 + STEPS]] == [Step] * STEPS + [EpochEnd, Saved]
    steps = [event for event in events if isinstance(event, Step)]
    assert [(event.epoch, event.step) for event in steps] == [(1 + i // STEPS, i + 1) for i in range(15)]
    assert all(event.steps == 15 and math.isfinite(event.loss) and event.images_per_s > 0 for event in steps)
    ends = [event for event in events if isinstance(event, EpochEnd)]
    assert [(event.epoch, event.epochs) for event in ends] == [(1, 3), (2, 3), (3, 3)]
    best = max(event.metrics["top1"] for event in ends)
    stopped = events[-1]
    assert isinstance(stopped, Stopped)
    assert (stopped.reason, stopped.step, stopped.best) == ("finished", 15, best)
    assert stopped.best_epoch == max(event.epoch for event in ends if event.metrics["top1"] == best)
    assert from_yaml((run / "args.yaml").read_text()) == replace(RECIPE, amp=False)


def test_it_learns_and_the_kept_weights_are_those_that_were_evaluated(started, run: Path, data):
    events = list(started(epochs=40, ema=0.5))
    stopped, ends = events[-1], [event for event in events if isinstance(event, EpochEnd)]
    assert isinstance(stopped, Stopped) and stopped.best is not None
    assert stopped.best > 0.4  # a tenth is chance
    assert ends[-1].train_loss < 0.7 * ends[0].train_loss
    for path, expected in ((run, stopped.best), (run / checkpoint.LAST, ends[-1].metrics["top1"])):
        predict = torch_predictor(load_model(path))
        assert evaluate(predict, data.val, SPEC.preprocessing, data.classes).top1 == expected


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / checkpoint.LAST)


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "lr": 0.003, "dropout": 0.5, "schedule": "exponential", "channels_last": False},
        {"optimizer": "rmsprop_tf", "lr": 0.003, "ema": None, "clip_norm": 1.0, "amp": True},
    ],
    ids=["sgd", "adamw", "rmsprop"],
)
def test_a_run_stopped_after_any_step_ends_with_the_same_bits(started, run: Path, data, changes, tmp_path: Path):
    list(started(save_every_s=0, **changes))
    expected, rows = weights_of(run), read_state(run)[0].progress.rows
    for stop in (1, 4, 5, 7, 14):
        other = tmp_path / f"stopped-{stop}"
        torch.manual_seed(0)
        events = fit(build(SPEC), TASK, data, replace(RECIPE, save_every_s=0, **changes), other)
        next(event for event in events if isinstance(event, Saved) and event.step == stop)
        events.close()  # type: ignore[attr-defined]  (a generator)
        torch.manual_seed(stop)
        resumed = list(resume(other, TASK))
        assert isinstance(resumed[0], Started) and resumed[0].step == stop
        assert_equal(weights_of(other), expected)
        for row, expected_row in zip(read_state(other)[0].progress.rows, rows, strict=True):
            assert {**row, "seconds": 0} == {**expected_row, "seconds": 0}


def test_resume_of_a_finished_run_changes_nothing(started, run: Path):
    last = list(started())[-1]
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    first, second = resume(run, TASK)
    assert isinstance(first, Started) and isinstance(second, Stopped)
    assert replace(second, seconds=0) == replace(last, seconds=0)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


def test_fit_refuses_a_folder_that_holds_a_run(started, run: Path):
    next(started())
    with pytest.raises(ConfigurationError, match="holds a run already"):
        next(started())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_ends_the_step_and_saves(started, run: Path, number, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "STEP_EVENTS_S", 0)
    seen = list[Event]()
    before = signal.getsignal(number)
    for event in started():
        seen.append(event)
        if isinstance(event, Step) and event.step == 3:
            os.kill(os.getpid(), number)
    assert isinstance(seen[-1], Stopped) and (seen[-1].reason, seen[-1].step) == ("interrupted", 4)
    assert read_state(run)[0].progress.step == 4
    assert signal.getsignal(number) is before
    assert isinstance(list(resume(run, TASK))[-1], Stopped)


def test_a_second_interruption_acts_at_once(started):
    events = started(save_every_s=0)
    next(event for event in events if isinstance(event, Saved))
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_patience(started, run: Path):
    events = list(started(epochs=30, lr=1e-9, ema=None, patience=2))
    stopped = events[-1]
    assert isinstance(stopped, Stopped) and stopped.reason == "patience"
    ends = [event for event in events if isinstance(event, EpochEnd)]
    values = [event.metrics["top1"] for event in ends]
    rises = [i for i, value in enumerate(values) if i == 0 or value > max(values[:i])]
    assert len(values) == rises[-1] + 3 < 30
    assert len(list(resume(run, TASK))) == 2


class Time:
    """A clock on which each training step takes a second and an evaluation two."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    clock, step, evaluation = Time(), training.Training.step, training.Training.evaluate
    monkeypatch.setattr(training.time, "monotonic", clock.monotonic)

    def timed_step(self, batch):
        clock.now += 1
        return step(self, batch)

    def timed_evaluation(self):
        metrics = evaluation(self)
        clock.now += 2
        self.clock.evaluation_s = 2.0
        return metrics

    monkeypatch.setattr(training.Training, "step", timed_step)
    monkeypatch.setattr(training.Training, "evaluate", timed_evaluation)
    yield clock
    monkeypatch.undo()


@pytest.mark.parametrize("limit_s", [3, 8, 20, 33, 70])
def test_time_limit_shortens_the_schedule(
    started, clock: Time, run: Path, monkeypatch: pytest.MonkeyPatch, limit_s: int
):
    monkeypatch.setattr(loop, "FIRST_PLAN", 4)
    start = clock.now
    events = list(started(epochs=50, time_limit_s=limit_s, save_every_s=1000))
    stopped, ends = events[-1], [event for event in events if isinstance(event, EpochEnd)]
    assert isinstance(stopped, Stopped) and stopped.reason == "finished"
    assert clock.now - start <= max(limit_s, 4 + 2)  # before the first plan nothing is known
    assert limit_s < 20 or clock.now - start >= limit_s - 3
    assert limit_s < 20 or ends[-1].lr < 0.1 * RECIPE.lr
    assert ends[-1].epochs == ends[-1].epoch == math.ceil(stopped.step / STEPS)


def test_time_limit_that_is_long_enough_changes_nothing(started, clock: Time):
    stopped = list(started(time_limit_s=1000))[-1]
    assert isinstance(stopped, Stopped) and stopped.step == 15


@pytest.mark.parametrize("changes", [{}, {"clip_norm": 1.0}])
def test_a_loss_that_is_not_finite_stops_and_keeps_good_weights(started, model: Model, run: Path, changes):
    events = started(save_every_s=0, **changes)
    next(event for event in events if isinstance(event, Saved) and event.step == 3)
    nn.init.constant_(model.head.linear.bias, math.inf)
    with pytest.raises(TrainingError) as error:
        list(events)
    message = str(error.value)
    assert "the loss is nan at step 3 (epoch 1)" in message
    assert str(run / checkpoint.LAST) in message
    assert "lr=0.005" in message
    assert ("clip_norm=1" in message) != bool(changes)
    assert all(tensor.isfinite().all() for tensor in weights_of(run).values())
    assert read_state(run)[0].progress.step == 3


def test_weights_that_are_not_finite_are_never_saved(started, model: Model, run: Path):
    events = started()
    next(events)
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).running_var.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"running_var is no longer finite at step 5 \(epoch 2\)"):
        list(events)
    assert all(tensor.isfinite().all() for tensor in weights_of(run).values())
    assert not (run / checkpoint.BEST).exists()


def test_frozen_batchnorm_keeps_its_statistics_and_trains_its_weights(started, model: Model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    list(started(frozen_bn=True, epochs=1, ema=None))
    after = model.state_dict()
    statistics = [name for name in after if "running_" in name]
    assert statistics and all(torch.equal(after[name], before[name]) for name in statistics)
    norms = [name.replace("running_mean", "weight") for name in statistics if "running_mean" in name]
    assert all(not torch.equal(after[name], before[name]) for name in norms)


def test_settings_reach_the_layers(started, model: Model):
    next(started(dropout=0.4, bn_momentum=0.3))
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.4}
    assert {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {0.3}


def test_wrong_data_is_named(model: Model, data, run: Path):
    with pytest.raises(DataError, match="1 training images"):
        next(fit(model, TASK, replace(data, train=data.train[:1]), RECIPE, run))
    with pytest.raises(ConfigurationError, match="10 classes"):
        next(fit(model, TASK, replace(data, classes=("a", "b")), RECIPE, run))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_cuda_where_there_is_none(started):
    with pytest.raises(ConfigurationError, match="nearest valid: device=cpu"):
        next(started(device="cuda"))


def hold_and_wait(run: Path) -> subprocess.Popen[str]:
    """Another process that holds the run and never ends by itself, with a data worker that was forked from it."""
    program = """
import os, sys, time
from pathlib import Path
from pocketvision.training.lock import only_here
with only_here(Path(sys.argv[1])):
    if not os.fork():
        print(os.getpid(), flush=True)
    time.sleep(600)
"""
    return subprocess.Popen([sys.executable, "-c", program, run], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="runs are not locked there")
def test_one_process_at_a_time_trains_a_run(started, run: Path, model: Model, data):
    events = started()
    next(events)
    for other in (resume(run, TASK), fit(model, TASK, data, RECIPE, run)):
        with pytest.raises(TrainingError, match="another process is training this run"):
            next(other)
    events.close()
    next(resume(run, TASK))


@pytest.mark.skipif(sys.platform == "win32", reason="runs are not locked there")
def test_a_killed_process_holds_no_run(started, run: Path):
    next(started())
    process = hold_and_wait(run)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        with pytest.raises(TrainingError, match="another process is training this run"):
            next(resume(run, TASK))
        process.kill()
        process.wait()
        next(resume(run, TASK))
    finally:
        os.kill(worker, signal.SIGKILL)
        process.kill()
        process.communicate()


def test_resume_of_a_folder_that_is_no_run_leaves_nothing_in_it(run: Path):
    with pytest.raises(TrainingError, match="holds no checkpoint"):
        next(resume(run, TASK))
    assert not list(run.iterdir())


def test_resume_as_another_task(started, run: Path):
    next(started())
    with pytest.raises(TrainingError, match="task 'classify', not of 'detect'"):
        next(resume(run, Classification(name="detect")))
