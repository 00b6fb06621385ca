"""Recipes: one function per way to train, each returning a ``Recipe``.

``finetune`` and ``scratch`` are ours, for some hundred to some thousand images of one's own; the others are those of
the papers and of TorchVision, for ImageNet, COCO and VOC. Their learning rates belong to their batch sizes.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from ..data.transforms import Augment
from ..spec.heads import TaskName
from .recipe import Recipe

_COCO_IMAGES, _VOC_IMAGES = 118_287, 10_582  # VOC's with the extra annotations of SBD


def finetune(images: int, classes: int) -> Recipe:
    """From ImageNet weights to some hundred or thousand photos of other classes.

    AdamW (arXiv:1711.05101) with a head that learns five times as fast as what is pretrained, TrivialAugment
    (arXiv:2103.10158), label smoothing (arXiv:1512.00567 §7), averaged weights (S3 §4, FACTS T13), training images
    smaller than evaluated ones (arXiv:1906.06423). EfficientNet-Lite0 at 192 pixels on 1,969 photos of clothes: 93%
    after 9 epochs, where the same without TrivialAugment reached 90.6% at 224 (docs/LOG.md).
    """
    return Recipe(
        epochs=_epochs(images, 24_000, 5, 40),
        optimizer="adamw",
        lr=5e-4,
        head_lr=5.0,
        warmup_epochs=1,
        weight_decay=0.05,
        bn_momentum=0.1,
        ema=0.99,
        augment=Augment(scale=(0.35, 1.0), policy="trivialaugment"),
        train_scale=5 / 6,
    )


def scratch(images: int, classes: int) -> Recipe:
    """Small images without pretrained weights: SGD as S3 §4 has it, crops of at least 60% of the area, no mirroring.

    scikit-learn's 1,438 digits at 64 pixels with MobileNetV3-Small: 99.2% in 28 epochs, about a minute on one core.
    """
    return Recipe(
        epochs=_epochs(images, 40_000, 10, 100),
        lr=0.05,
        weight_decay=5e-4,
        bn_momentum=0.1,
        ema=0.99,
        augment=Augment(scale=(0.6, 1.0), flip=0.0),
    )


def finetune_detector(images: int, classes: int) -> Recipe:
    """From ImageNet weights to boxes in some hundred or thousand images.

    AdamW with a head that learns twice as fast, the stages up to output stride 4 frozen (a third less time for a
    step), averaged weights, gradients of at most 10; SSD's zoom-out, crops and colours (arXiv:1512.02325 §2.2, §3.6).
    In 205 images of blood cells the rarest and smallest are found last; they gained most from more epochs and from a
    learning rate of 3e-3 instead of 1e-3.
    """
    return Recipe(
        epochs=_epochs(images, 10_000, 12, 60),
        batch=16,
        optimizer="adamw",
        lr=3e-3,
        head_lr=2.0,
        freeze=2,
        warmup_epochs=1,
        weight_decay=0.02,
        bn_momentum=0.1,
        ema=0.99,
        clip_norm=10.0,
        label_smoothing=0.0,
        augment=Augment(zoom_out=0.3, iou_crop=0.8, distort=1.0),
    )


def scratch_detector(images: int, classes: int) -> Recipe:
    """Boxes without pretrained weights: the same with nothing frozen, for three times as long, and no mirroring."""
    tuned = finetune_detector(images, classes)
    augment = replace(tuned.augment, flip=0.0)
    return replace(tuned, freeze=0, head_lr=1.0, epochs=_epochs(images, 30_000, 12, 150), augment=augment)


def finetune_segmentation(images: int, classes: int) -> Recipe:
    """From ImageNet weights to masks of some hundred to some thousand images.

    AdamW with a head that learns ten times as fast as what is pretrained (S3 §F, FACTS T22), polynomial decay
    (arXiv:1706.05587 §4), averaged weights; images enlarged by 0.5 to 2, cropped, mirrored, and SSD's colours.
    """
    return Recipe(
        epochs=_epochs(images, 18_000, 12, 80),
        batch=8,
        optimizer="adamw",
        lr=5e-4,
        head_lr=10.0,
        schedule="polynomial",
        warmup_epochs=1,
        weight_decay=0.01,
        bn_momentum=0.1,
        ema=0.99,
        clip_norm=10.0,
        label_smoothing=0.0,
        augment=Augment(zoom=(0.5, 2.0), distort=0.5),
    )


def scratch_segmentation(images: int, classes: int) -> Recipe:
    """Masks without pretrained weights: one learning rate for all, twice as long, and no mirroring."""
    tuned = finetune_segmentation(images, classes)
    augment = replace(tuned.augment, flip=0.0)
    return replace(tuned, lr=3e-3, head_lr=1.0, epochs=_epochs(images, 36_000, 12, 160), augment=augment)


def mobilenet_v2() -> Recipe:
    """MobileNetV2 on ImageNet (S4 §6.1, FACTS T1): 72.0% with 16 asynchronous workers of batch 96 each.

    The paper gives no number of epochs and no augmentation: 300 is TorchVision's port, crops and colours are
    Inception's (arXiv:1409.4842 §6), which the MobileNet papers name elsewhere. RMSProp's epsilon is not given either.
    """
    return Recipe(
        epochs=300,
        batch=96,
        optimizer="rmsprop_tf",
        lr=0.045,
        weight_decay=4e-5,
        schedule="exponential",
        warmup_epochs=0,
        decay=0.98,
        label_smoothing=0.0,
        augment=Augment(jitter=0.4),
    )


def mobilenet_v3() -> Recipe:
    """MobileNetV3 on ImageNet (S1 §6.1.1, FACTS T2, C-10, C-11): Large 75.2%, Small 67.4% on a 4x4 TPU pod.

    "Decay rate of 0.01 every 3 epochs" is read as times 0.99, a dropout of 0.8 as what is kept. The number of epochs is
    TorchVision's; the paper gives none, and no warm-up: TensorFlow's RMSProp starts its mean square at 1, which is one.
    """
    return Recipe(
        epochs=600,
        batch=4096,
        optimizer="rmsprop_tf",
        lr=0.1,
        weight_decay=1e-5,
        schedule="exponential",
        warmup_epochs=0,
        decay=0.99,
        decay_epochs=3,
        label_smoothing=0.0,
        dropout=0.2,
        ema=0.9999,
        bn_momentum=0.01,
        augment=Augment(jitter=0.4),
    )


def torchvision_v3() -> Recipe:
    """TorchVision's MobileNetV3 (S0, FACTS T3 to T8): Large 74.042%, Small 67.668% on 8 GPUs of batch 128.

    PyTorch's RMSProp with the root of TensorFlow's epsilon, AutoAugment, then RandomErasing, and at the end the mean
    of the three last record epochs; weight decay on all parameters, as its script does by default. S0's last rung
    (label smoothing, stochastic depth, noise; 75.536%) is not in the recipe that was published:
    ``replace(..., label_smoothing=0.1, drop_path=0.2, lr_noise=0.67)`` comes near, its values are not given.
    """
    return Recipe(
        epochs=600,
        batch=1024,
        optimizer="rmsprop",
        lr=0.064,
        weight_decay=1e-5,
        decay_norms=True,
        schedule="exponential",
        warmup_epochs=0,
        decay=0.973,
        decay_epochs=2,
        label_smoothing=0.0,
        dropout=0.2,
        average_best=3,
        augment=Augment(policy="autoaugment", erase=0.2),
    )


def mobileone(variant: Literal["small", "large"] = "small") -> Recipe:
    """MobileOne on ImageNet (S3 §4, §C, Tab. 15, FACTS T13, T14): S0 71.4% to S4 79.4% on 8 GPUs, batch 256 in all.

    SGD, cosine learning rate, weight decay annealed on the same cosine, images that grow from 160 to 224 pixels.
    "large" (S2 to S4) adds AutoAugment whose strength grows as well. There is no warm-up in the paper.
    """
    return Recipe(
        epochs=300,
        batch=256,
        lr=0.1,
        nesterov=False,
        weight_decay=1e-4,
        final_weight_decay=1e-5,
        warmup_epochs=0,
        ema=0.9995,
        progressive=((0.0, 160 / 224, 0.3), (39 / 300, 192 / 224, 0.6), (114 / 300, 1.0, 1.0)),
        augment=Augment(policy="autoaugment" if variant == "large" else "none"),
    )


def mobileone_large() -> Recipe:
    """``mobileone("large")``: S2, S3 and S4."""
    return mobileone("large")


def mobileone_ssdlite() -> Recipe:
    """SSDLite on COCO at 320 pixels (S3 §E, FACTS T21): SGD, cosine, 4,500 steps of warm-up, 8 GPUs.

    The paper names no augmentation; it trained with MMDetection, whose SSDLite has SSD's (arXiv:1512.02325 §2.2, §3.6).
    """
    warmup = 4500 / (_COCO_IMAGES / 192)
    return Recipe(
        epochs=200,
        batch=192,
        lr=0.05,
        nesterov=False,
        warmup_epochs=warmup,
        weight_decay=1e-4,
        label_smoothing=0.0,
        augment=Augment(zoom_out=0.5, iou_crop=1.0, distort=1.0),
    )


def torchvision_ssdlite() -> Recipe:
    """TorchVision's SSDLite320-MobileNetV3-Large on COCO (FACTS T23): 8 GPUs of batch 24, IoU crops and mirroring."""
    return Recipe(
        epochs=660,
        batch=8 * 24,
        lr=0.15,
        nesterov=False,
        warmup_epochs=0,
        weight_decay=4e-5,
        decay_norms=True,
        label_smoothing=0.0,
        augment=Augment(iou_crop=1.0),
    )


def torchvision_faster_rcnn() -> Recipe:
    """TorchVision's Faster R-CNN on COCO (FACTS T23): lr / 10 after 16 and 22 of 26 epochs, 8 GPUs of batch 2.

    Learning rate, batch and weight decay are the defaults of its script; it warms up over the first 1,000 steps.
    Pretrained BatchNorms stay as they are, and the last three parts of the backbone train (FACTS H14): TorchVision cuts
    MobileNetV3 before its first block of output stride 16, so ours freezes the three stages up to stride 8.
    """
    return Recipe(
        epochs=26,
        freeze=3,
        frozen_bn=True,
        batch=16,
        lr=0.02,
        nesterov=False,
        weight_decay=1e-4,
        schedule="milestones",
        milestones=(16, 22),
        decay=0.1,
        warmup_epochs=1000 / (_COCO_IMAGES / 16),
        decay_norms=True,
        label_smoothing=0.0,
    )


def mobileone_segmentation() -> Recipe:
    """DeepLabV3 on VOC and ADE20k (S3 §F, FACTS T22): AdamW, cosine from 1e-4 to 1e-6, a head 10 times as fast.

    500 steps of warm-up, here of VOC's 10,582 augmented training images at batch 32; the paper names no batch, and of
    "random resize, crop, flip" no numbers: 0.5 to 2 are DeepLab's (arXiv:1706.05587 §4).
    """
    return Recipe(
        epochs=50,
        batch=32,
        optimizer="adamw",
        lr=1e-4,
        final_lr=0.01,
        head_lr=10.0,
        weight_decay=0.01,
        warmup_epochs=500 / (_VOC_IMAGES / 32),
        ema=0.9995,
        label_smoothing=0.0,
        augment=Augment(zoom=(0.5, 2.0)),
    )


def torchvision_segmentation() -> Recipe:
    """TorchVision's LR-ASPP and DeepLabV3 with MobileNetV3 (FACTS T23): polynomial decay, 8 GPUs of batch 4.

    The learning rate is the default of its script; its README sets another for the ResNets only. Crops of 480
    pixels are cut from images of 260 to 1040, for an input of 520. Its auxiliary head has ten
    times the learning rate, ours has not.
    """
    return Recipe(
        epochs=30,
        batch=32,
        lr=0.01,
        nesterov=False,
        weight_decay=1e-6,
        decay_norms=True,
        schedule="polynomial",
        warmup_epochs=0,
        label_smoothing=0.0,
        augment=Augment(zoom=(260 / 480, 1040 / 480)),
        train_scale=480 / 520,
    )


def deeplabv3() -> Recipe:
    """DeepLabV3 on VOC (arXiv:1706.05587 §4): SGD, 0.007 falling as (1 - progress)^0.9 over 30,000 steps of batch 16.

    S1 §6.4 says that it trains like this paper and S4, from random weights (FACTS H24); S4 §6.3 gives no numbers. The
    momentum is the usual one and the weight decay S4's for ImageNet. BatchNorm's momentum, 1 - 0.9997, needs some
    10,000 steps: for a shorter run ``bn_momentum=0.1``.
    """
    return Recipe(
        epochs=round(30_000 * 16 / _VOC_IMAGES),
        batch=16,
        lr=0.007,
        nesterov=False,
        weight_decay=4e-5,
        schedule="polynomial",
        power=0.9,
        warmup_epochs=0,
        label_smoothing=0.0,
        bn_momentum=0.0003,
        augment=Augment(zoom=(0.5, 2.0)),
    )


SMALL_DATA: Mapping[str, Callable[[int, int], Recipe]] = {"finetune": finetune, "scratch": scratch}
PUBLISHED: Mapping[str, Callable[[], Recipe]] = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "torchvision_v3": torchvision_v3,
    "mobileone": mobileone,
    "mobileone_large": mobileone_large,
}

SMALL_DETECTION: Mapping[str, Callable[[int, int], Recipe]] = {
    "finetune": finetune_detector,
    "scratch": scratch_detector,
}
PUBLISHED_DETECTION: Mapping[str, Callable[[], Recipe]] = {
    "mobileone_ssdlite": mobileone_ssdlite,
    "torchvision_ssdlite": torchvision_ssdlite,
    "torchvision_faster_rcnn": torchvision_faster_rcnn,
}

SMALL_SEGMENTATION: Mapping[str, Callable[[int, int], Recipe]] = {
    "finetune": finetune_segmentation,
    "scratch": scratch_segmentation,
}
PUBLISHED_SEGMENTATION: Mapping[str, Callable[[], Recipe]] = {
    "mobileone_segmentation": mobileone_segmentation,
    "torchvision_segmentation": torchvision_segmentation,
    "deeplabv3": deeplabv3,
}
SMALL: Mapping[TaskName, Mapping[str, Callable[[int, int], Recipe]]] = {
    "classify": SMALL_DATA,
    "detect": SMALL_DETECTION,
    "segment": SMALL_SEGMENTATION,
}
OF_PAPERS: Mapping[TaskName, Mapping[str, Callable[[], Recipe]]] = {
    "classify": PUBLISHED,
    "detect": PUBLISHED_DETECTION,
    "segment": PUBLISHED_SEGMENTATION,
}


def _epochs(images: int, samples: int, least: int, most: int) -> int:
    """Epochs in which about ``samples`` images are seen, within bounds."""
    return min(most, max(least, round(samples / images)))
