"""The built module has the parameters and multiply-adds that the rows promise; counted on the meta device."""

import csv
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pocketvision.nn.model import Model
from pocketvision.spec.cost import cost
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec, from_json, to_json
from pocketvision.spec.rows import (
    Conv,
    DepthwiseSeparable,
    InvertedResidual,
    MobileOneBlock,
    MobileOneConv,
    SqueezeExcite,
)
from pocketvision.spec.transform import as_folded, dilated, reduced_tail
from pocketvision.zoo import MODELS, model_spec

FROM_TIMM = {
    "timm semnasnet_100": "mnasnet_a1",
    "timm mnasnet_100": "mnasnet_b1",
    "timm mnasnet_small": "mnasnet_small",
    "timm mobilenetv1_100": "mobilenet_v1",
}


def counts(spec: ModelSpec, size: tuple[int, int]) -> tuple[int, float]:
    """Parameters and multiply-adds (convolutions and linear layers) of the built module."""
    with torch.device("meta"), torch.inference_mode():
        model = Model(spec).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, *size))
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 2


def assert_rows_tell_the_truth(spec: ModelSpec, size: tuple[int, int] = (224, 224)):
    total = cost(spec, size)
    assert (total.params, total.madds) == counts(spec, size)


@pytest.mark.parametrize("name", MODELS)
def test_every_network_of_the_zoo(name: str):
    assert_rows_tell_the_truth(model_spec(name))
    assert_rows_tell_the_truth(as_folded(model_spec(name)), (97, 160))


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_variants(name: str):
    spec = model_spec(name)
    for variant in (reduced_tail(spec), reduced_tail(spec, "paper"), dilated(spec), dilated(spec, 8)):
        assert_rows_tell_the_truth(variant)


def expected_counts(shared: Path) -> list[tuple[ModelSpec, int, float]]:
    """Every row of the shared table as (network, parameters, M multiply-adds); ResNets are none of ours."""
    cases = list[tuple[ModelSpec, int, float]]()
    for line in csv.DictReader((shared / "spec" / "expected_counts.csv").read_text().splitlines()):
        if line["model"].startswith("resnet"):
            continue
        variant, width = line["variant"], re.match(r"w([\d.]+)", line["variant"])
        hidden = re.search(r"hidden(\d+)", variant)
        spec = model_spec(
            FROM_TIMM.get(line["model"], line["model"]),
            width=float(width[1]) if width else 1.0,
            width_rule="paper" if "rule=paper" in variant or "official" in variant else "torchvision",
            hidden=int(hidden[1]) if hidden else None,
            imgsz=int(line["res"]),
        )
        case = as_folded(spec, variant == "fused"), int(line["params"]), float(line["madds_M(conv+fc)"])
        cases.append(case)
    assert len(cases) > 60
    return cases


def test_every_row_of_the_shared_table(shared: Path):
    for spec, params, madds in expected_counts(shared):
        side = spec.preprocessing.size
        from_rows, from_module = cost(spec), counts(spec, (side, side))
        assert from_module == (from_rows.params, from_rows.madds)
        assert from_rows.params == params, spec
        assert from_rows.madds / 1e6 == pytest.approx(madds, abs=0.01), spec


SE = st.builds(
    SqueezeExcite,
    of=st.sampled_from(["expansion", "input"]),
    reduction=st.integers(1, 8),
    divisor=st.sampled_from([1, 8]),
    gate=st.sampled_from(["sigmoid", "hard_sigmoid"]),
)
COMMON = {
    "out": st.integers(1, 24),
    "kernel": st.sampled_from([1, 3, 5]),
    "stride": st.sampled_from([1, 1, 2]),
    "act": st.sampled_from(["none", "relu", "relu6", "hard_swish", "swish"]),
    "dilation": st.sampled_from([1, 1, 2]),
}
ROWS = st.one_of(
    st.builds(Conv, **COMMON),
    st.builds(DepthwiseSeparable, **COMMON),
    st.builds(
        InvertedResidual,
        **COMMON,
        expand=st.integers(1, 48),
        se=st.none() | SE,
        linear=st.booleans(),
        shortcut=st.sampled_from(["bottleneck", "expansion", "none"]),
    ),
    st.builds(MobileOneConv, **COMMON, branches=st.integers(1, 4), se=st.none() | SE),
    st.builds(MobileOneBlock, **COMMON, branches=st.integers(1, 4), se=st.none() | SE),
)
SPECS = st.builds(
    lambda rows, folded, classes, hidden: ModelSpec(
        BackboneSpec("random", tuple(rows), folded=folded), ClassifierHead(classes, hidden)
    ),
    st.lists(ROWS, min_size=1, max_size=5),
    st.booleans(),
    st.integers(1, 20),
    st.integers(0, 20),
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(spec=SPECS, height=st.integers(1, 40), width=st.integers(1, 40))
def test_random_tables(spec: ModelSpec, height: int, width: int):
    assert_rows_tell_the_truth(spec, (height, width))
    assert from_json(to_json(spec)) == spec
