"""COCO's metrics in pixels of the original, across processes; imitation of teachers."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pocketvision.data.boxes import Boxes
from pocketvision.data.loader import Batch, Truth
from pocketvision.data.sources import Item
from pocketvision.errors import ConfigurationError
from pocketvision.nn.heads.faster_rcnn import region_losses
from pocketvision.nn.heads.ssd import SSDOutputs
from pocketvision.nn.layers import Normalize
from pocketvision.nn.model import build
from pocketvision.spec.detectors import with_ssd
from pocketvision.spec.faster_rcnn import with_faster_rcnn
from pocketvision.spec.heads import Selection, SSDHead, Tap
from pocketvision.tasks.detection import Detection, DetectionMeter
from pocketvision.tasks.distillation import Distillation, make_teacher
from pocketvision.tasks.ssd_loss import box_coder
from pocketvision.training.recipe import Recipe
from pocketvision.zoo import model_spec

HEAD = SSDHead(2, (Tap(1),), (((0.5, 0.5),),), extras=(), selection=Selection(min_score=0.2))
SIDE = 100
Said = list[tuple[list[float], int, float]]  # box in pixels of the input, class, score


def outputs(images: list[Said], head: SSDHead = HEAD) -> SSDOutputs:
    """What a detector would have to say for ``images`` to be found."""
    anchors = torch.tensor([[0.0, 0, 50, 50]] * max(map(len, images)))
    logits, codes = torch.zeros(len(images), len(anchors), 1 + head.classes), torch.zeros(len(images), len(anchors), 4)
    logits[..., 0] = 20
    for image, boxes in enumerate(images):
        for place, (box, label, score) in enumerate(boxes):
            codes[image, place] = box_coder(head).encode_single(torch.tensor([box]), anchors[:1])[0]
            logits[image, place] = torch.tensor([1 - score, 0.0, 0.0]).clamp(min=1e-9).log()
            logits[image, place, 1 + label] = torch.tensor(score).log()
    return SSDOutputs(logits, codes, anchors, (SIDE, SIDE), head)


def batch(*truths: Boxes) -> Batch:
    """Images of 100 x 100 pixels."""
    items = tuple(Item(f"{i}.jpg", -1, boxes) for i, boxes in enumerate(truths))
    images = torch.zeros(len(truths), 3, SIDE, SIDE, dtype=torch.uint8)
    inputs = []
    for boxes in truths:
        scale = torch.tensor([SIDE / boxes.size[0], SIDE / boxes.size[1]] * 2)
        corners = torch.tensor(boxes.corners).reshape(-1, 4) * scale
        inputs.append(Truth(corners, torch.tensor(boxes.labels), torch.tensor(boxes.ignored, dtype=torch.bool)))
    return Batch(images, torch.full((len(truths),), -1), items, tuple(inputs))


def truth(*boxes: tuple[tuple[float, float, float, float], int], size=(200, 400), ignored=()) -> Boxes:
    corners, labels = tuple(box for box, _ in boxes), tuple(label for _, label in boxes)
    return Boxes(size, corners, labels, tuple(i in ignored for i in range(len(boxes))))


def metrics(said: list[Said], *truths: Boxes) -> dict[str, float]:
    meter = Detection().meter()
    meter.update(outputs(said), batch(*truths))
    return meter.compute()


# 200 x 400 pixels are stretched to 100 x 100: x is halved, y quartered
SMALL, LARGE = (20.0, 40.0, 40.0, 80.0), (0.0, 0.0, 120.0, 320.0)
SMALL_SEEN, LARGE_SEEN = [10.0, 10.0, 20.0, 20.0], [0.0, 0.0, 60.0, 80.0]


def test_perfect_boxes_are_all_right_in_every_area():
    found = metrics([[(SMALL_SEEN, 0, 0.9), (LARGE_SEEN, 1, 0.8)]], truth((SMALL, 0), (LARGE, 1)))
    assert found == pytest.approx({"map": 1, "ap50": 1, "ap75": 1, "map_small": 1, "map_large": 1})
    assert next(iter(found)) == "map"


def test_metrics_counted_by_hand():
    """Class 0, two boxes: found are a wrong one (0.9), then one with an IoU of 0.72 (0.8). Class 1: all right.

    Class 0 has precision 1/2 up to recall 1/2 at the IoUs 0.50 to 0.70, and nothing from 0.75: AP 51/101/2 each.
    """
    shorter = [10.0, 10.0, 20.0, 17.2]  # 0.72 of the small box, which it lies in
    second = (100.0, 200.0, 140.0, 240.0)
    said: Said = [([70.0, 10.0, 80.0, 20.0], 0, 0.9), (shorter, 0, 0.8), (LARGE_SEEN, 1, 0.7)]
    found = metrics([said], truth((SMALL, 0), (second, 0), (LARGE, 1)))
    half = 51 / 101 / 2
    assert found["ap50"] == pytest.approx((half + 1) / 2)
    assert found["ap75"] == pytest.approx(1 / 2)
    assert found["map"] == pytest.approx((half * 5 / 10 + 1) / 2)


def test_boxes_found_in_ignored_ones_are_not_held_against_it():
    said: Said = [([0.0, 50.0, 50.0, 100.0], 0, 0.9), (SMALL_SEEN, 0, 0.5)]
    crowd = (0.0, 200.0, 200.0, 400.0)
    assert metrics([said], truth((SMALL, 0), (crowd, 0), ignored=[1]))["map"] == pytest.approx(1)
    assert metrics([said], truth((SMALL, 0)))["map"] == pytest.approx(0.5)


def test_images_without_boxes_and_without_findings():
    assert DetectionMeter().compute() == {}
    assert metrics([[(SMALL_SEEN, 0, 0.9)]], truth()) == {}
    assert metrics([[(SMALL_SEEN, 0, 0.1)]], truth((SMALL, 0)))["map"] == 0
    said: list[Said] = [[(SMALL_SEEN, 0, 0.5)], [(SMALL_SEEN, 0, 0.9)]]
    assert metrics(said, truth((SMALL, 0)), truth())["map"] == pytest.approx(0.5)


def test_meters_of_several_processes_make_up_one():
    crowded = truth((SMALL, 0), (LARGE, 1), size=(200, 400), ignored=[1])
    said: list[Said] = [[(SMALL_SEEN, 0, 0.8), ([60.0, 60.0, 90.0, 90.0], 0, 0.9)], [], [(LARGE_SEEN, 1, 0.7)]]
    truths = [crowded, truth(), truth((LARGE, 1), (SMALL, 0))]
    parts = [DetectionMeter() for _ in range(3)]  # the second process has no images
    parts[0].update(outputs(said[:1]), batch(truths[0]))
    parts[2].update(outputs(said[1:]), batch(*truths[1:]))
    packed: list[Tensor] = [part._packed() for part in parts]
    for part in parts:
        part.merge(lambda _: packed)
        assert part.compute() == pytest.approx(metrics(said, *truths))


def test_imitation_is_0_where_they_agree_and_pulls_towards_the_teachers():
    task, teacher = Detection(), outputs([[(SMALL_SEEN, 0, 0.9), (LARGE_SEEN, 1, 0.6)]])
    assert task.imitation(teacher, [teacher, teacher], 2.0).item() == pytest.approx(0, abs=1e-6)
    student = outputs([[(LARGE_SEEN, 1, 0.5), (SMALL_SEEN, 0, 0.5)]])
    student.logits.requires_grad_()
    student.codes.requires_grad_()
    before = task.imitation(student, [teacher], 1.0)
    before.backward()
    with torch.no_grad():
        student.logits.sub_(0.1 * student.logits.grad)
        student.codes.sub_(0.1 * student.codes.grad)
    assert 0 < task.imitation(student, [teacher], 1.0).item() < before.item()


def test_teachers_with_other_anchors_are_refused():
    task, student = Detection(), outputs([[(SMALL_SEEN, 0, 0.9)]])
    with pytest.raises(ConfigurationError, match="same anchors"):
        task.imitation(student, [outputs([[(SMALL_SEEN, 0, 0.9)] * 2])], 1.0)
    with pytest.raises(ConfigurationError, match="softmax"):
        task.imitation(student, [torch.zeros(1, 2)], 1.0)


def test_the_loss_of_a_batch():
    truths = (truth((LARGE, 1)), truth())
    right, wrong = ([[(LARGE_SEEN, label, 0.99)], []] for label in (1, 0))
    losses = [Detection().loss(outputs(said), batch(*truths), Recipe()) for said in (right, wrong)]
    assert losses[0].isfinite() and losses[0] < losses[1]


def test_faster_rcnn_learns_and_is_measured():
    """Its loss is the sum of its four, and a meter takes what it finds."""
    spec = with_faster_rcnn(model_spec("mobilenet_v3_small", width=0.35), 2, size=64)
    torch.manual_seed(0)
    model, there = build(spec), batch(truth((LARGE, 1)), truth((SMALL, 0)))
    x_BCHW = torch.randn(2, 3, SIDE, SIDE)
    learning = model(x_BCHW, there.boxes)
    loss = Detection().loss(learning, there, Recipe())
    assert loss.item() == pytest.approx(sum(value.item() for value in region_losses(learning).values()))
    with torch.inference_mode():
        meter = Detection().meter()
        meter.update(model.eval()(x_BCHW), there)
    assert 0 <= meter.compute()["map"] < 1


def test_a_teacher_that_knows_the_classes_in_another_order():
    spec = with_ssd(model_spec("mobilenet_v3_small", width=0.35), ("cat", "dog"), size=64)
    torch.manual_seed(0)
    model, there = build(spec).eval(), batch(truth((LARGE, 1)), truth((SMALL, 0)))
    for name, parameter in model.head.named_parameters():
        if name.startswith("classes.") and name.endswith(".bias"):
            torch.nn.init.normal_(parameter)  # it prefers some classes
    task = Distillation(Detection(), (make_teacher(model, ("dog", "cat"), "cpu"),))
    with torch.no_grad():
        outputs = model(Normalize(spec.preprocessing)(there.images))
        swapped = replace(outputs, logits=outputs.logits[:, :, [0, 2, 1]])
        losses = [task.loss(said, there, Recipe()).item() for said in (swapped, outputs)]
    assert losses[0] == pytest.approx(0, abs=1e-5) and losses[1] > 1e-3
