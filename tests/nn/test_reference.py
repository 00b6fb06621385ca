"""Outputs equal those of torchvision and timm with the same weights, and our weights load there strictly."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf

from pocketvision.nn.model import build
from pocketvision.spec.model import ModelSpec
from pocketvision.spec.transform import as_folded, dilated, reduced_tail, with_backbone, with_padding
from pocketvision.zoo import model_spec
from pocketvision.zoo.keymaps import COUNTER, Layout, from_ours, is_folded, layout_of, to_ours


def mobilenet_v3(arch: str, **changes: object) -> nn.Module:
    return MobileNetV3(*_mobilenet_v3_conf(arch, **changes))


def timm_model(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


def with_timms_eps(spec: ModelSpec) -> ModelSpec:
    return with_backbone(spec, bn_eps=1e-5)


V2, LARGE, SMALL, LITE0 = "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_lite0"
TORCHVISION: dict[str, tuple[Callable[[], nn.Module], ModelSpec]] = {
    V2: (models.mobilenet_v2, model_spec(V2)),
    "mobilenet_v2 0.5": (lambda: models.mobilenet_v2(width_mult=0.5), model_spec(V2, width=0.5)),
    "mobilenet_v2 1.4": (lambda: models.mobilenet_v2(width_mult=1.4), model_spec(V2, width=1.4)),
    "mnasnet1_0": (models.mnasnet1_0, model_spec("mnasnet_b1")),
    "mnasnet0_5": (models.mnasnet0_5, model_spec("mnasnet_b1", width=0.5)),
}
for name in (LARGE, SMALL):
    TORCHVISION |= {
        name: (lambda name=name: mobilenet_v3(name), model_spec(name)),
        f"{name} 0.75": (lambda name=name: mobilenet_v3(name, width_mult=0.75), model_spec(name, width=0.75)),
        f"{name} tail": (lambda name=name: mobilenet_v3(name, reduced_tail=True), reduced_tail(model_spec(name))),
        f"{name} dilated": (lambda name=name: mobilenet_v3(name, dilated=True), dilated(model_spec(name))),
    }
TIMM: dict[str, ModelSpec] = {
    "mobilenetv1_100": model_spec("mobilenet_v1"),
    "mobilenetv2_100": model_spec(V2),
    "mobilenetv2_050": model_spec(V2, width=0.5),
    "mobilenetv2_140": model_spec(V2, width=1.4),
    "semnasnet_100": model_spec("mnasnet_a1"),
    "semnasnet_075": model_spec("mnasnet_a1", width=0.75),
    "mnasnet_100": model_spec("mnasnet_b1"),
    "mnasnet_small": model_spec("mnasnet_small"),
    "mobilenetv3_large_100": with_timms_eps(model_spec(LARGE)),
    "mobilenetv3_small_100": with_timms_eps(model_spec(SMALL)),
    "efficientnet_lite0": with_padding(with_timms_eps(model_spec(LITE0)), "symmetric"),
    "tf_efficientnet_lite0": model_spec(LITE0),
    **{f"mobileone_s{size}": model_spec(f"mobileone_s{size}") for size in range(5)},
}


def settled(model: nn.Module) -> nn.Module:
    """Random scales and shifts, and the statistics of random images: every BatchNorm does something, none explodes."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = None  # the plain mean over the batches
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.1)
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 96, 96))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
                module.running_var.clamp_(min=0.05)  # a dead channel would blow rounding errors up
    return model.eval()


def assert_same(theirs: nn.Module, spec: ModelSpec, layout: Layout, sizes: tuple[int, ...] = (96,)):
    state = theirs.state_dict()
    assert layout_of(state) == layout
    spec = as_folded(spec, is_folded(state))
    ours = build(spec).eval()
    ours.load_state_dict(to_ours(state, spec, layout))
    for size in sizes:
        x_BCHW = torch.randn(2, 3, size, size)
        with torch.inference_mode():
            got, expected = ours(x_BCHW), theirs(x_BCHW)
        assert expected.std() > 0.01
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()

    back = from_ours(ours.state_dict(), spec, layout)
    for tensor in state.values():
        tensor.zero_()  # so that loading nothing cannot pass
    theirs.load_state_dict(back, strict=True)
    with torch.inference_mode():
        assert torch.equal(theirs(x_BCHW), expected)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str):
    make, spec = TORCHVISION[name]
    assert_same(settled(make()), spec, "torchvision")


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str):
    sizes = (96, 97, 111) if "lite" in name else (96,)  # SAME pads unevenly at even sizes
    assert_same(settled(timm_model(name)), TIMM[name], "timm", sizes)


@pytest.mark.parametrize("size", range(5))
def test_timm_mobileone_fused(size: int):
    from timm.utils.model import reparameterize_model

    name = f"mobileone_s{size}"
    assert_same(reparameterize_model(settled(timm_model(name))), TIMM[name], "timm")


def test_a_missing_batch_counter_is_no_loss():
    state = {name: tensor for name, tensor in models.mobilenet_v2().state_dict().items() if COUNTER not in name}
    ours = to_ours(state, model_spec(V2), "torchvision")
    assert build(model_spec(V2)).load_state_dict(ours, strict=False).unexpected_keys == []
