"""Pixels counted one by one, void ones not at all; losses, teachers, and meters of several processes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketvision.data.loader import Batch
from pocketvision.data.masks import VOID
from pocketvision.data.sources import Item
from pocketvision.nn.heads.masks import MaskOutputs
from pocketvision.tasks.named import task_named
from pocketvision.tasks.segmentation import Segmentation, SegmentationMeter, enlarged
from pocketvision.training.recipe import Recipe

CLASSES = 4
PLAIN = replace(Recipe(), label_smoothing=0.0)


def outputs(found: np.ndarray, aux: bool = False) -> MaskOutputs:
    """What says the class indices [B, H, W]."""
    logits = 5 * F.one_hot(torch.from_numpy(found).long(), CLASSES).permute(0, 3, 1, 2).float()
    return MaskOutputs(logits.requires_grad_(), logits.detach().flip(1).requires_grad_() if aux else None)


def batch(*masks: np.ndarray) -> Batch:
    items = tuple(Item(f"{number}.png", -1) for number in range(len(masks)))
    images = torch.zeros(len(masks), 3, 8, 8, dtype=torch.uint8)
    return Batch(images, torch.full((len(masks),), -1), items, masks=tuple(map(torch.from_numpy, masks)))


def some(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Class indices, the last class nowhere and a fifth of the pixels void."""
    labels = rng.integers(0, CLASSES - 1, shape).astype(np.uint8)
    return np.where(rng.random(shape) < 0.2, np.uint8(VOID), labels)


def counted(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The metrics by plain sets of pixels."""
    truth = np.concatenate([t.ravel() for t, _ in pairs])
    found = np.concatenate([f.ravel() for _, f in pairs])[truth != VOID]
    truth = truth[truth != VOID]
    ious = []
    for label in range(CLASSES):
        either = ((truth == label) | (found == label)).sum()
        if either:
            ious.append(((truth == label) & (found == label)).sum() / either)
    return {"miou": float(np.mean(ious)), "pixel_accuracy": float((truth == found).mean())}


def test_metrics_are_those_of_a_plain_count():
    """Masks of the input's size, larger and smaller ones, and one that is all void."""
    rng = np.random.default_rng(0)
    found = rng.integers(0, CLASSES - 1, (4, 8, 8)).astype(np.uint8)
    masks = [some(rng, 8, 8), some(rng, 24, 16), some(rng, 5, 11), np.full((8, 8), VOID, np.uint8)]
    meter = task_named("segment").meter()
    meter.update(outputs(found[:2]), batch(*masks[:2]))
    meter.update(outputs(found[2:]), batch(*masks[2:]))
    full = [enlarged(one, (mask.shape[1], mask.shape[0])) for one, mask in zip(found, masks, strict=True)]
    metrics = meter.compute()
    assert metrics == pytest.approx(counted(list(zip(masks, full, strict=True))))
    assert next(iter(metrics)) == Segmentation().metric


def test_a_class_that_is_only_found_counts_as_0_and_one_that_is_neither_not_at_all():
    mask = np.zeros((1, 4), np.uint8)
    meter = SegmentationMeter()
    meter.update(outputs(np.array([[[0, 0, 0, 3]]])), batch(mask))
    assert meter.compute() == pytest.approx({"miou": (3 / 4 + 0) / 2, "pixel_accuracy": 3 / 4})


@pytest.mark.parametrize(("side", "to"), [(4, 8), (8, 4), (5, 13), (13, 5), (7, 7), (1, 6), (416, 360)])
def test_enlarged_takes_the_pixel_below_each_centre(side: int, to: int):
    found = np.arange(side, dtype=np.uint16)[None]
    exact = F.interpolate(torch.arange(side)[None, None, None].double(), (1, to), mode="nearest-exact")
    assert enlarged(found, (to, 1)).tolist() == exact[0, 0].long().tolist()


def test_meters_of_several_processes_make_up_one():
    rng = np.random.default_rng(1)
    found, masks = rng.integers(0, CLASSES, (3, 8, 8)), [some(rng, 8, 8) for _ in range(3)]
    whole, parts = SegmentationMeter(), [SegmentationMeter() for _ in range(3)]  # the second has no images
    whole.update(outputs(found), batch(*masks))
    parts[0].update(outputs(found[:1]), batch(*masks[:1]))
    parts[2].update(outputs(found[1:]), batch(*masks[1:]))
    packed = [part.matrix.flatten() for part in parts]
    for part in parts:
        part.merge(lambda _: packed)
        assert part.compute() == whole.compute() != {}
    nothing = SegmentationMeter()
    nothing.merge(lambda _: [torch.zeros(0, dtype=torch.int64)] * 2)
    assert nothing.compute() == {}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_pixels_that_are_not_void(smoothing: float):
    rng, options = np.random.default_rng(2), replace(PLAIN, label_smoothing=smoothing)
    masks = [some(rng, 8, 8), some(rng, 8, 8)]
    said = outputs(rng.integers(0, CLASSES, (2, 8, 8)), aux=True)
    assert said.aux is not None
    losses = list[torch.Tensor]()
    for logits in (said.logits, said.aux):
        log, pixels = F.log_softmax(logits, 1), []
        for image, y, x in np.ndindex(2, 8, 8):
            if (label := int(masks[image][y, x])) != VOID:
                pixels.append((smoothing - 1) * log[image, label, y, x] - smoothing * log[image, :, y, x].mean())
        losses.append(torch.stack(pixels).mean())
    loss = Segmentation().loss
    assert loss(MaskOutputs(said.logits), batch(*masks), options).item() == pytest.approx(losses[0].item(), rel=1e-5)
    with_aux = losses[0].item() + losses[1].item() / 2
    assert loss(said, batch(*masks), options).item() == pytest.approx(with_aux, rel=1e-5)


def test_void_alone_and_no_images_are_a_loss_of_0_that_depends_on_the_outputs():
    void = np.full((8, 8), VOID, np.uint8)
    for there, found in ((batch(void), np.zeros((1, 8, 8), int)), (batch(), np.zeros((0, 8, 8), int))):
        said = outputs(found, aux=True)
        loss = Segmentation().loss(said, there, PLAIN)
        loss.backward()
        assert loss.item() == 0
        assert said.aux is not None
        for logits in (said.logits, said.aux):
            assert logits.grad is not None and not logits.grad.any()


def test_imitation_is_0_where_they_agree_and_pulls_towards_the_teachers():
    rng, task = np.random.default_rng(3), Segmentation()
    teacher = outputs(rng.integers(0, CLASSES, (2, 8, 8)))
    assert task.imitation(teacher, [teacher, teacher], 2.0).item() == pytest.approx(0, abs=1e-6)
    student = outputs(rng.integers(0, CLASSES, (2, 8, 8)), aux=True)
    before = task.imitation(student, [teacher], 1.0)
    without_aux = task.imitation(MaskOutputs(student.logits), [teacher], 1.0)
    p, q = teacher.logits.softmax(1), student.logits.softmax(1)
    assert without_aux.item() == pytest.approx((p * (p / q).log()).sum(1).mean().item(), rel=1e-5)
    before.backward()
    assert student.aux is not None and student.logits.grad is not None and student.aux.grad is not None
    nearer = MaskOutputs(student.logits - student.logits.grad, student.aux - student.aux.grad)
    assert without_aux.item() < task.imitation(nearer, [teacher], 1.0).item() < before.item()
