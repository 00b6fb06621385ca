"""Heads for segmentation: every backbone, counts against the built modules, training."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pocketvision.errors import ConfigurationError
from pocketvision.nn.heads.lraspp import LRASPP
from pocketvision.nn.model import Model, build
from pocketvision.spec.cost import cost
from pocketvision.spec.heads import DeepLabV3Head, FCNHead, LRASPPHead, SegmentationHead, Tap
from pocketvision.spec.model import ModelSpec, from_json, to_json
from pocketvision.spec.segmentation import CITYSCAPES_POOL, with_deeplabv3, with_fcn, with_lraspp, with_raspp
from pocketvision.spec.transform import as_folded, dilated, with_backbone
from pocketvision.zoo import MODELS, model_spec

MAKERS: dict[str, Callable[..., ModelSpec]] = {
    "lraspp": with_lraspp,
    "raspp": with_raspp,
    "deeplabv3": with_deeplabv3,
    "fcn": with_fcn,
}
every_head = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def counts(spec: ModelSpec, size: tuple[int, int]) -> tuple[int, float, Tensor]:
    """Parameters and multiply-adds of the built module, and its logits, which have a shape only."""
    with torch.device("meta"), torch.inference_mode():
        model = Model(spec).eval()
        with FlopCounterMode(display=False) as counter:
            outputs = model(torch.empty(1, 3, *size))
    assert outputs.aux is None
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 2, outputs.logits


@pytest.mark.parametrize("name", MODELS)
@every_head
def test_every_backbone_carries_every_head(name: str, make: Callable[..., ModelSpec]):
    stride = (8, 16, 32)[list(MODELS).index(name) % 3]  # each head meets each of them
    spec = make(model_spec(name), ("a", "b", "c"), size=96, output_stride=stride)
    assert from_json(to_json(spec)) == spec == from_json(json.dumps(json.loads(to_json(spec))))
    assert (spec.preprocessing.fit, spec.preprocessing.size, spec.preprocessing.resize) == ("stretch", 96, 96)
    if name.startswith("mobileone_s"):
        spec = as_folded(spec)  # its branches take their time
    params, madds, logits = counts(spec, (97, 65))
    assert logits.shape == (1, 3, 97, 65)
    found = cost(spec, (97, 65))
    assert (found.params, found.madds) == (params, madds)
    assert found.rows[-1].out_shape == (3, 97, 65)


@every_head
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_strides(make: Callable[..., ModelSpec], stride: int):
    spec = make(model_spec("mobilenet_v1", width=0.25), 4, output_stride=stride)
    assert isinstance(spec.head, SegmentationHead)
    model = build(spec).eval()
    with torch.inference_mode():
        features = model.backbone.tapped(torch.randn(1, 3, 128, 96), spec.head.taps)
        assert tuple(features[-1].shape[2:]) == (128 // stride, 96 // stride)
        for height, width in ((128, 96), (97, 65), (33, 1)):
            assert model(torch.randn(2, 3, height, width)).logits.shape == (2, 4, height, width)
    for variant in (spec, as_folded(spec)):
        total = cost(variant, (97, 65))
        assert (total.params, total.madds) == counts(variant, (97, 65))[:2]


def test_the_papers_pooling_takes_any_size():
    spec = with_lraspp(model_spec("mobilenet_v3_small", width=0.35), 19, pool=CITYSCAPES_POOL)
    for size in ((1024, 2048), (97, 65), (800, 90), (16, 16)):
        params, madds, logits = counts(spec, size)
        assert (cost(spec, size).params, cost(spec, size).madds) == (params, madds)
        assert logits.shape == (1, 19, *size)
    model = build(spec).eval()
    assert isinstance(model.head, LRASPP)
    pooled = model.head.pooled(torch.ones(1, 2, 64, 128).cumsum(3))
    assert pooled[0, 0].tolist() == [[25.0, 45.0, 65.0, 85.0]]  # windows of 49 that begin 20 apart


def test_lraspp_is_its_formula():
    """Enlarging features and then telling classes apart, as S1 Figure 10 draws it, gives the same."""
    model = build(with_lraspp(model_spec("mobilenet_v3_small", width=0.35), 5)).eval()
    head, x_BCHW = model.head, torch.randn(1, 3, 80, 112)
    assert isinstance(head, LRASPP)
    with torch.inference_mode():
        low, high = model.backbone.tapped(x_BCHW, head.spec.taps)
        gate = torch.sigmoid(nn.functional.conv2d(high.mean((2, 3), keepdim=True), head.gate.weight))
        enlarged = nn.functional.interpolate(head.project(high) * gate, low.shape[2:], mode="bilinear")
        expected = head.low_classes(low) + head.high_classes(enlarged)
        expected = nn.functional.interpolate(expected, (80, 112), mode="bilinear")
        torch.testing.assert_close(model(x_BCHW).logits, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "low", "high", "channels"),
    [
        ("mobilenet_v1", 4, 13, 1024),
        ("mobilenet_v2", 4, 17, 320),
        ("mobilenet_v3_large", 4, 16, 960),
        ("mobilenet_v3_small", 2, 12, 576),
        ("mnasnet_a1", 4, 16, 320),
        ("mobileone_s0", 3, 21, 1024),
        ("efficientnet_lite0", 4, 16, 320),
    ],
)
def test_taps(name: str, low: int, high: int, channels: int):
    spec = with_lraspp(model_spec(name), 2)
    assert isinstance(spec.head, LRASPPHead)
    assert spec.head.taps == (Tap(low), Tap(high))
    assert (spec.backbone.out_channels, len(spec.backbone.rows)) == (channels, high + 1)
    assert spec.backbone.strides()[low - 1 : low + 1] == (4, 8)


# training


@pytest.mark.parametrize("make", [with_deeplabv3, with_fcn], ids=["deeplabv3", "fcn"])
def test_the_auxiliary_head_works_only_while_training(make: Callable[..., ModelSpec]):
    spec = make(model_spec("mobilenet_v3_small", width=0.35), 3)
    model = build(spec)
    outputs = model(torch.randn(2, 3, 65, 97))
    assert outputs.logits.shape == outputs.aux.shape == (2, 3, 65, 97)
    assert outputs.logits.std() < 1 and outputs.aux.std() < 1  # no class is certain before training
    (outputs.logits.mean() + outputs.aux.mean()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.eval()(torch.randn(1, 3, 65, 97)).aux is None
    assert (
        build(make(model_spec("mobilenet_v3_small", width=0.35), 3, aux=False))(torch.randn(2, 3, 64, 64)).aux is None
    )


@every_head
def test_a_batch_of_one_trains(make: Callable[..., ModelSpec]):
    model = build(make(model_spec("mobilenet_v3_small", width=0.35), 3))
    model(torch.randn(1, 3, 64, 64)).logits.mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


@every_head
def test_every_image_of_a_batch_is_on_its_own(make: Callable[..., ModelSpec]):
    model = build(make(model_spec("mobilenet_v3_small", width=0.35), 3)).eval()
    x_BCHW = torch.randn(3, 3, 49, 65)
    with torch.inference_mode():
        alone = torch.cat([model(image[None]).logits for image in x_BCHW])
        torch.testing.assert_close(model(x_BCHW).logits, alone, rtol=1e-4, atol=1e-6)


# mistakes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LRASPPHead(0, Tap(1), Tap(2)), "classes=0 must be a whole number"),
        (lambda: LRASPPHead(2, Tap(2), Tap(1)), "in the order of the backbone's rows"),
        (lambda: LRASPPHead(2, Tap(1), Tap(2), pool=((49, 49), (16, 0))), "kernel and stride, each"),
        (lambda: LRASPPHead(2, Tap(1), Tap(2), pool=((49.5, 49), (16, 20))), "kernel and stride"),  # type: ignore[arg-type]
        (lambda: LRASPPHead(2, Tap(1), Tap(2), folded=1), "true or false"),  # type: ignore[arg-type]
        (lambda: DeepLabV3Head(2, Tap(1), rates=(6, 0)), r"rates\[1\]=0 must be"),
        (lambda: DeepLabV3Head(2, Tap(1), rates=6), "must be a list of dilations"),  # type: ignore[arg-type]
        (lambda: DeepLabV3Head(2, Tap(1), dropout=1.0), "below 1"),
        (lambda: DeepLabV3Head(2, Tap(1), aux=Tap(3)), "in the order of the backbone's rows"),
        (lambda: FCNHead(2, Tap(1), dropout=-0.1), "below 1"),
        (lambda: with_fcn(model_spec("mobilenet_v2"), 2, output_stride=4), "output_stride=4; valid: 8, 16, 32"),
        (
            lambda: with_fcn(dilated(model_spec("mobilenet_v2")), 2, output_stride=32),
            "output_stride=32 is more than mobilenet_v2 has; nearest valid: 16",
        ),
        (lambda: with_fcn(model_spec("mobilenet_v2"), ()), "classes=0 must be"),
    ],
)
def test_mistakes(make: Callable[[], object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_a_dilated_network_stays_so():
    first = dilated(model_spec("mobilenet_v2"), dilate_first=False)
    assert dilated(first) == first
    rows = dilated(first, 8).backbone.rows
    assert [row.dilation for row in rows[6:18]] == [1, *[2] * 8, *[4] * 3]
    cut = with_backbone(first, rows=first.backbone.rows[:18])
    assert with_raspp(first, 2).backbone == cut.backbone
