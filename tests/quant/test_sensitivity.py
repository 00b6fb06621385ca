"""Which layers lose what int8 loses, and the remedy that moves weights between layers."""

import numpy as np
import pytest
import torch
from torch import nn

from pocketvision.nn.model import Model, build
from pocketvision.quant.equalize import equalized
from pocketvision.quant.sensitivity import sensitivity
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import Conv, InvertedResidual, MobileOneBlock, Row

X = torch.linspace(-2, 2, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32).cos()


def network(*rows: Row) -> Model:
    torch.manual_seed(0)
    model = build(ModelSpec(BackboneSpec("small", rows), ClassifierHead(3), Preprocessing(size=32, resize=36)))
    nn.init.normal_(model.classifier.linear.weight)
    for _ in range(3):
        model(torch.randn(8, 3, 32, 32))
    return model.eval()


def test_names_the_depthwise_convolution_whose_channels_differ(images: np.ndarray):
    model = network(Conv(8, stride=2, act="relu"), InvertedResidual(16, stride=2, expand=32, act="relu"))
    depthwise = model.backbone.rows[1].depthwise.bn
    project = model.backbone.rows[1].project.conv
    with torch.no_grad():  # the same function, one channel a hundred times as large as the others
        depthwise.weight[3] *= 100
        depthwise.bias[3] *= 100
        project.weight[:, 3] /= 100
    worst, *others = sensitivity(model, images)
    assert (worst.layer, worst.part) == ("backbone.rows.1.depthwise.conv", "activations")
    assert "depthwise convolution's channels differ" in worst.cause and worst.spread > 30
    assert worst.error > 5 * max(other.error for other in others)


def test_names_hard_swish_gates_and_the_ends(model: Model, images: np.ndarray):
    found = sensitivity(model, images, least=0)
    assert [each.error for each in found] == sorted((each.error for each in found), reverse=True)
    causes = {(each.layer, each.part): each.cause for each in found}
    assert "hard-swish" in causes["backbone.rows.0.conv", "activations, after hard-swish"]
    assert any("squeeze-and-excitation" in cause for (_, part), cause in causes.items() if part.endswith("gated"))
    assert "first layer" in causes["backbone.rows.0.conv", "weights"]
    assert "last layer" in causes["head.linear", "weights"]
    assert str(found[0]).startswith(found[0].layer) and found[0].to_dict()["cause"] == found[0].cause


@pytest.mark.parametrize(
    "rows",
    [
        (Conv(8, stride=2), InvertedResidual(16, stride=2, expand=32, act="relu")),
        (MobileOneBlock(8, stride=2, branches=2), MobileOneBlock(16, branches=2)),
    ],
    ids=["inverted residual", "MobileOne"],
)
def test_equalisation_keeps_the_function_and_evens_the_weights(rows: tuple[Row, ...]):
    model = network(*rows)
    even = equalized(model)
    assert even is not None
    with torch.no_grad():
        torch.testing.assert_close(even(X), model(X), rtol=1e-4, atol=1e-5)
    last = even.backbone.rows[1]
    first, second = (
        (last.depthwise.conv, last.project.conv) if hasattr(last, "project") else (u.branches[0].conv for u in last)
    )
    of_first, of_second = first.weight.abs().amax((1, 2, 3)), second.weight.abs().amax((0, 2, 3))
    torch.testing.assert_close(of_first, of_second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("act", ["relu6", "hard_swish"])
def test_equalisation_is_not_for_activations_with_a_fixed_place(act):
    assert equalized(network(Conv(8, stride=2, act=act), InvertedResidual(16, stride=2, expand=32, act=act))) is None
