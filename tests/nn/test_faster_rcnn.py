"""Our Faster R-CNN beside torchvision's with the same weights, and what torchvision's does not have."""

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import detection
from torchvision.ops import FrozenBatchNorm2d
from torchvision.transforms.v2.functional import pil_to_tensor, resize

from pocketvision.data.loader import Truth
from pocketvision.errors import WeightsError
from pocketvision.nn.fold import fold
from pocketvision.nn.heads.faster_rcnn import RegionOutputs, detections, region_losses
from pocketvision.nn.heads.regions import ANCHOR_MATCHER, REGION_MATCHER, assign
from pocketvision.nn.load import load_model
from pocketvision.nn.model import Model, build
from pocketvision.spec.cost import cost
from pocketvision.spec.faster_rcnn import with_faster_rcnn
from pocketvision.spec.heads import Selection
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import Conv
from pocketvision.zoo import model_spec

LARGE = model_spec("mobilenet_v3_large")
NAMES = ("objectness", "anchor_boxes", "classes", "boxes")
THEIR_NAMES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")


def truth(*boxes: tuple[float, ...], labels: tuple[int, ...] = (), ignored: tuple[bool, ...] = ()) -> Truth:
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Truth(
        corners,
        torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
        torch.tensor(ignored or [False] * len(boxes), dtype=torch.bool),
    )


TRUTH = [truth((10, 10, 100, 100), (50, 60, 300, 310), labels=(3, 5)), truth()]


@pytest.fixture(scope="module")
def images(shared: Path) -> list[Tensor]:
    """Two photos, 0 to 1, [3, 320, 320]."""
    files = sorted((shared / "data/demo_images").glob("*.jpg"))[:2]
    photos = [pil_to_tensor(Image.open(file).convert("RGB")) for file in files]
    assert len(photos) == 2
    return [resize(photo, [320, 320], antialias=True) / 255 for photo in photos]


def normalised(images: list[Tensor]) -> Tensor:
    mean, std = torch.tensor(LARGE.preprocessing.mean), torch.tensor(LARGE.preprocessing.std)
    return torch.stack([(image - mean[:, None, None]) / std[:, None, None] for image in images])


@pytest.fixture(scope="module")
def theirs(images: list[Tensor]) -> nn.Module:
    """torchvision's low-resolution network, random, with BatchNorms that know the images and scores that differ."""
    torch.manual_seed(0)
    network = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    return settled(network, images)


def settled(network: nn.Module, images: list[Tensor]) -> nn.Module:
    spread = {"cls_score": 0.3, "predictor.bbox_pred": 0.05, "cls_logits": 0.05, "head.bbox_pred": 0.01}
    for name, parameter in network.named_parameters():
        for part, std in spread.items():
            if part in name:
                nn.init.normal_(parameter, std=std)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over the batches
    labelled = [{"boxes": torch.tensor([[10.0, 10, 100, 100]]), "labels": torch.tensor([1])}] * len(images)
    with torch.no_grad():
        network.train()(images, labelled)
    return network.eval()


@pytest.fixture(scope="module")
def weights(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "theirs.pth"
    torch.save(theirs.state_dict(), path)
    return path


@pytest.fixture
def ours(weights: Path) -> Model:
    return load_model(with_faster_rcnn(LARGE, 90), weights)[0].eval()


def compare(found: list, expected: list[dict[str, Tensor]]) -> None:
    for mine, their in zip(found, expected, strict=True):
        assert len(mine.boxes) == len(their["boxes"]) > 10
        assert their["scores"].max() > 1.5 * their["scores"].min()
        torch.testing.assert_close(mine.boxes, their["boxes"], rtol=0, atol=1e-4)
        torch.testing.assert_close(mine.scores, their["scores"], rtol=0, atol=1e-4)
        assert torch.equal(mine.labels + 1, their["labels"])


@torch.no_grad()
def test_low_resolution_finds_what_torchvision_finds(theirs: nn.Module, ours: Model, images: list[Tensor]):
    assert sum(parameter.numel() for parameter in ours.parameters()) == 19_410_754
    compare(detections(ours(normalised(images))), theirs(images))


@torch.no_grad()
def test_high_resolution_finds_what_torchvision_finds(weights: Path, images: list[Tensor]):
    theirs = detection.fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None).eval()
    theirs.load_state_dict(torch.load(weights))
    large = [resize(images[0], [800, 800], antialias=True)]
    ours = load_model(with_faster_rcnn(LARGE, 90, form="high"), weights)[0].eval()
    compare(detections(ours(normalised(large))), theirs(large))


def their_losses(network: nn.Module, images: list[Tensor]) -> list[Tensor]:
    """torchvision's losses; the resize before them draws a random number that is none of ours."""
    labelled = [{"boxes": image.boxes, "labels": image.labels + 1} for image in TRUTH]
    batch, labelled = network.transform(images, labelled)  # pyright: ignore[reportCallIssue]
    torch.manual_seed(1)
    features = network.backbone(batch.tensors)  # pyright: ignore[reportCallIssue]
    regions, losses = network.rpn(batch, features, labelled)  # pyright: ignore[reportCallIssue]
    _, more = network.roi_heads(features, regions, batch.image_sizes, labelled)  # pyright: ignore[reportCallIssue]
    return [(losses | more)[name] for name in THEIR_NAMES]


def our_losses(model: Model, images: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(1)
    losses = region_losses(model(normalised(images), TRUTH))
    return [losses[name] for name in NAMES]


def test_losses_and_gradients_are_torchvisions_with_frozen_batch_norm(
    theirs: nn.Module, ours: Model, images: list[Tensor]
):
    """FACTS C-16: 19,386,354 parameters are those without BatchNorm's, of which torchvision's frozen one has none."""
    frozen = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    for module in list(frozen.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm2d(child.num_features))
    state = {name: value for name, value in theirs.state_dict().items() if "num_batches" not in name}
    frozen.load_state_dict(state)
    expected = their_losses(frozen.train(), images)
    sum(expected, torch.tensor(0.0)).backward()
    ours.train()
    norms = [module.eval() for module in ours.modules() if isinstance(module, nn.BatchNorm2d)]
    found = our_losses(ours, images)
    sum(found, torch.tensor(0.0)).backward()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert min(expected) > 0
    counted = sum(parameter.numel() for parameter in frozen.parameters())
    of_norms = sum(parameter.numel() for norm in norms for parameter in norm.parameters())
    assert sum(parameter.numel() for parameter in ours.parameters()) - of_norms == counted == 19_386_354
    for mine, their in [
        ("backbone.rows.13.project.conv", "backbone.body.13.block.3.0"),
        ("head.proposals.conv", "rpn.head.conv.0.0"),
        ("head.regions.hidden1", "roi_heads.box_head.fc6"),
    ]:
        gradient, expected_gradient = ours.get_submodule(mine).weight.grad, frozen.get_submodule(their).weight.grad
        assert isinstance(gradient, Tensor) and isinstance(expected_gradient, Tensor)
        torch.testing.assert_close(
            gradient, expected_gradient, rtol=1e-3, atol=1e-2 * float(expected_gradient.abs().max())
        )


def test_losses_are_torchvisions_while_batch_norm_trains(theirs: nn.Module, ours: Model, images: list[Tensor]):
    expected = their_losses(copy.deepcopy(theirs).train(), images)
    torch.testing.assert_close(our_losses(ours.train(), images), expected, rtol=1e-4, atol=1e-6)


def test_weights_with_the_names_of_older_files_load(theirs: nn.Module, ours: Model, tmp_path: Path):
    old = dict[str, Tensor]()
    for name, value in theirs.state_dict().items():
        if "num_batches" not in name:
            name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
            old[re.sub(r"(fpn\.\w+_blocks\.\d)\.0\.", r"\1.", name)] = value
    assert "backbone.fpn.inner_blocks.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    again, info = load_model(with_faster_rcnn(LARGE, 90), tmp_path / "old.pth")
    assert info.layout == "torchvision_rcnn"
    expected = ours.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items() if "num_b" not in name)


def test_weights_of_another_head_are_refused(weights: Path):
    with pytest.raises(WeightsError, match="Faster R-CNN"):
        load_model(LARGE, weights)


# without torchvision's network: small and random


def tiny(classes: int = 2, **fields: object) -> ModelSpec:
    rows = (Conv(8, stride=2), Conv(16, stride=2), Conv(24, stride=2), Conv(24))
    spec = ModelSpec(
        BackboneSpec("tiny", rows), model_spec("mobilenet_v2", classes=classes).head, Preprocessing(64, 64)
    )
    spec = with_faster_rcnn(spec, classes, size=64, stages=3, sizes=(12, 24), ratios=(1.0,))
    return replace(spec, head=replace(spec.head, channels=16, hidden=32, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "stages"), [("mobilenet_v3_large", 2), ("mobilenet_v2", 4), ("mobileone_s1", 3)])
@torch.no_grad()
def test_costs_are_what_torch_counts(name: str, stages: int):
    """With as many regions as may be; torch counts two operations per multiply-add."""
    spec = with_faster_rcnn(model_spec(name), 20, size=160, stages=stages)
    every = Selection(min_score=0.0, iou=1.0, candidates=50, most=50)
    spec = replace(spec, head=replace(spec.head, proposals=every))
    torch.manual_seed(0)
    model = build(spec).eval()
    with FlopCounterMode(display=False) as counter:
        outputs = model(torch.randn(1, 3, 160, 160))
    assert len(outputs.regions[0]) == 50
    total = cost(spec)
    assert total.params == sum(parameter.numel() for parameter in model.parameters())
    assert 2 * total.madds == counter.get_total_flops()


def test_ignored_boxes_are_neither_objects_nor_background():
    boxes = torch.tensor([[0.0, 0, 20, 20], [40, 40, 60, 60], [42, 42, 50, 50], [60, 0, 64, 4]])
    image = truth((0, 0, 20, 20), (40, 40, 60, 60), labels=(1, 0), ignored=(False, True))
    for matcher in (ANCHOR_MATCHER, REGION_MATCHER):
        assert assign(boxes, image, matcher)[0].tolist() == [2, -1, -1, 0]
    nothing_else = truth((40, 40, 60, 60), ignored=(True,))
    assert assign(boxes, nothing_else, REGION_MATCHER)[0].tolist() == [0, -1, -1, 0]


def test_a_box_without_area_is_no_object():
    boxes = torch.tensor([[0.0, 0, 20, 20], [40, 40, 60, 60]])
    assert assign(boxes, truth((30, 30, 30, 50)), ANCHOR_MATCHER)[0].tolist() == [0, 0]


def parameters(model: Model) -> Iterator[Tensor]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("image", [truth(), truth((0, 0, 64, 64), ignored=(True,))], ids=["no box", "all ignored"])
def test_images_without_objects_train(image: Truth):
    torch.manual_seed(0)
    model = build(tiny())
    losses = region_losses(model(torch.randn(2, 3, 64, 64), [image, image]))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["anchor_boxes"] == losses["boxes"] == 0
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in parameters(model))


def test_a_batch_without_images_has_no_loss_but_gradients():
    """Of several processes, one may have no images left; its gradients must have the shape of the others'."""
    model = build(tiny()).eval()
    losses = region_losses(model(torch.randn(0, 3, 64, 64), []))
    assert sum(losses.values()) == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in parameters(model))
    assert detections(model(torch.randn(0, 3, 64, 64))) == []


def test_it_learns_where_two_squares_are():
    torch.manual_seed(0)
    images = 0.1 * torch.randn(4, 3, 64, 64)
    scene = [truth((8, 8, 24, 24), (36, 30, 60, 54), labels=(0, 1))] * 4
    images[:, 0, 8:24, 8:24] += 2
    images[:, 1, 30:54, 36:60] += 2
    model = build(tiny())
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        sum(region_losses(model(images, scene)).values()).backward()
        optimizer.step()
    for found in detections(model.eval()(images)):
        assert found.labels[:2].sort().values.tolist() == [0, 1]
        assert found.scores[1] > 0.5
        best = found.boxes[:2][found.labels[:2].argsort()]
        torch.testing.assert_close(best, scene[0].boxes, rtol=0, atol=4)


def test_folding_leaves_the_outputs():
    torch.manual_seed(0)
    model = build(tiny(proposals=Selection(min_score=0.0, iou=0.7, candidates=20, most=20)))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    x_BCHW = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before: RegionOutputs = model.eval()(x_BCHW)
        after: RegionOutputs = fold(model)(x_BCHW)
    torch.testing.assert_close(after.regions, before.regions, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-4, atol=1e-5)


def test_mixed_precision_changes_little():
    torch.manual_seed(0)
    model, x_BCHW = build(tiny()), torch.randn(2, 3, 64, 64)
    losses = list[dict[str, Tensor]]()
    for amp in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            outputs = model(x_BCHW, [truth((8, 8, 24, 24)), truth()])
        losses.append(region_losses(outputs))
        assert {loss.dtype for loss in losses[-1].values()} == {torch.float32}
        sum(losses[-1].values(), torch.tensor(0.0)).backward()
    torch.testing.assert_close(losses[1], losses[0], rtol=0.05, atol=0.01)
