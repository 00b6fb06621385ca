"""Networks by name and from files; neither they nor their weights' catalogue need torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pocketvision.errors import ConfigurationError
from pocketvision.spec.model import from_json, to_data, to_json
from pocketvision.zoo import MODELS, model_spec


@pytest.mark.parametrize(
    "module", ["pocketvision.spec.cost", "pocketvision.spec.transform", "pocketvision.zoo", "pocketvision.zoo.weights"]
)
def test_no_framework_is_imported(module: str):
    program = f"import sys, {module}; sys.exit(bool({{'torch', 'torchvision', 'timm', 'numpy'}} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", MODELS)
def test_the_name_is_the_backbones(name: str):
    assert model_spec(name).backbone.name == name


def test_options():
    spec = model_spec("mobilenet_v3_small", width=0.5, classes=7, imgsz=160, hidden=512)
    assert spec.head.classes == 7
    assert spec.head.hidden == 512
    assert (spec.preprocessing.size, spec.preprocessing.resize) == (160, 183)
    assert spec.backbone.rows[0].out == 8


def test_the_papers_rule_brings_the_papers_hidden_layer():
    assert model_spec("mobilenet_v3_small", width=0.5, width_rule="paper").head.hidden == 1280
    assert model_spec("mobilenet_v3_small", width=0.5, width_rule="paper", hidden=1024).head.hidden == 1024
    assert model_spec("mobilenet_v2", width=0.5, width_rule="paper").head.hidden == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenet_v3_smal", {}, "did you mean 'mobilenet_v3_small'"),
        ("mobilenetv2", {}, "did you mean 'mobilenet_v2'"),
        ("mobilenet_v2", {"width": 9}, "nearest valid: 4"),
        ("mobilenet_v2", {"width_rule": "torch"}, "did you mean 'torchvision'"),
        ("mobilenet_v2", {"classes": 0}, "classes=0"),
        ("mobilenet_v2", {"imgsz": 1}, "nearest valid: 16"),
        ("mobilenet_v3_small", {"hidden": -3}, "hidden=-3"),
    ],
)
def test_errors_name_the_nearest_valid(name: str, options: dict, message: str):
    with pytest.raises(ConfigurationError, match=message):
        model_spec(name, **options)


def test_a_misspelt_option_is_an_error_and_no_other_network():
    with pytest.raises(TypeError, match="widht"):
        model_spec("mobilenet_v2", widht=0.5)  # pyright: ignore[reportCallIssue]


def test_rows_from_a_file(tmp_path: Path):
    """What a hand would write: only what differs from the defaults."""
    rows = [
        {"kind": "Conv", "out": 16, "stride": 2, "act": "hard_swish"},
        {"kind": "InvertedResidual", "out": 24, "expand": 64, "kernel": 5, "se": {"kind": "SqueezeExcite"}},
        {"kind": "MobileOneBlock", "out": 32, "stride": 2, "branches": 2},
    ]
    data = {
        "kind": "ModelSpec",
        "backbone": {"kind": "BackboneSpec", "name": "mine", "rows": rows},
        "head": {"kind": "ClassifierHead", "classes": 10},
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data))
    spec = model_spec(str(path), classes=3)
    assert (spec.backbone.name, spec.head.classes) == ("mine", 3)
    assert from_json(to_json(spec)) == spec
    assert [row.out for row in model_spec(str(path), width=2.0).backbone.rows] == [32, 48, 64]


def test_mistakes_in_a_file_name_it(tmp_path: Path):
    path = tmp_path / "mine.json"
    with pytest.raises(ConfigurationError, match=r"mine\.json: No such file"):
        model_spec(str(path))
    data = to_data(model_spec("mobilenet_v2"))
    data["backbone"]["rows"][2]["kernl"] = 3
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigurationError, match=r"mine\.json: InvertedResidual has no field 'kernl'.*'kernel'"):
        model_spec(str(path))
    path.write_text(to_json(model_spec("mobilenet_v2").backbone))
    with pytest.raises(ConfigurationError, match="describes a BackboneSpec"):
        model_spec(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"mine\.json is no text"):
        model_spec(str(path))
