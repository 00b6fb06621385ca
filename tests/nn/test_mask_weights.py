"""Weights of segmenters and for segmenters: torchvision's and TensorFlow's, a classifier's backbone, folding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.segmentation import (
    DeepLabV3_MobileNet_V3_Large_Weights,
    LRASPP_MobileNet_V3_Large_Weights,
    deeplabv3_mobilenet_v3_large,
    lraspp_mobilenet_v3_large,
)
from torchvision.models.segmentation.fcn import FCN as TorchvisionFCN
from torchvision.models.segmentation.fcn import FCNHead as TorchvisionFCNHead

from pocketvision.data.transforms import load_prepared
from pocketvision.errors import WeightsError
from pocketvision.nn.fold import fold, unfold
from pocketvision.nn.heads.deeplabv3 import DeepLabV3
from pocketvision.nn.heads.masks import ClassLayer
from pocketvision.nn.layers import Normalize
from pocketvision.nn.load import load_model, save_model
from pocketvision.nn.model import Model, build
from pocketvision.spec.cost import cost
from pocketvision.spec.model import ModelSpec
from pocketvision.spec.segmentation import with_deeplabv3, with_fcn, with_lraspp, with_raspp
from pocketvision.zoo import model_spec
from pocketvision.zoo.voc import LABELS, VOC

MAKERS: dict[str, Callable[..., ModelSpec]] = {
    "lraspp": with_lraspp,
    "raspp": with_raspp,
    "deeplabv3": with_deeplabv3,
    "fcn": with_fcn,
}
every_head = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


# torchvision's networks


def varied(model: nn.Module) -> nn.Module:
    """Random weights whose outputs differ from place to place and class to class, in eval mode."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.out_channels == 21:
                nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 64, 64))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            module.running_var.clamp_(min=0.05)  # of the pooled maps there are four values only
    return model.eval()


def torchvisions(name: str) -> nn.Module:
    """Without published weights."""
    if name == "lraspp":
        return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    model = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, aux_loss=name == "deeplabv3 aux")
    return TorchvisionFCN(model.backbone, TorchvisionFCNHead(960, 21)) if name == "fcn" else model


LARGE = model_spec("mobilenet_v3_large")
TORCHVISIONS: dict[str, tuple[ModelSpec, int]] = {
    "lraspp": (with_lraspp(LARGE, 21), 3_221_538),
    "deeplabv3": (with_deeplabv3(LARGE, 21, rates=(12, 24, 36), refined=True, aux=False), 11_025_477),
    "deeplabv3 aux": (with_deeplabv3(LARGE, 21, rates=(12, 24, 36), refined=True), 11_029_328),
    "fcn": (with_fcn(LARGE, 21, aux=False), 5_051_093),
}


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_torchvisions_network_gives_the_same_masks(name: str, tmp_path: Path):
    asked, params = TORCHVISIONS[name]
    theirs = varied(torchvisions(name))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours, info = load_model(asked, tmp_path / "theirs.pth")
    assert (info.layout, info.classifier, info.head) == ("torchvision_masks", True, True)
    assert cost(asked).params == params == sum(parameter.numel() for parameter in ours.parameters())
    ours.eval()
    for size in ((97, 65), (160, 128)):
        x_BCHW = torch.randn(2, 3, *size)
        with torch.inference_mode():
            got, expected = ours(x_BCHW).logits, theirs(x_BCHW)["out"]
        assert expected.std() > 0.02
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    if name == "deeplabv3 aux":
        head, x_BCHW = ours.head, torch.randn(2, 3, 97, 65)
        assert isinstance(head, DeepLabV3) and head.aux is not None
        with torch.inference_mode():
            fine = ours.backbone.tapped(x_BCHW, head.spec.taps)[0]
            got = nn.functional.interpolate(head.aux(fine), (97, 65), mode="bilinear")
            torch.testing.assert_close(got, theirs(x_BCHW)["aux"], rtol=0, atol=1e-4)


def test_the_auxiliary_head_of_only_one_side(tmp_path: Path):
    with_aux, without = TORCHVISIONS["deeplabv3 aux"][0], TORCHVISIONS["deeplabv3"][0]
    for file, asked in (("deeplabv3 aux", without), ("deeplabv3", with_aux)):
        theirs = torchvisions(file).eval()
        torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
        ours, info = load_model(asked, tmp_path / "theirs.pth")
        assert (info.classifier, info.head) == (True, True)
        assert ours.spec.head == asked.head
        x_BCHW = torch.randn(1, 3, 65, 65)
        with torch.inference_mode():
            torch.testing.assert_close(ours.eval()(x_BCHW).logits, theirs(x_BCHW)["out"], rtol=0, atol=1e-4)


def test_what_the_catalogue_says_of_torchvisions():
    published = (
        LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1,
        DeepLabV3_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1,
    )
    for weights, entry in zip(published, VOC[:2], strict=True):
        spec = entry.spec()
        assert (entry.url, spec.labels) == (weights.url, LABELS)
        assert entry.sha256 in entry.file and entry.preprocessing == spec.preprocessing
        assert tuple(weights.meta["categories"][1:]) == LABELS[1:]
        assert cost(spec).params == weights.meta["num_params"]
        # torchvision tells LR-ASPP's classes apart after enlarging: on four times the pixels
        later = 3 * 128 * 21 * 33**2 if "lraspp" in entry.model else 0
        assert (cost(spec).madds + later) / 1e9 == pytest.approx(weights.meta["_ops"], rel=0.01)


def test_another_head_than_the_files_is_refused(tmp_path: Path):
    torch.save(torchvisions("lraspp").state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match="missing layers: "):
        load_model(TORCHVISIONS["fcn"][0], tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match="weights of a segmenter, and a ClassifierHead is asked for"):
        load_model(LARGE, tmp_path / "theirs.pth")


# files of our own, and a classifier's


def small(make: Callable[..., ModelSpec], classes: int | tuple[str, ...] = 3, name: str = "mobilenet_v2") -> ModelSpec:
    return make(model_spec(name, width=0.35), classes, size=64)


@every_head
def test_our_own_file_again(make: Callable[..., ModelSpec], tmp_path: Path):
    def asked_for(classes: int | tuple[str, ...]) -> ModelSpec:
        return small(make, classes, "mobilenet_v1")

    model = build(asked_for(("a", "b")))
    path = save_model(model, tmp_path / "own.safetensors")
    for asked in (None, asked_for(2)):
        again, info = load_model(asked, path)
        assert (info.classifier, info.head, again.spec.labels) == (True, True, ("a", "b"))
        assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    for asked in (asked_for(3), asked_for(("a", "c"))):
        other, info = load_model(asked, path)
        assert (info.classifier, info.head, other.spec.labels) == (False, True, asked.labels)
        layers = {name for name, module in model.named_modules() if isinstance(module, ClassLayer)}
        for name, tensor in model.state_dict().items():
            same = tensor.shape == other.state_dict()[name].shape and torch.equal(tensor, other.state_dict()[name])
            fresh = name.rpartition(".")[0] in layers
            assert same != fresh or (fresh and name.endswith("bias")), name  # biases begin at 0 in both


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_a_classifier_gives_its_backbone(name: str, tmp_path: Path):
    """That of MobileNetV2 has one convolution more than a segmenter needs."""
    classifier = build(model_spec(name, width=0.35, classes=7))
    path = save_model(classifier, tmp_path / "classifier.safetensors")
    model, info = load_model(small(with_lraspp, ("a", "b"), name), path)
    assert (info.classifier, info.head, model.spec.labels) == (False, False, ("a", "b"))
    theirs = classifier.state_dict()
    assert all(
        torch.equal(tensor, theirs[name]) for name, tensor in model.state_dict().items() if name.startswith("backbone.")
    )
    wider = with_lraspp(model_spec(name, width=0.5), 2)
    with pytest.raises(WeightsError, match=f"which do not fit {name}"):
        load_model(wider, path)


def test_a_torchvision_classifier_that_is_in_no_catalogue(tmp_path: Path):
    from torchvision.models import mobilenet_v2

    theirs = mobilenet_v2(weights=None, width_mult=0.35, num_classes=5)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    model, info = load_model(small(with_raspp), tmp_path / "theirs.pth")
    assert (info.layout, info.head) == ("torchvision", False)
    last: Any = theirs.features[17].conv[-2]  # type: ignore[union-attr, index]
    assert torch.equal(model.backbone.rows[17].project.conv.weight, last.weight)  # type: ignore[union-attr]


# folding


def settled(spec: ModelSpec) -> Model:
    """In float64 and eval mode, with statistics of some images."""
    torch.manual_seed(0)
    model = build(spec).double()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = None
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64, dtype=torch.float64))
    for norm in norms:
        assert norm.running_var is not None
        norm.running_var.clamp_(min=0.05)
    return model.eval()


def difference(model: Model, other: Model) -> float:
    """Largest difference of logits, relative to the largest."""
    x_BCHW = torch.randn(2, 3, 49, 65, dtype=torch.float64)
    with torch.inference_mode():
        expected, got = model(x_BCHW).logits, other(x_BCHW).logits
    return float((expected - got).abs().max() / expected.abs().max())


def norms_of(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


@every_head
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobileone_mu0"])
def test_folding_and_unfolding(make: Callable[..., ModelSpec], name: str):
    model = settled(small(make, 3, name))
    deploy = fold(model)
    assert norms_of(deploy) == 0 and not any(key.startswith("head.aux") for key in deploy.state_dict())
    assert difference(model, deploy) < 1e-10
    again = unfold(deploy, [torch.randn(4, 3, 64, 64, dtype=torch.float64)])
    assert norms_of(again.head) == norms_of(model.head) - (getattr(model.head, "aux", None) is not None)
    assert difference(deploy, again) < 1e-8
    assert difference(deploy, fold(again)) < 1e-8


@every_head
def test_a_new_head_on_a_folded_backbone(make: Callable[..., ModelSpec], tmp_path: Path):
    torch.manual_seed(0)
    folded = fold(build(model_spec("mobileone_s0", width=0.35, classes=4)).eval())
    path = save_model(folded, tmp_path / "folded.safetensors")
    model, info = load_model(small(make, 2, "mobileone_s0"), path)
    assert info.folded and not info.head
    assert not norms_of(model.backbone) and norms_of(model.head)
    model = model.double().eval()
    trainable = unfold(model, [torch.randn(4, 3, 64, 64, dtype=torch.float64)])
    assert difference(model, trainable) < 1e-8
    running = {name: buffer for name, buffer in trainable.named_buffers() if name.endswith("running_mean")}
    assert all(bool(mean.any()) == name.startswith("backbone.") for name, mean in running.items())
    assert difference(model, fold(trainable)) < 1e-8


def test_a_folded_head_gets_a_new_auxiliary_one(tmp_path: Path):
    path = save_model(fold(build(small(with_fcn)).eval()), tmp_path / "folded.safetensors")
    model, info = load_model(small(with_fcn), path)
    assert (info.classifier, info.head, norms_of(model.head)) == (True, True, 1)
    trainable = unfold(model.double().eval(), [torch.randn(2, 3, 64, 64, dtype=torch.float64)])
    assert difference(model, trainable) < 1e-8
    assert trainable.train()(torch.randn(2, 3, 64, 64, dtype=torch.float64)).aux is not None


# TensorFlow's

FILE = "deeplabv3_mobilenetv2_voc21_tf_fp16.safetensors"
# what the photos show, and how much of them at least and at most
SEEN = {
    "coral_bird_segmentation": {"bird": (0.15, 0.25)},
    "coral_pets": {"dog": (0.12, 0.18)},
    "dog": {"dog": (0.06, 0.10), "bicycle": (0.02, 0.06), "car": (0.02, 0.04)},
    "eagle": {"bird": (0.15, 0.21)},
    "horses": {"horse": (0.08, 0.17)},
    "kite": {"bird": (0.0, 0.01)},
    "person": {"person": (0.04, 0.06), "horse": (0.03, 0.08), "dog": (0.01, 0.03)},
}


def test_tensorflows_weights_see_what_the_photos_show(shared: Path):
    model, info = load_model(None, shared / "data" / "weights" / FILE)
    assert info.verified and info.folded and info.licence == "Apache-2.0"
    assert (model.spec.labels, model.spec.preprocessing.size, model.spec.preprocessing.fit) == (LABELS, 513, "stretch")
    model.eval()
    p = model.spec.preprocessing
    for name, classes in SEEN.items():
        photo = shared / "data" / "demo_images" / f"{name}.jpg"
        pixels = torch.from_numpy(load_prepared(photo, p)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            shown = model(Normalize(p)(pixels)).logits.argmax(1)
        shares = torch.bincount(shown.flatten(), minlength=len(LABELS)) / shown.numel()
        for label, (least, most) in classes.items():
            assert least <= shares[LABELS.index(label)] <= most, f"{name}: {label} {shares[LABELS.index(label)]:.3f}"


def test_tensorflows_weights_start_other_classes(shared: Path):
    path = shared / "data" / "weights" / FILE
    model, info = load_model(with_raspp(model_spec("mobilenet_v2"), ("sky", "road"), size=96), path)
    assert (info.classifier, info.head, model.spec.labels) == (False, True, ("sky", "road"))
    whole, info = load_model(with_raspp(model_spec("mobilenet_v2"), 21, size=96), path)
    assert (info.classifier, info.head, whole.spec.labels) == (True, True, LABELS)
    published, own = VOC[2].spec(), whole.spec
    assert (own.backbone, own.head) == (published.backbone, published.head)  # dilations and corners as they need them
    assert model.spec.backbone == published.backbone
    wider, info = load_model(with_raspp(model_spec("mobilenet_v2"), 21, output_stride=8), path)
    assert info.head and wider.spec.backbone.strides()[-1] == 8
    _, info = load_model(with_lraspp(model_spec("mobilenet_v2"), 21, size=96), path)
    assert (info.classifier, info.head) == (False, False)
