"""A spec and its JSON say the same."""

import json
import math

import pytest

from pocketvision.errors import ConfigurationError
from pocketvision.spec.model import BackboneSpec, ModelSpec, from_data, from_json, to_data, to_json
from pocketvision.spec.transform import as_folded, dilated, with_classes, with_padding, with_size
from pocketvision.zoo import MODELS, model_spec


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name: str):
    spec = model_spec(name, width=0.75, classes=3, imgsz=160)
    assert from_json(to_json(spec)) == spec


def test_round_trip_of_variants():
    spec = with_padding(dilated(as_folded(model_spec("mobilenet_v3_small"))), "same")
    spec = with_size(with_classes(spec, ("cat", 'dog "Rex"', "Füchse")), 96)
    again = from_json(to_json(spec))
    assert again == spec
    assert hash(again) == hash(spec)
    assert isinstance(again.backbone.rows, tuple)


def test_equal_specs_have_equal_json():
    assert to_json(model_spec("mobilenet_v2")) == to_json(model_spec("mobilenet_v2", width=1.0))
    assert to_json(model_spec("mobilenet_v2")) != to_json(model_spec("mobilenet_v2", width=0.5))


def test_numbers_may_be_left_out_where_they_have_defaults():
    data = to_data(model_spec("mobilenet_v3_small"))
    row = data["backbone"]["rows"][1]
    del row["dilation"], data["labels"]
    assert from_data(data) == model_spec("mobilenet_v3_small")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["backbone"]["rows"][1].update(strid=2), "InvertedResidual has no field 'strid'.*'stride'"),
        (lambda data: data["backbone"]["rows"][1].update(kind="InvertedResidua"), "did you mean 'InvertedResidual'"),
        (lambda data: data["backbone"]["rows"][1].pop("kind"), "unknown kind None"),
        (lambda data: data["backbone"]["rows"][1].pop("expand"), "InvertedResidual.*expand"),
        (lambda data: data["backbone"]["rows"][1].update(act="rleu"), "did you mean 'relu'"),
        (lambda data: data["backbone"]["rows"][1]["se"].update(gate="sigmod"), "did you mean 'sigmoid'"),
        (lambda data: data["head"].update(classes="ten"), "classes='ten'"),
    ],
)
def test_mistakes_in_a_description(change, message: str):
    data = json.loads(to_json(model_spec("mobilenet_v3_small")))
    change(data)
    with pytest.raises(ConfigurationError, match=message):
        from_data(data)


SE = {"kind": "SqueezeExcite"}


@pytest.mark.parametrize(
    ("part", "field", "value", "expected"),
    [
        ("", "backbone", {"kind": "Conv", "out": 8}, "a BackboneSpec"),
        ("", "backbone", "mobilenet_v2", "a BackboneSpec"),
        ("", "head", [], "a ClassifierHead"),
        ("", "preprocessing", None, "a Preprocessing"),
        ("", "labels", "abc", "a list of texts"),
        ("", "labels", [1, 2], "a list of texts"),
        ("", "labels", 0, "a list of texts"),
        ("backbone", "name", 5, "a text"),
        ("backbone", "rows", 5, "a list of rows"),
        ("backbone", "rows", {"kind": "Conv", "out": 8}, "a list of rows"),
        ("backbone", "rows", [SE], "a list of rows"),
        ("backbone", "bn_eps", "tiny", "a number above 0"),
        ("backbone", "bn_eps", 0, "a number above 0"),
        ("backbone", "bn_eps", math.nan, "a number above 0"),
        ("backbone", "bn_momentum", 1.5, "a number from 0 to 1"),
        ("backbone", "bn_momentum", True, "a number from 0 to 1"),
        ("backbone", "folded", "no", "true or false"),
        ("head", "hidden", "many", "a whole number of 0"),
        ("head", "hidden", 12.5, "a whole number of 0"),
        ("head", "hidden", True, "a whole number of 0"),
        ("head", "dropout", "some", "a number of at least 0"),
        ("head", "dropout", False, "a number of at least 0"),
        ("preprocessing", "mean", 0.5, "three finite numbers"),
        ("preprocessing", "mean", ["a", "b", "c"], "three finite numbers"),
        ("preprocessing", "mean", [0, 0, math.nan], "three finite numbers"),
        ("preprocessing", "std", [1, 1, math.inf], "three finite numbers"),
        ("preprocessing", "std", [1, 1], "three finite numbers"),
        ("row", "se", 4, "a SqueezeExcite or none"),
        ("row", "se", {"kind": "Conv", "out": 8}, "a SqueezeExcite or none"),
        ("row", "se", SE | {"divisor": True}, "a whole number"),
        ("row", "linear", 1, "true or false"),
        ("row", "kind", ["Conv"], "unknown kind"),
    ],
)
def test_values_of_a_wrong_type(part: str, field: str, value: object, expected: str):
    data = json.loads(to_json(model_spec("mobilenet_v3_small")))
    (data["backbone"]["rows"][1] if part == "row" else data[part] if part else data)[field] = value
    with pytest.raises(ConfigurationError) as error:
        from_json(json.dumps(data))
    assert expected in str(error.value) and ("divisor" if "divisor" in str(value) else field) in str(error.value)


def test_what_is_not_json():
    with pytest.raises(ConfigurationError, match="not JSON"):
        from_json("{")


def test_inputs_are_the_outputs_before():
    backbone = model_spec("mobilenet_v2").backbone
    assert backbone.inputs()[:3] == (3, 32, 16)
    assert len(backbone.inputs()) == len(backbone.rows)
    assert backbone.out_channels == 1280


def test_specs_are_frozen():
    spec = model_spec("mobilenet_v2")
    with pytest.raises(AttributeError):
        spec.backbone.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(spec, ModelSpec) and isinstance(spec.backbone, BackboneSpec)
