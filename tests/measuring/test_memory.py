"""The memory that activations need: the paper's figures, the best order, bottlenecks in parts."""

import itertools
import random

import pytest
import torch

from pocketvision import model_spec
from pocketvision.errors import ConfigurationError
from pocketvision.exporting.onnx import export
from pocketvision.measuring.memory import Operator, best_order, in_order, operators, table_operators
from pocketvision.measuring.runtimes import open_file
from pocketvision.nn.fold import fold
from pocketvision.nn.model import build, stand_in
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing, from_json, to_json
from pocketvision.spec.rows import Conv, InvertedResidual, SqueezeExcite
from pocketvision.spec.transform import with_parts


def small(**changes) -> ModelSpec:
    rows = (
        Conv(8, stride=2, act="relu6"),
        InvertedResidual(8, expand=8, act="relu6"),  # without an expansion
        InvertedResidual(8, expand=30, act="relu6"),  # with a shortcut
        InvertedResidual(12, kernel=5, stride=2, expand=21, act="hard_swish", linear=False),
        InvertedResidual(12, expand=20, se=SqueezeExcite()),
    )
    backbone = BackboneSpec("small", rows, **changes)
    return ModelSpec(backbone, ClassifierHead(5), preprocessing=Preprocessing(size=33, resize=33))


def test_layers_one_after_another_need_what_the_paper_says():
    plan = in_order(operators(stand_in(model_spec("mobilenet_v2"))))
    assert plan.kilobytes(16) == pytest.approx(3010.6, abs=0.05)  # FACTS M4: the second block's depthwise convolution


def test_bottlenecks_as_one_operator_need_what_the_paper_says():
    steps = table_operators(model_spec("mobilenet_v2"))
    pairs = {after.name: (before.elements + after.elements) * 2 / 1000 for before, after in itertools.pairwise(steps)}
    assert [round(pairs[f"row {row}"]) for row in (2, 3, 4)] == [552, 301, 201]  # FACTS M4
    assert best_order(steps).kilobytes(16) == pytest.approx(1204.2, abs=0.05)


def test_more_parts_need_less_memory():
    peaks = [best_order(table_operators(model_spec("mobilenet_v2"), parts)).peak for parts in (1, 2, 3, 5, 1000)]
    assert peaks == sorted(peaks, reverse=True) and peaks[0] > 2.8 * peaks[-1]
    assert peaks[-1] > best_order(table_operators(model_spec("mobilenet_v2"))).peak


def random_graph(seed: int) -> list[Operator]:
    rng = random.Random(seed)
    steps = [Operator("0", (), rng.randint(1, 9))]
    for index in range(1, 8):
        inputs = tuple(str(each) for each in rng.sample(range(index), min(index, rng.randint(1, 2))))
        steps.append(Operator(str(index), inputs, rng.randint(1, 9), rng.random() < 0.5, rng.randint(0, 2)))
    return steps


@pytest.mark.parametrize("seed", range(12))
def test_no_order_needs_less_than_the_best(seed: int):
    steps = random_graph(seed)
    possible = []
    for order in itertools.permutations(steps[1:]):
        done = {"0"}
        if all(set(step.inputs) <= done and not done.add(step.name) for step in order):
            possible.append(in_order([steps[0], *order]).peak)
    plan = best_order(steps)
    assert plan.exact and plan.peak == min(possible)


def test_branches_are_worth_an_order():
    steps = [
        Operator("image", (), 10),
        Operator("wide", ("image",), 50),
        Operator("other", ("image",), 40),
        Operator("small", ("wide",), 1),
        Operator("tiny", ("other",), 1),
        Operator("sum", ("small", "tiny"), 1),
    ]
    assert in_order(steps).peak == 100  # the image and both wide tensors
    assert best_order(steps).peak == 61  # one branch to its end, then the other


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@torch.no_grad()
def test_a_network_in_parts_is_the_same_function(parts: int, padding):
    torch.manual_seed(0)
    model = build(small(padding=padding))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    model.eval()
    x = torch.randn(2, 3, 33, 33)
    whole = fold(model)(x)
    model.spec = with_parts(model.spec, parts)
    assert model.spec.backbone.rows[4].parts == 1  # squeeze-and-excitation needs all channels at once
    torch.testing.assert_close(fold(model)(x), whole, atol=1e-5, rtol=0)


def test_a_file_in_parts_says_the_same(tmp_path):
    model = stand_in(small())
    images = torch.randint(0, 256, (2, 33, 33, 3), dtype=torch.uint8).numpy()
    whole = open_file(export(model, out=tmp_path / "whole.onnx"))(images)[0]
    model.spec = with_parts(model.spec, 3)
    artifact = export(model, out=tmp_path / "parts.onnx")
    assert artifact.spec.backbone.rows[2].parts == 3
    assert abs(open_file(artifact)(images)[0] - whole).max() < 1e-5


def test_parts_are_part_of_the_description():
    spec = with_parts(model_spec("mobilenet_v2"), 4)
    assert from_json(to_json(spec)) == spec
    with pytest.raises(ConfigurationError, match="squeeze"):
        InvertedResidual(8, expand=16, se=SqueezeExcite(), parts=2)
    with pytest.raises(ConfigurationError, match="no bottleneck that can be split"):
        with_parts(model_spec("mobileone_s0"), 2)


@pytest.mark.parametrize("task", ["detector", "segmenter"])
def test_networks_of_other_tasks(task: str, request: pytest.FixtureRequest):
    network = request.getfixturevalue(task)
    with pytest.raises(ConfigurationError, match="classifiers"):
        table_operators(network.spec)
    steps = operators(network)
    plan = best_order(steps)
    assert plan.exact and 96 * 96 * 3 < plan.peak <= in_order(steps).peak
