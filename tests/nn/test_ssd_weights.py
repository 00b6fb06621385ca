"""Weights of detectors and for detectors: torchvision's and TensorFlow's SSDLite, a classifier's backbone, folding."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from pocketvision.data.image import read_image
from pocketvision.data.transforms import load_prepared
from pocketvision.errors import WeightsError
from pocketvision.nn.fold import fold, unfold
from pocketvision.nn.heads.detections import Detections
from pocketvision.nn.heads.ssd import decode, detections
from pocketvision.nn.layers import Normalize
from pocketvision.nn.load import load_model, save_model
from pocketvision.nn.model import Model, build
from pocketvision.spec.cost import cost
from pocketvision.spec.detectors import with_ssd
from pocketvision.spec.model import ModelSpec
from pocketvision.zoo import model_spec
from pocketvision.zoo.coco import CATEGORIES, COCO, LABELS

FILE = "ssdlite_mobilenetv2_coco90_tf_fp16.safetensors"


@pytest.fixture(scope="module")
def photos(shared: Path) -> list[Path]:
    return sorted((shared / "data" / "demo_images").glob("*.jpg"))


def varied(model: nn.Module) -> nn.Module:
    """Random weights whose outputs differ from place to place and class to class, in eval mode."""
    torch.manual_seed(0)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if "module_list" in name and module.groups == 1:
                nn.init.normal_(module.weight, std=0.1 if "classification" in name else 0.03)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = None
    with torch.no_grad():
        model.train()
        backbone, head = model.get_submodule("backbone"), model.get_submodule("head")
        head(list(backbone(torch.randn(4, 3, 160, 160)).values()))
    return model.eval()


def test_torchvisions_network_gives_the_same_boxes(tmp_path: Path, photos: list[Path]):
    theirs = varied(ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None))
    torch.save(theirs.state_dict(), tmp_path / "ssdlite.pth")
    asked = with_ssd(model_spec("mobilenet_v3_large"), CATEGORIES, halved="torchvision")
    ours, info = load_model(asked, tmp_path / "ssdlite.pth")
    assert (info.layout, info.classifier, info.head) == ("torchvision_ssdlite", True, True)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 3_440_060
    ours.eval()
    p, compared = ours.spec.preprocessing, 0
    for photo in photos[:4]:
        pixels = torch.from_numpy(load_prepared(photo, p)).permute(2, 0, 1)[None]
        x_BCHW = Normalize(p)(pixels)
        with torch.inference_mode():
            outputs = ours(x_BCHW)
            features = list(theirs.backbone(x_BCHW).values())
            raw = theirs.head(features)
            anchors = theirs.anchor_generator(ImageList(x_BCHW, [(320, 320)]), features)[0]
            expected = theirs.postprocess_detections(raw, [anchors], [(320, 320)])[0]
        assert raw["cls_logits"].std() > 0.3
        torch.testing.assert_close(outputs.logits, raw["cls_logits"], rtol=0, atol=1e-4)
        boxes, scores = decode(outputs)
        coded = theirs.box_coder.decode_single(raw["bbox_regression"][0], anchors).clamp(0, 320)
        torch.testing.assert_close(boxes[0], coded, rtol=0, atol=1e-4)  # pixels, of 320
        torch.testing.assert_close(scores, raw["cls_logits"].softmax(2)[:, :, 1:], rtol=0, atol=1e-5)
        found = detections(outputs)[0]
        assert len(found.boxes) == len(expected["boxes"]) > 50
        torch.testing.assert_close(found.scores, expected["scores"], rtol=0, atol=1e-4)
        assert unmatched(found, expected) == 0
        compared += len(found.boxes)
    assert compared > 400


def unmatched(found: Detections, expected: dict[str, Tensor]) -> int:
    """How many have no counterpart of the same class, box (1e-4 pixels) and score (1e-4); equal scores may swap."""
    same = (found.boxes[:, None] - expected["boxes"]).abs().amax(2) < 1e-4
    same &= found.labels[:, None] + 1 == expected["labels"]
    same &= (found.scores[:, None] - expected["scores"]).abs() < 1e-4
    return int((~same.any(1)).sum() + (~same.any(0)).sum())


def test_what_the_catalogue_says_of_torchvisions():
    published, entry = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1, COCO[0]
    assert tuple(published.meta["categories"][1:]) == CATEGORIES == entry.spec().labels
    assert len(LABELS) == 80
    assert entry.url == published.url and entry.sha256 in entry.file
    assert cost(entry.spec()).params == published.meta["num_params"]
    assert cost(entry.spec()).madds / 1e9 == pytest.approx(published.meta["_ops"], abs=1e-3)
    assert all(entry.spec().preprocessing == entry.preprocessing for entry in COCO)


# what the photos show: class, box in pixels of the photo
SEEN = {
    "coral_bird_segmentation": [("bird", (68, 70, 474, 423))],
    "coral_hot_dog": [("hot dog", (88, 85, 483, 239))],
    "coral_pets": [("dog", (339, 167, 499, 369)), ("dog", (110, 34, 262, 293))],
    "dog": [("bicycle", (125, 125, 570, 430)), ("car", (465, 75, 690, 172)), ("dog", (130, 222, 315, 540))],
    "eagle": [("bird", (125, 90, 605, 445))],
    "giraffe": [("giraffe", (170, 28, 435, 445)), ("zebra", (265, 205, 420, 440))],
    "horses": [("horse", (5, 200, 310, 405)), ("horse", (430, 212, 585, 347))],
    "kite": [("kite", (454, 55, 515, 117)), ("person", (75, 461, 120, 569))],
    "person": [("person", (190, 98, 272, 380)), ("dog", (62, 264, 205, 345)), ("horse", (398, 136, 602, 340))],
    "zebra": [("zebra", (62, 117, 440, 530)), ("zebra", (300, 41, 600, 530)), ("zebra", (572, 68, 752, 443))],
}


def test_tensorflows_weights_see_what_the_photos_show(shared: Path, photos: list[Path]):
    model, info = load_model(None, shared / "data" / "weights" / FILE)
    assert info.verified and info.folded and info.licence == "Apache-2.0"
    assert (model.spec.labels, model.spec.preprocessing.size, model.spec.preprocessing.fit) == (LABELS, 300, "stretch")
    assert [photo.stem for photo in photos] == sorted(SEEN)
    model.eval()
    p = model.spec.preprocessing
    for photo in photos:
        height, width = read_image(photo).shape[:2]
        pixels = torch.from_numpy(load_prepared(photo, p)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            found = detections(model(Normalize(p)(pixels)))[0]
        found = Detections(*(part[found.scores > 0.4] for part in found))
        boxes = found.boxes * torch.tensor([width, height, width, height]) / 300
        for label, box in SEEN[photo.stem]:
            alike = boxes[found.labels == LABELS.index(label)]
            assert len(alike), f"{photo.stem}: no {label}"
            assert box_iou(torch.tensor([box], dtype=torch.float32), alike).max() > 0.75, f"{photo.stem}: {label}"


# a classifier's weights in a detector


@pytest.fixture
def classifier(tmp_path: Path) -> tuple[Model, Path]:
    torch.manual_seed(1)
    model = build(model_spec("mobilenet_v3_small", width=0.35, classes=7))
    return model, save_model(model, tmp_path / "classifier.safetensors")


@pytest.fixture
def shared_weights(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shared / "data" / "weights"
    monkeypatch.setenv("POCKETVISION_WEIGHTS", str(folder))
    return folder


def tiny(classes: int | tuple[str, ...], name: str = "mobilenet_v3_small") -> ModelSpec:
    return with_ssd(model_spec(name, width=0.35), classes, size=96, extras=(32, 16))


def test_a_classifier_gives_its_backbone(classifier: tuple[Model, Path]):
    torch.manual_seed(0)
    fresh = build(tiny(("a", "b"))).state_dict()
    torch.manual_seed(0)
    model, info = load_model(tiny(("a", "b")), classifier[1])
    assert (info.classifier, info.head) == (False, False)
    assert (model.spec.labels, model.spec.preprocessing.fit, model.spec.preprocessing.size) == (
        ("a", "b"),
        "stretch",
        96,
    )
    theirs = classifier[0].state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (theirs if name.startswith("backbone.") else fresh)[name]), name


def test_a_detector_gives_its_backbone_to_a_classifier(tmp_path: Path):
    detector = build(tiny(2))
    path = save_model(detector, tmp_path / "detector.safetensors")
    model, info = load_model(model_spec("mobilenet_v3_small", width=0.35, classes=7), path)
    assert (info.classifier, info.head, model.spec.preprocessing.fit) == (False, False, "crop")
    assert torch.equal(model.backbone.rows[0].conv.weight, detector.backbone.rows[0].conv.weight)


def test_a_backbone_that_does_not_fit_is_refused(classifier: tuple[Model, Path]):
    halved = with_ssd(model_spec("mobilenet_v3_small", width=0.35), 2, halved="torchvision")
    with pytest.raises(WeightsError, match=r"these are weights of mobilenet_v3_small .* which do not fit"):
        load_model(halved, classifier[1])


def test_our_own_detector_again(tmp_path: Path):
    model = build(tiny(("a", "b")))
    path = save_model(model, tmp_path / "detector.safetensors")
    for asked in (None, tiny(2), tiny(("a", "b"))):
        again, info = load_model(asked, path)
        assert (info.classifier, info.head, again.spec.labels) == (True, True, ("a", "b"))
        assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    for asked in (tiny(3), tiny(("a", "c"))):
        other, info = load_model(asked, path)
        assert (info.classifier, info.head, other.spec.labels) == (False, True, asked.labels)
        differing = {name for name, tensor in model.state_dict().items() if not same(other.state_dict()[name], tensor)}
        assert differing == {f"head.classes.{index}.1.weight" for index in range(4)} | (
            {f"head.classes.{index}.1.bias" for index in range(4)} if asked.head.classes == 3 else set()
        )
    _, info = load_model(with_ssd(model_spec("mobilenet_v3_small", width=0.35), ("a", "b"), separable=False), path)
    assert (info.classifier, info.head) == (False, False)


def same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


# folding


def settled(spec: ModelSpec) -> Model:
    """In float64 and eval mode, with statistics of some images."""
    torch.manual_seed(0)
    model = build(spec).double()
    for module in batch_norms(model):
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias, std=0.3)
        module.momentum = None
    with torch.no_grad():
        model(torch.randn(4, 3, 96, 96, dtype=torch.float64))
    for module in batch_norms(model):
        module.running_var.clamp_(min=0.05)
    return model.eval()


def batch_norms(module: nn.Module) -> Iterator[nn.BatchNorm2d]:
    return (part for part in module.modules() if isinstance(part, nn.BatchNorm2d))


def difference(model: Model, other: Model) -> float:
    """Largest difference of logits and codes, relative to the largest of each."""
    x_BCHW = torch.randn(2, 3, 96, 80, dtype=torch.float64)
    with torch.inference_mode():
        expected, got = model(x_BCHW), other(x_BCHW)
    pairs = ((expected.logits, got.logits), (expected.codes, got.codes))
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobileone_s0"])
@pytest.mark.parametrize("separable", [True, False])
def test_folding_and_unfolding_a_whole_detector(name: str, separable: bool):
    spec = with_ssd(model_spec(name, width=0.35), 3, size=96, extras=(32, 16), separable=separable)
    model = settled(spec)
    deploy = fold(model)
    assert not list(batch_norms(deploy))
    assert difference(model, deploy) < 1e-10
    again = unfold(deploy, [torch.randn(4, 3, 96, 96, dtype=torch.float64)])
    assert len(list(batch_norms(again.head))) == len(list(batch_norms(model.head)))
    assert difference(deploy, again) < 1e-8
    assert difference(deploy, fold(again)) < 1e-8


def test_a_new_head_on_a_folded_backbone(tmp_path: Path):
    torch.manual_seed(0)
    spec = model_spec("mobileone_s0", width=0.35, classes=4)
    path = save_model(fold(build(spec).eval()), tmp_path / "folded.safetensors")
    model, info = load_model(tiny(2, "mobileone_s0"), path)
    assert info.folded and not info.head
    assert not list(batch_norms(model.backbone)) and list(batch_norms(model.head))
    model = model.double().eval()
    trainable = unfold(model, [torch.randn(4, 3, 96, 96, dtype=torch.float64)])
    assert difference(model, trainable) < 1e-8
    assert all(norm.running_mean.any() for norm in batch_norms(trainable.backbone))
    assert not any(norm.running_mean.any() for norm in batch_norms(trainable.head))  # new, as of any new head
    assert difference(model, fold(trainable)) < 1e-8


def test_real_folded_weights_start_a_detector(shared_weights: Path):
    model, info = load_model(with_ssd(model_spec("mobilenet_v3_small"), ("cell",), size=96), "imagenet")
    assert info.folded and info.verified and not info.head
    assert (model.spec.backbone.padding, model.spec.preprocessing.mean) == ("same", (0.5, 0.5, 0.5))
    trainable = unfold(model.eval(), [torch.randn(2, 3, 96, 96)])
    assert not any(norm.running_mean.any() for norm in batch_norms(trainable.head))
