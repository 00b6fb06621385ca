"""Each switch of a recipe does what its source says, and a resumed run has the same bits with all of them on."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from pocketvision.data.transforms import Augment
from pocketvision.errors import ConfigurationError, TrainingError, WeightsError
from pocketvision.nn.blocks import InvertedResidualBlock
from pocketvision.nn.load import save_model
from pocketvision.nn.model import Model, build
from pocketvision.spec.rows import Conv
from pocketvision.spec.transform import with_classes, with_rows
from pocketvision.tasks.classification import Classification
from pocketvision.tasks.distillation import Distillation, make_teacher
from pocketvision.training import checkpoint
from pocketvision.training.averaging import record_path
from pocketvision.training.events import Averaged, EpochEnd, Saved, Started, Stopped
from pocketvision.training.loop import fit, resume
from pocketvision.training.recipe import Recipe
from pocketvision.training.training import configure, mixed, prepare

from .conftest import RECIPE, SPEC

TASK = Classification()


def test_frozen_stages_keep_weights_and_statistics(started, model: Model, run: Path):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(started(freeze=1, epochs=1, ema=None))
    after = load_file(run / checkpoint.LAST)
    for name, value in before.items():
        if "num_batches" not in name:
            frozen = name.startswith(("backbone.rows.0.", "backbone.rows.1."))  # up to output stride 2
            assert torch.equal(after[name], value) is frozen, name


def test_frozen_backbone_trains_the_head(started, model: Model, run: Path):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(started(freeze=5, epochs=1, ema=None))
    after = load_file(run / checkpoint.LAST)
    assert {name.split(".")[0] for name in before if not torch.equal(after[name], before[name])} == {"head"}


def test_drop_path_leaves_out_whole_samples_at_its_rate_and_keeps_the_mean():
    model = build(SPEC)
    configure(model, Recipe(drop_path=0.25))
    block = next(m for m in model.modules() if isinstance(m, InvertedResidualBlock))
    assert block.drop_path == 0.25  # the only one with a shortcut, so the last
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    x_BCHW = torch.randn(1, 8, 4, 4).expand(4000, -1, -1, -1).contiguous()
    with torch.no_grad():
        change_BCHW = block.train()(x_BCHW) - x_BCHW
        dropped = (change_BCHW == 0).flatten(1).all(1)
        assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.03)
        block.drop_path = 0.0
        whole_BCHW = block(x_BCHW) - x_BCHW
        torch.testing.assert_close(change_BCHW[~dropped] * 0.75, whole_BCHW[~dropped], rtol=1e-3, atol=1e-4)
        block.drop_path = 0.9
        block.eval()
        torch.testing.assert_close(block(x_BCHW[:2]), block(x_BCHW[2:4]))


def test_mixup_blends_images_and_losses(started, model: Model, data, run: Path):
    training = prepare(model, TASK, data, replace(RECIPE, mixup=0.4, device="cpu", amp=False), run)
    batch = next(iter(training.batches.epoch()))
    blend = mixed(batch, 0.4)
    assert mixed(batch, 0) is batch and blend.mixed is not None
    labels, share = blend.mixed
    assert 0 <= share <= 1 and torch.equal(labels, batch.labels.flip(0))
    expected = (1 - share) * batch.images.float() + share * batch.images.flip(0).float()
    torch.testing.assert_close(blend.images, expected, rtol=1e-4, atol=1e-2)
    logits = torch.randn(len(labels), 10)
    parts = [F.cross_entropy(logits, target, label_smoothing=0.1) for target in (batch.labels, labels)]
    loss = TASK.loss(logits, blend, RECIPE)
    torch.testing.assert_close(loss, (1 - share) * parts[0] + share * parts[1])
    shares = [mixed(batch, 0.4).mixed[1] for _ in range(300)]  # type: ignore[index]
    assert sum(shares) / 300 == pytest.approx(0.5, abs=0.08)  # the beta distribution is symmetric
    assert sum(0.1 < value < 0.9 for value in shares) < 200  # and mostly near its ends


def test_progressive_stages_change_size_and_strength(model: Model, data, run: Path):
    spec = replace(SPEC, preprocessing=replace(SPEC.preprocessing, size=64, resize=64))
    stages = ((0.0, 0.5, 0.3), (0.5, 1.0, 1.0))
    recipe = replace(RECIPE, epochs=4, progressive=stages, augment=Augment(policy="randaugment"), amp=False)
    training = prepare(build(spec), TASK, data, recipe, run)
    sizes = [next(training.epoch_batches(epoch, 0)).images.shape[-1] for epoch in range(4)]
    assert sizes == [32, 32, 64, 64]
    assert [recipe.stage(epoch / 4)[1].strength for epoch in range(4)] == [0.3, 0.3, 1.0, 1.0]


def test_the_mean_of_the_last_records_is_evaluated_and_kept_if_no_worse(started, run: Path, data):
    events = list(started(epochs=6, average_best=2, ema=None))
    averaged = next(event for event in events if isinstance(event, Averaged))
    records = [event.epoch for event in events if isinstance(event, EpochEnd) and event.best]
    assert averaged.epochs == tuple(records[-2:])
    parts = [load_file(record_path(run, epoch)) for epoch in averaged.epochs]
    best, stopped = load_file(run / checkpoint.BEST), events[-1]
    assert isinstance(stopped, Stopped) and stopped.best is not None
    before = max(event.metrics["top1"] for event in events if isinstance(event, EpochEnd))
    assert averaged.kept == (averaged.metrics["top1"] >= before)
    assert stopped.best == max(before, averaged.metrics["top1"])
    for name, value in best.items():
        mean = (parts[0][name].double() + parts[1][name].double()) / 2
        expected = mean.to(value.dtype) if averaged.kept else parts[-1][name]
        assert torch.equal(value, expected), name
    assert sorted(path.name for path in (run / "weights").glob("epoch-*")) == sorted(
        record_path(run, epoch).name for epoch in records[-2:]
    )
    assert [type(event) for event in resume(run, TASK)][1:] == [Stopped]  # it is not averaged again


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A larger network with the classes in another order, and one more."""
    torch.manual_seed(7)
    labels = (*(str(digit) for digit in reversed(range(10))), "none")
    model = build(with_classes(SPEC, labels)).eval()
    with torch.no_grad():
        model.head.linear.weight.mul_(100)  # so that it has opinions
    return save_model(model, tmp_path / "teacher.safetensors")


def test_a_student_learns_what_the_teacher_says_and_the_teacher_stays(started, run: Path, data, teacher: Path):
    bytes_before = teacher.read_bytes()
    told: dict[str, Any] = {"epochs": 1, "ema": None, "teachers": (str(teacher),)}
    list(started(**told))
    names = checkpoint.read_state(run)[0].tensors
    assert not any("teacher" in name for name in names) and teacher.read_bytes() == bytes_before
    model = make_teacher(checkpoint.load_model(teacher), data.classes, "cpu")
    training = prepare(build(SPEC), TASK, data, replace(RECIPE, amp=False, device="cpu", **told | {"epochs": 100}), run)
    assert isinstance(training.task, Distillation)
    batch = next(iter(training.batches.epoch()))
    losses = [training.step(batch)[0] for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]
    assert not any(p.requires_grad for p in model.model.parameters())


def test_distillation_is_the_divergence_from_the_mean_of_the_teachers(data, teacher: Path, run: Path, model: Model):
    batch = next(iter(prepare(model, TASK, data, replace(RECIPE, amp=False), run).batches.epoch()))
    one = make_teacher(checkpoint.load_model(teacher), data.classes, "cpu")
    other = make_teacher(build(SPEC), data.classes, "cpu")
    task = Distillation(TASK, (one, other))
    logits = torch.randn(len(batch.items), 10)
    mean = sum(F.softmax(teacher.outputs(batch) / 2, 1) for teacher in task.teachers) / 2
    expected = (mean * (mean.log() - F.log_softmax(logits / 2, 1))).sum(1).mean() * 4  # type: ignore[union-attr]
    options = replace(RECIPE, temperature=2.0)
    torch.testing.assert_close(task.loss(logits, batch, options), expected)
    hard = task.loss(logits, batch, replace(options, hard_labels=0.25))
    torch.testing.assert_close(hard, 0.75 * expected + 0.25 * TASK.loss(logits, batch, options))
    alone = Distillation(TASK, (one,))
    assert float(alone.loss(one.outputs(batch), batch, options)) == pytest.approx(0, abs=1e-6)
    reversed_digits = [str(digit) for digit in reversed(range(10))]
    flipped = make_teacher(checkpoint.load_model(teacher), reversed_digits, "cpu")
    assert torch.equal(flipped.outputs(batch), one.outputs(batch).flip(1))


def test_wrong_teachers_are_refused(started, teacher: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="does not know the class 'cat'"):
        make_teacher(checkpoint.load_model(teacher), ["cat", "1"], "cpu")
    with pytest.raises(WeightsError, match="nowhere is not there"):
        next(started(teachers=(str(tmp_path / "nowhere"),)))
    with pytest.raises(ConfigurationError, match="no block with a shortcut"):
        configure(build(with_rows(SPEC, lambda row: Conv(8))), Recipe(drop_path=0.1))


def test_a_finished_run_needs_its_teacher_no_more(started, run: Path, teacher: Path):
    list(started(epochs=1, teachers=(str(teacher),)))
    teacher.unlink()
    assert [type(event) for event in resume(run, TASK)] == [Started, Stopped]


def test_a_full_disk_is_told_and_the_run_goes_on_later(started, run: Path, monkeypatch: pytest.MonkeyPatch):
    events = started(epochs=2)
    for event in events:
        if isinstance(event, EpochEnd):
            break

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TrainingError, match=r"No space left.*train --resume") as error:
            list(events)
    assert "\n" not in str(error.value)
    assert isinstance(list(resume(run, TASK))[-1], Stopped)


def test_a_resumed_run_has_the_same_bits_with_everything_on(started, run: Path, data, teacher: Path, tmp_path: Path):
    changes = {
        "optimizer": "rmsprop",
        "lr": 0.002,
        "layer_decay": 0.8,
        "freeze": 1,
        "final_weight_decay": 1e-5,
        "lr_noise": 0.5,
        "drop_path": 0.3,
        "mixup": 0.2,
        "dropout": 0.2,
        "average_best": 2,
        "progressive": ((0.0, 1.0, 0.5), (0.5, 1.0, 1.0)),
        "teachers": (str(teacher),),
        "hard_labels": 0.3,
        "save_every_s": 0,
    }
    list(started(**changes))
    expected = {path: load_file(run / path) for path in (checkpoint.LAST, checkpoint.BEST)}
    for stop in (2, 5, 12, 15):
        other = tmp_path / f"stopped-{stop}"
        torch.manual_seed(0)
        events = fit(build(SPEC), TASK, data, replace(RECIPE, **changes), other)
        next(event for event in events if isinstance(event, Saved) and event.step == stop)
        events.close()  # type: ignore[attr-defined]  (a generator)
        list(resume(other, TASK))
        for path, tensors in expected.items():
            again = load_file(other / path)
            assert all(torch.equal(again[name], value) for name, value in tensors.items()), (stop, path)
