"""A float network that rounds as int8 does: what is rounded, what stays, what is kept, what exporters take from it."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from pocketvision.data.sources import open_dataset
from pocketvision.errors import ConfigurationError
from pocketvision.exporting.onnx import export
from pocketvision.nn.fold import fold
from pocketvision.nn.load import load_model, save_model
from pocketvision.nn.model import Model, build
from pocketvision.nn.rounding import Rounding, rounded, watched, whole_steps
from pocketvision.quant import qat
from pocketvision.quant.sensitivity import sensitivity
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import MobileOneBlock
from pocketvision.tasks.classification import Classification
from pocketvision.training.checkpoint import read_state
from pocketvision.training.events import Saved
from pocketvision.training.loop import fit, resume
from pocketvision.zoo import model_spec

X = torch.linspace(-2, 2, 4 * 3 * 32 * 32).reshape(4, 3, 32, 32).sin()


def activations(model: Model, x: Tensor = X) -> dict[str, tuple[int, ...]]:
    """The shapes of what int8 would round, by name."""
    found = dict[str, tuple[int, ...]]()

    def visit(name: str, x: Tensor, floor: float) -> Tensor:
        found[name] = tuple(x.shape)
        return x

    with watched(visit):
        model(x)
    return found


def freeze(model: Model) -> Model:
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def test_switched_off_it_is_the_float_network(model: Model, images: np.ndarray):
    float_network = copy.deepcopy(model)
    trained = qat.prepare(model, images)
    assert trained.rounding is not None
    assert not torch.equal(trained(X), float_network(X))
    trained.rounding.on = False
    assert torch.equal(trained(X), float_network(X))
    for module, other in zip(trained.modules(), float_network.modules(), strict=False):
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-3, 0.01)
        if isinstance(module, nn.Dropout):
            assert module.p == 0.2
        assert isinstance(other, type(module)) or isinstance(module, Rounding)
    trained.train()
    float_network.train()
    outputs = []
    for network in (trained, float_network):  # with dropout and the statistics of the batch
        torch.manual_seed(1)
        outputs.append(network(X))
    assert torch.equal(*outputs)


def test_the_same_is_rounded_in_training_frozen_evaluated_and_folded(model: Model):
    wanted = activations(fold(model))
    kinds = {name.rstrip("0123456789") for name in wanted}
    assert kinds == {"conv", "linear", "hard_swish", "pool", "mul", "add"}
    assert activations(model) == wanted
    assert activations(freeze(model)) == wanted
    assert activations(model.train()) == wanted


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0"])
def test_networks_of_the_zoo_are_rounded_alike_in_train_and_eval(name: str):
    model = build(model_spec(name))
    x = torch.randn(2, 3, 32, 32)
    assert len(activations(model, x)) > 50
    assert activations(model, x) == activations(fold(model.eval()), x)


def test_rounding_is_the_runtimes():
    x = torch.linspace(-3, 3, 1001, requires_grad=True)
    step, zero = 4 / 255, round(1 / (4 / 255))
    expected = torch.fake_quantize_per_tensor_affine(x, step, zero, 0, 255)
    y = rounded(x, -1.0, 3.0)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)
    y.sum().backward()
    assert x.grad is not None
    inside = (x > -1) & (x < 2.99)
    assert torch.equal(x.grad[inside], torch.ones(int(inside.sum())))
    assert not x.grad[x < -1.1].any()


def test_weights_are_whole_steps_of_each_channel():
    weight = torch.randn(4, 3, 3, 3) * torch.tensor([0.01, 1, 10, 100]).reshape(4, 1, 1, 1)
    result = whole_steps(weight)
    for own, other in zip(weight, result, strict=True):
        step = float(own.abs().max()) / 127
        assert float((other / step - (other / step).round()).abs().max()) < 1e-3
        assert float((own - other).abs().max()) <= step / 2 * 1.001
    scale = torch.tensor([0.5, 2, 3, -1]).reshape(4, 1, 1, 1)  # as a BatchNorm behind it: the same when folded first
    torch.testing.assert_close(whole_steps(weight * scale), whole_steps(weight) * scale)


def test_gradients_reach_every_weight(model: Model, images: np.ndarray):
    trained = freeze(qat.prepare(model, images))
    trained(X).square().sum().backward()
    without = [name for name, p in trained.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_saved_and_read_again_it_gives_the_same(model: Model, images: np.ndarray, tmp_path: Path):
    trained = qat.prepare(model, images)
    path = save_model(trained, tmp_path / "trained.safetensors")
    again = load_model(None, path)[0].eval()
    assert again.rounding is not None and trained.rounding is not None
    assert again.rounding.ranges == trained.rounding.ranges
    assert torch.equal(again(X), model(X))  # float, until it is switched on
    again.rounding.on = True
    assert torch.equal(again(X), trained(X))
    started = load_model(model.spec, path)[0]  # where another training starts
    assert started.rounding is None


def test_mobileone_is_folded_first(images: np.ndarray):
    rows = (MobileOneBlock(8, stride=2, branches=2), MobileOneBlock(8, branches=2))
    spec = ModelSpec(BackboneSpec("one", rows), ClassifierHead(3), Preprocessing(size=32, resize=36))
    torch.manual_seed(0)
    model = build(spec)
    model(torch.randn(8, 3, 32, 32))
    trained = qat.prepare(model.eval(), images)
    assert trained.spec.backbone.folded
    assert trained.rounding is not None
    trained.rounding.on = False
    torch.testing.assert_close(trained(X), model(X), rtol=1e-4, atol=1e-5)
    assert activations(trained).keys() == {"conv0", "conv1", "conv2", "conv3", "pool0"} - {"image"}


def test_faster_rcnn_is_refused(images: np.ndarray):
    from pocketvision.spec.faster_rcnn import with_faster_rcnn

    spec = with_faster_rcnn(model_spec("mobilenet_v3_large"), ("ant", "bee"))
    for refuses in (qat.prepare, sensitivity):
        with pytest.raises(ConfigurationError, match="SSDLite"):
            refuses(build(spec).eval(), images)


def test_a_resumed_run_ends_as_one_that_was_never_stopped(model: Model, images: np.ndarray, tmp_path: Path):
    digits = open_dataset("sample:digits")
    few = tuple(item for item in digits.train if item.label < 3)[:48]
    data = replace(digits, train=few, val=few[:12], classes=model.spec.labels)
    how = replace(qat.recipe(48, 3), epochs=2, batch=16, device="cpu", save_every_s=0)
    trained = qat.prepare(model, images)
    runs = tmp_path / "whole", tmp_path / "stopped"
    for run in runs:
        run.mkdir()
    whole, stopped = (fit(copy.deepcopy(trained), Classification(), data, how, run) for run in runs)
    assert [*whole][-1].reason == "finished"  # type: ignore[attr-defined]
    saves = 0
    while saves < 2:
        saves += isinstance(next(stopped), Saved)
    del stopped  # which lets go of the run
    assert [*resume(runs[1])][-1].reason == "finished"  # type: ignore[attr-defined]
    ends = [read_state(run)[0].tensors for run in runs]
    assert ends[0].keys() == ends[1].keys() and "ema.rounding.conv0" in ends[0]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_onnx_takes_the_ranges_that_were_trained(model: Model, images: np.ndarray, tmp_path: Path):
    trained = qat.prepare(model, images)
    assert trained.rounding is not None
    names = ("hard_swish0", "conv6", "pool2")  # one is padded before it is read, one has lost its height and width
    odd = {name: (0.0, (0.12345 + number) * 255) for number, name in enumerate(names)}
    trained.rounding = Rounding(trained.rounding.ranges | odd)
    for kind, network in {"trained": trained, "float": model}.items():
        file = export(network, precision="int8", calibration=images, out=tmp_path / f"{kind}.onnx").path
        constants = [tensor.name for tensor in onnx.load(file).graph.initializer]
        steps = [float(name.removeprefix("step_")) for name in constants if name.startswith("step_")]
        for number in range(len(names)):
            assert any(abs(step - 0.12345 - number) < 1e-6 for step in steps) == (kind == "trained")


def test_litert_takes_the_ranges_that_were_trained(model: Model, images: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("litert_torch")
    from pocketvision.exporting import litert, litert_int8

    trained, taken = qat.prepare(model, images), dict[str, tuple[float, float]]()
    assert trained.rounding is not None
    write = litert_int8._quantized

    def look(content: bytes, tensors: Any, ranges: Any, *kept: Any, correct_bias: bool = True) -> bytes:
        assert not kept and not correct_bias
        taken.update({tensors[name].maker: ends for name, ends in ranges.items()})
        return write(content, tensors, ranges, correct_bias=correct_bias)

    monkeypatch.setattr(litert_int8, "_quantized", look)
    litert.convert(trained, "scores", "int8", images)
    ranges = trained.rounding.ranges
    assert {name: taken[name] for name in ranges} == ranges
