"""The classification loss and metrics against torch and counting by hand."""

import pytest
import torch
import torch.nn.functional as F

from pocketvision.data.loader import Batch
from pocketvision.data.sources import Item
from pocketvision.tasks.classification import Classification
from pocketvision.training.recipe import Recipe


def batch(labels: list[int]) -> Batch:
    images = torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8)
    return Batch(images, torch.tensor(labels), tuple(Item("", label) for label in labels))


def test_label_smoothing_as_the_paper_defines_it():
    logits, labels = torch.randn(6, 4, dtype=torch.float64), [0, 1, 2, 3, 0, 1]
    target = 0.9 * F.one_hot(torch.tensor(labels), 4) + 0.1 / 4
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    loss = Classification().loss(logits, batch(labels), Recipe(label_smoothing=0.1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_loss_of_bfloat16_is_computed_in_float32():
    logits = torch.randn(6, 4).bfloat16()
    loss = Classification().loss(logits, batch([0, 1, 2, 3, 0, 1]), Recipe(label_smoothing=0))
    assert loss.item() == F.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 3, 0, 1])).item()


def test_metrics_over_batches():
    meter = Classification().meter()
    assert meter.compute() == {}
    logits = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    labels = [i % 7 for i in range(40)]
    meter.update(logits[:32], batch(labels[:32]))
    meter.update(logits[32:], batch(labels[32:]))
    order = logits.argsort(1, descending=True).tolist()
    metrics = meter.compute()
    assert metrics["top1"] == sum(ranked[0] == label for ranked, label in zip(order, labels, strict=True)) / 40
    assert metrics["top5"] == sum(label in ranked[:5] for ranked, label in zip(order, labels, strict=True)) / 40
    assert metrics["loss"] == pytest.approx(F.cross_entropy(logits, torch.tensor(labels)).item(), rel=1e-5)


def test_few_classes_have_no_top5():
    meter = Classification().meter()
    meter.update(torch.eye(3), batch([0, 1, 1]))
    assert meter.compute().keys() == {"top1", "loss"}
