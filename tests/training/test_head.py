"""Training that starts at the head, and training without BatchNorm."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pocketvision.data.sources import Dataset
from pocketvision.exporting.onnx import export
from pocketvision.nn.model import Model, build
from pocketvision.tasks.classification import Classification
from pocketvision.training import loop
from pocketvision.training.checkpoint import BEST, LAST, load_model, read_state
from pocketvision.training.events import EpochEnd, HeadFirst, Saved, Started, Step, Stopped
from pocketvision.training.head import _fitted, train_head
from pocketvision.training.loop import fit, resume
from pocketvision.training.training import prepare

from .conftest import RECIPE, SPEC


def test_only_the_last_layer_changes_and_it_learns(model: Model, data: Dataset, run: Path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = prepare(model, Classification(), data, RECIPE, run)
    accuracy = training.evaluate(model)["top1"]
    model.train()
    train_head(model, data.train, RECIPE)
    assert model.training
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.linear.weight", "head.linear.bias"}
    assert training.evaluate(model)["top1"] > accuracy + 0.2


def test_fitted_is_the_minimum():
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    x = torch.randn(60, 4) + F.one_hot(labels, 4) * 2
    weight, bias = _fitted(x, labels, 0.1, 3)
    weight.requires_grad_()
    bias.requires_grad_()
    loss = F.cross_entropy(F.linear(x, weight, bias), labels, label_smoothing=0.1) + 1e-3 * weight.square().sum()
    loss.backward()
    for tensor in (weight, bias):
        assert tensor.grad is not None
        assert tensor.grad.abs().max() < 1e-3


def test_a_run_starts_with_it_once(started, run: Path, monkeypatch: pytest.MonkeyPatch):
    calls = list[int]()
    monkeypatch.setattr("pocketvision.training.loop.train_head", lambda *args: calls.append(1) or train_head(*args))
    events = started(head_first=True, epochs=2)
    for event in events:
        if isinstance(event, EpochEnd):
            break
    events.close()
    first = read_state(run)[0]
    assert isinstance(list(resume(run, Classification()))[-1], Stopped)
    assert calls == [1]
    assert first.recipe.head_first


def test_the_average_starts_from_the_fitted_head(started, run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "STEP_EVENTS_S", 0)
    events = started(head_first=True)
    assert [type(next(events)) for _ in range(3)] == [Started, HeadFirst, Step]  # nothing is saved after the first step
    tensors = read_state(run)[0].tensors
    events.close()
    assert torch.equal(tensors["ema.head.linear.weight"], tensors["model.head.linear.weight"])


def test_folded_training_resumes_and_exports(started, run: Path, model: Model, tmp_path: Path):
    events = started(fold_bn=True, save_every_s=0, epochs=2)
    for event in events:
        if isinstance(event, Saved) and event.step == 2:
            break
    events.close()
    stopped = list(resume(run, Classification()))[-1]
    assert isinstance(stopped, Stopped)
    assert stopped.step == stopped.steps
    trained = load_model(run / BEST)
    assert trained.spec.backbone.folded
    assert not any(isinstance(module, nn.BatchNorm2d) for module in trained.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    export(trained, out=tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").exists()


def test_a_run_killed_while_the_head_is_fitted_starts_with_it_again(started, run: Path, data: Dataset, tmp_path: Path):
    events = started(head_first=True, epochs=1)
    assert [type(next(events)) for _ in range(2)] == [Started, HeadFirst]
    events.close()
    list(resume(run, Classification()))
    torch.manual_seed(0)
    recipe = replace(RECIPE, head_first=True, epochs=1)
    list(fit(build(SPEC), Classification(), data, recipe, whole := tmp_path / "whole"))
    assert (run / LAST).read_bytes() == (whole / LAST).read_bytes()
