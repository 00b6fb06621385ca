"""Recipes for small data: one function per way to train, each returning a ``Recipe``."""

from ..data.transforms import Augment
from .recipe import Recipe


def finetune(images: int, classes: int) -> Recipe:
    """From ImageNet weights to some hundred or thousand photos of other classes."""
    return Recipe(
        epochs=_epochs(images, 25_000, 5, 40),
        optimizer="adamw",
        lr=5e-4,
        head_lr=5.0,
        warmup_epochs=1,
        weight_decay=0.05,
        bn_momentum=0.1,
        ema=0.98,
        augment=Augment(scale=(0.35, 1.0)),
        train_scale=5 / 6,
    )


def scratch(images: int, classes: int) -> Recipe:
    """Small images without pretrained weights."""
    return Recipe(
        epochs=_epochs(images, 40_000, 10, 100),
        lr=0.05,
        weight_decay=5e-4,
        bn_momentum=0.1,
        ema=0.99,
        augment=Augment(scale=(0.6, 1.0), flip=0.0),
    )


def _epochs(images: int, samples: int, least: int, most: int) -> int:
    """Epochs in which about ``samples`` images are seen, within bounds."""
    return min(most, max(least, round(samples / images)))
