"""The losses of SSD against torchvision's and against counting by hand."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from pocketvision.data.loader import Truth
from pocketvision.nn.heads.ssd import SSDOutputs
from pocketvision.spec.heads import SSDHead, Tap
from pocketvision.tasks.ssd_loss import box_coder, match, ssd_loss

HEAD = SSDHead(classes=3, taps=(Tap(1),), anchors=(((0.25, 0.25),),), extras=())


def grid() -> Tensor:
    """Boxes of 40 x 40 pixels, every 20 pixels in 100 x 100."""
    places = [(x, y) for y in (0, 20, 40, 60) for x in (0, 20, 40, 60)]
    return torch.tensor([[x, y, x + 40, y + 40] for x, y in places], dtype=torch.float32)


def truth(boxes: list[list[float]], labels: list[int], ignored: list[bool] | None = None) -> Truth:
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Truth(
        corners,
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(ignored or [False] * len(labels), dtype=torch.bool),
    )


def outputs(images: int, head: SSDHead = HEAD, seed: int = 0) -> SSDOutputs:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, 16, 1 + head.classes, generator=generator).requires_grad_()
    codes = torch.randn(images, 16, 4, generator=generator).requires_grad_()
    return SSDOutputs(logits, codes, grid(), (100, 100), head)


TWO = truth([[2, 1, 44, 38], [55, 50, 99, 100]], [2, 0])
THREE = truth([[20, 20, 60, 60], [0, 0, 9, 9], [70, 5, 80, 60]], [1, 1, 2])


def torchvisions(predicted: SSDOutputs, truths: list[Truth]) -> Tensor:
    """The loss of torchvision's SSD class for the same predictions."""
    model = SSD(nn.Identity(), DefaultBoxGenerator([[2]]), (100, 100), 4, head=nn.Identity())
    anchors = [predicted.anchors] * len(truths)
    matched = [model.proposal_matcher(box_iou(t.boxes, predicted.anchors)) for t in truths]
    said: dict[str, Any] = {"bbox_regression": predicted.codes, "cls_logits": predicted.logits}
    targets = [{"boxes": t.boxes, "labels": t.labels + 1} for t in truths]
    losses = model.compute_loss(targets, said, anchors, matched)
    return losses["bbox_regression"] + losses["classification"]


def test_the_loss_and_its_gradient_are_torchvisions():
    predicted = outputs(2)
    loss = ssd_loss(predicted, (TWO, THREE))
    expected = torchvisions(predicted, [TWO, THREE])
    torch.testing.assert_close(loss, expected)
    inputs = (predicted.logits, predicted.codes)
    for ours, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_each_box_has_an_anchor_however_small_it_is():
    classes = match(grid(), (THREE,)).classes[0]
    assert box_iou(THREE.boxes, grid()).amax(1)[1] < 0.1
    assert classes[0] == 2  # the first anchor, in whose corner the small box lies
    assert set(classes.tolist()) == {0, 2, 3}


def test_what_lies_in_an_ignored_box_is_neither_positive_nor_negative():
    crowd = truth([[0, 0, 60, 60], [60, 60, 100, 100]], [1, 0], [True, False])
    classes = match(grid(), (crowd,)).classes[0]
    assert classes.tolist() == [-1, -1, -1, 0, -1, -1, -1, 0, -1, -1, 0, 0, 0, 0, 0, 1]
    predicted = outputs(1)
    gradient = torch.autograd.grad(ssd_loss(predicted, (crowd,)), predicted.logits)[0][0]
    assert not gradient[classes == -1].any()
    assert gradient[classes == 1].all()


def test_a_box_that_counts_is_found_even_within_an_ignored_one():
    both = truth([[0, 0, 100, 100], [0, 0, 40, 40]], [0, 1], [True, False])
    assert match(grid(), (both,)).classes[0].tolist() == [2] + [-1] * 15


def test_an_image_without_boxes_teaches_background():
    predicted = outputs(1)
    loss = ssd_loss(predicted, (truth([], []),))
    surprise = -predicted.logits[0].log_softmax(1)[:, 0]
    torch.testing.assert_close(loss, surprise.topk(3).values.sum())
    loss.backward()
    assert not predicted.codes.grad.any()


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_of_no_images_all_losses_are_0(scores):
    head = SSDHead(classes=3, taps=HEAD.taps, anchors=HEAD.anchors, extras=(), scores=scores)
    predicted = outputs(0, head)
    loss = ssd_loss(predicted, ())
    loss.backward()
    assert loss.item() == 0
    assert predicted.logits.grad is not None and predicted.codes.grad is not None


def test_focal_loss_of_a_sigmoid_head():
    head = SSDHead(classes=3, taps=HEAD.taps, anchors=HEAD.anchors, extras=(), scores="sigmoid")
    predicted, crowd = outputs(1, head), truth([[0, 0, 40, 40], [60, 0, 100, 40]], [1, 0], [False, True])
    classes = match(grid(), (crowd,)).classes[0]
    expected = torch.zeros(())
    for anchor, wanted in enumerate(classes.tolist()):
        for label in range(3 if wanted >= 0 else 0):
            p = predicted.logits[0, anchor, 1 + label].sigmoid()
            right, weight = (p, 0.25) if wanted == 1 + label else (1 - p, 0.75)
            expected = expected - weight * (1 - right) ** 2 * right.log()
    positive = classes > 0
    wanted = box_coder(head).encode_single(crowd.boxes[:1].expand(int(positive.sum()), 4), grid()[positive])
    expected = expected + F.smooth_l1_loss(predicted.codes[0, positive], wanted, reduction="sum")
    torch.testing.assert_close(ssd_loss(predicted, (crowd,)), expected / positive.sum())


def test_right_predictions_have_no_loss():
    targets = match(grid(), (TWO,))
    logits = 30 * F.one_hot(targets.classes, 4).float()
    codes = box_coder(HEAD).encode_single(targets.boxes[0], grid())[None]
    predicted = SSDOutputs(logits, codes, grid(), (100, 100), HEAD)
    assert ssd_loss(predicted, (TWO,)).item() == pytest.approx(0, abs=1e-5)
    away = SSDOutputs(logits, codes + 0.5, grid(), (100, 100), HEAD)
    assert ssd_loss(away, (TWO,)).item() > 0.05


def test_bfloat16_outputs_have_a_float32_loss():
    predicted = outputs(1)
    coarse = SSDOutputs(predicted.logits.bfloat16(), predicted.codes.bfloat16(), grid(), (100, 100), HEAD)
    loss = ssd_loss(coarse, (TWO,))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(ssd_loss(predicted, (TWO,)).item(), rel=0.05)
