"""Names in other projects' files; that the weights compute the same there is in tests/nn/test_reference.py."""

import pytest
import torch

from pocketvision.errors import ConfigurationError, WeightsError
from pocketvision.nn.model import Model, build
from pocketvision.spec.model import ModelSpec
from pocketvision.spec.transform import as_folded, with_branches, with_hidden
from pocketvision.zoo import MODELS, model_spec
from pocketvision.zoo.keymaps import from_ours, is_folded, layer_names, layout_of, to_ours


def layers(spec: ModelSpec) -> set[str]:
    """Every layer of the built network that has weights."""
    with torch.device("meta"):
        return {name.rpartition(".")[0] for name in Model(spec).state_dict()}


@pytest.mark.parametrize("name", MODELS)
def test_maps_are_complete_and_one_to_one(name: str):
    spec, tried = model_spec(name), 0
    for variant in (spec, as_folded(spec), model_spec(name, width=0.35)):
        for layout in ("torchvision", "timm", "apple", "efficientnet_pytorch"):
            try:
                names = layer_names(variant, layout)
            except WeightsError:
                continue
            tried += 1
            assert names.keys() == layers(variant)
            assert len(set(names.values())) == len(names)
    assert tried >= 2


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("backbone.rows.0.branches.0.conv", "stage0.rbr_conv.0.conv"),
        ("backbone.rows.0.scale.bn", "stage0.rbr_scale.bn"),
        ("backbone.rows.1.0.branches.3.bn", "stage1.0.rbr_conv.3.bn"),
        ("backbone.rows.2.0.skip", "stage1.2.rbr_skip"),
        ("backbone.rows.2.1.skip", "stage1.3.rbr_skip"),
        ("backbone.rows.16.0.branches.0.conv", "stage3.10.rbr_conv.0.conv"),  # stages 4 and 5 of the paper are one
        ("backbone.rows.21.1.branches.0.conv", "stage4.1.rbr_conv.0.conv"),
        ("head.linear", "linear"),
    ],
)
def test_apples_names(ours: str, theirs: str):
    assert layer_names(model_spec("mobileone_s0"), "apple")[ours] == theirs


def test_apples_squeeze_and_excitation():
    names = layer_names(model_spec("mobileone_s4"), "apple")
    assert names["backbone.rows.16.0.se.reduce"] == "stage3.10.se.reduce"
    assert names["backbone.rows.21.1.se.expand"] == "stage4.1.se.expand"


def test_apples_train_form_both_ways():
    spec = with_branches(model_spec("mobileone_s0", width=0.25), 2)
    state = build(spec).state_dict()
    theirs = from_ours(state, spec, "apple")
    assert layout_of(theirs) == "apple"
    assert not is_folded(theirs)
    ours = to_ours(theirs, spec, "apple")
    assert ours.keys() == state.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in state.items())


def test_stages_that_a_width_makes_equal_stay_apart():
    """At width 0.35 the 40 and the 48 channels of MobileNetV3-Small are both 16."""
    narrow = model_spec("mobilenet_v3_small", width=0.35)
    assert narrow.backbone.rows[6].out == narrow.backbone.rows[7].out
    assert layer_names(narrow, "timm") == layer_names(model_spec("mobilenet_v3_small"), "timm")


def test_hidden_layer_is_a_convolution_in_timm():
    spec = model_spec("mobilenet_v3_small", classes=5)
    state = {"head.hidden.weight": torch.ones(1024, 576), "head.hidden.bias": torch.ones(1024)}
    theirs = from_ours(state, spec, "timm")
    assert theirs["conv_head.weight"].shape == (1024, 576, 1, 1)
    assert theirs["conv_head.bias"].shape == (1024,)


def test_what_other_projects_do_not_have():
    v2, v3 = model_spec("mobilenet_v2"), model_spec("mobilenet_v3_small")
    with pytest.raises(WeightsError, match=r"no folded mobilenet_v2; .*unfold"):
        layer_names(as_folded(v2), "torchvision")
    with pytest.raises(WeightsError, match="torchvision has no network like 'mobilenet_v1'"):
        layer_names(model_spec("mobilenet_v1"), "torchvision")
    with pytest.raises(WeightsError, match="apple has no network like 'mobilenet_v2'"):
        layer_names(v2, "apple")
    with pytest.raises(WeightsError, match="no mobilenet_v3_small with no hidden layer"):
        from_ours(build(with_hidden(v3, 0)).state_dict(), with_hidden(v3, 0), "torchvision")
    with pytest.raises(ConfigurationError, match="valid: torchvision, timm, apple"):
        layer_names(v2, "pocketvision")


def test_an_unknown_state_dict():
    with pytest.raises(WeightsError, match=r"conv1\.weight, bn1\.weight"):
        layout_of({"conv1.weight": torch.ones(1), "bn1.weight": torch.ones(1)})


def test_a_state_dict_of_another_network_names_the_first_keys():
    state = from_ours(build(model_spec("mobilenet_v2")).state_dict(), model_spec("mobilenet_v2"), "torchvision")
    with pytest.raises(WeightsError, match=r"not those of mobilenet_v3_small.*missing layers: .*unknown tensors: "):
        to_ours(state, model_spec("mobilenet_v3_small"), "torchvision")
    del state["classifier.1.weight"], state["classifier.1.bias"]
    with pytest.raises(WeightsError, match=r"missing layers: classifier\.1; unknown tensors: none"):
        to_ours(state, model_spec("mobilenet_v2"), "torchvision")
