"""Intersection over union of anything that labels pixels: a torch model, or an exported file in its runtime."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.loader import ImageLoader
from ..data.masks import Mask
from ..data.sources import Item
from ..errors import ConfigurationError, DataError
from ..nn.layers import Normalize
from ..nn.model import Model
from ..spec.model import Preprocessing
from ..tasks.segmentation import confusion, enlarged, ious, scores
from .memory import keep_freed_memory

Label = Callable[[np.ndarray], np.ndarray]
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of S4's multi-scale evaluation (FACTS H26)
WORST = 50  # images with the lowest IoU, kept


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """An image, its mask, and ``found``: the class of every pixel of the network's input, uint8 [S, S]. ``iou``: the
    mean over the classes that are there or found, 0 to 1."""

    image: str
    iou: float
    mask: Mask
    found: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationResult:
    """What an evaluation counted. ``n``: images; ``confusion``: pixels, integers [classes, classes], rows are what is
    there, columns what was found; ``worst``: images by their own IoU, the worst first, perfect ones left out."""

    classes: tuple[str, ...]
    n: int
    confusion: np.ndarray
    worst: tuple[Labelled, ...]

    @property
    def metric(self) -> str:
        """Name of the figure that decides."""
        return "miou"

    @property
    def value(self) -> float:
        """The figure that decides, 0 to 1."""
        return self.metrics.get("miou", 0.0)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the pixels that are right, 0 to 1."""
        return self.metrics.get("pixel_accuracy", 0.0)

    @property
    def metrics(self) -> dict[str, float]:
        """``miou`` and ``pixel_accuracy``, 0 to 1; absent where no pixel counts."""
        return scores(self.confusion)

    def table(self) -> list[dict[str, Any]]:
        """One row per class: ``iou``, ``precision``, ``recall`` (None where there is nothing to divide by), and its
        ``share`` of the pixels that count."""
        right, there, found = np.diag(self.confusion), self.confusion.sum(1), self.confusion.sum(0)
        total, iou = max(1, int(there.sum())), ious(self.confusion)
        return [
            {
                "class": name,
                "iou": None if np.isnan(iou[i]) else float(iou[i]),
                "precision": float(right[i] / found[i]) if found[i] else None,
                "recall": float(right[i] / there[i]) if there[i] else None,
                "share": float(there[i] / total),
            }
            for i, name in enumerate(self.classes)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, without the class maps."""
        worst = [{"file": one.image, "iou": one.iou} for one in self.worst]
        rows = {"classes": self.table(), "confusion": self.confusion.tolist(), "worst": worst}
        return {**self.metrics, "n": self.n, **rows}

    def __str__(self) -> str:
        names = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
        numbers = ", ".join(f"{names[key]} {value:.1%}" for key, value in self.metrics.items())
        width = max(5, *map(len, self.classes))
        lines = [
            f"{numbers or 'no pixel counts'}; {self.n} images",
            f"{'class':{width}}     IoU  precision  recall  pixels",
        ]
        for row in self.table():
            iou, precision, recall = (
                "-" if row[key] is None else f"{row[key]:.1%}" for key in ("iou", "precision", "recall")
            )
            lines.append(f"{row['class']:{width}}  {iou:>6}  {precision:>9}  {recall:>6}  {row['share']:>6.1%}")
        return "\n".join(lines)


def evaluate_segmenter(
    predict: Label,
    items: Sequence[Item],
    preprocessing: Preprocessing,
    classes: Sequence[str],
    *,
    batch: int = 8,
    workers: int = 0,
) -> SegmentationResult:
    """Compare what ``predict`` says of the pixels of ``items``, prepared as ``preprocessing`` says, with their masks.

    ``predict``: uint8 [B, S, S, 3] RGB -> class indices uint8 [B, S, S], which are enlarged by nearest neighbour to
    each mask's own size and judged there. Raises DataError for an image that cannot be read or has no mask and for no
    images, ConfigurationError for class maps of another shape or with classes that are not there.
    """
    if not items:
        raise DataError("there are no images to evaluate on; choose a split that has some")
    for item in items:
        if item.mask is None:
            raise DataError(f"{item.image}: it has no mask; evaluate a network for segmentation on images with masks")
    total, worst = np.zeros((len(classes), len(classes)), np.int64), list[Labelled]()
    for images in ImageLoader(items, preprocessing, batch=batch, workers=workers).epoch():
        pixels_BSS3 = np.ascontiguousarray(images.images.permute(0, 2, 3, 1).numpy())
        found_BSS = np.asarray(predict(pixels_BSS3))
        _check(found_BSS, pixels_BSS3.shape[:3], len(classes))
        for item, truth, found_SS in zip(images.items, images.masks, found_BSS, strict=True):
            assert item.mask is not None
            full = torch.from_numpy(enlarged(found_SS, (truth.shape[1], truth.shape[0])))
            matrix = confusion(truth, full, len(classes)).numpy()
            total += matrix
            iou = scores(matrix).get("miou", 1.0)
            if iou < 1:
                worst.append(Labelled(item.image, iou, item.mask, found_SS.astype(np.uint8)))
        worst = sorted(worst, key=lambda one: (one.iou, one.image))[:WORST]
    return SegmentationResult(tuple(classes), len(items), total, tuple(worst))


def _check(found: np.ndarray, shape: tuple[int, ...], classes: int) -> None:
    if found.shape != shape:
        raise ConfigurationError(f"the model gives class maps of shape {found.shape}, its input asks for {shape}")
    if found.max() >= classes:
        raise ConfigurationError(
            f"the model finds class number {found.max()}, the data has {classes} classes; "
            "evaluate it on the classes that it was trained for"
        )


def torch_segmenter(model: Model, device: str = "cpu") -> Label:
    """``model`` as a function uint8 [B, S, S, 3] -> class indices uint8 [B, S, S], normalising as its spec says.

    Moves the model to ``device`` and channels_last and switches it to eval mode.
    """
    return multi_scale(model, (1.0,), flip=False, device=device)


def multi_scale(model: Model, scales: Sequence[float] = SCALES, *, flip: bool = True, device: str = "cpu") -> Label:
    """The same with the mean of the probabilities that the model gives for an image at several ``scales``, and with
    ``flip`` for its mirror images too (S4 Appendix B, FACTS H26).

    Inputs have ``scales`` times the side S, rounded; logits are enlarged or reduced to S before the softmax.
    """
    if device == "cpu":
        keep_freed_memory()
    normalize = Normalize(model.spec.preprocessing).to(device)
    model.to(device).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(x_B3SS: Tensor, scale: float) -> Tensor:
        side = x_B3SS.shape[2]
        if scale == 1:
            return model(x_B3SS).logits
        scaled = round(scale * side)
        x = F.interpolate(x_B3SS, (scaled, scaled), mode="bilinear", antialias=True)
        x = x.contiguous(memory_format=torch.channels_last)
        return F.interpolate(model(x).logits.float(), (side, side), mode="bilinear")

    @torch.inference_mode()
    def predict(pixels_BSS3: np.ndarray) -> np.ndarray:
        images_B3SS = torch.from_numpy(pixels_BSS3).to(device).permute(0, 3, 1, 2)  # which is channels_last
        x_B3SS = normalize(images_B3SS)
        if len(scales) == 1 and not flip:
            return logits(x_B3SS, scales[0]).argmax(1).to(torch.uint8).cpu().numpy()
        total = torch.zeros(())
        for scale in scales:
            total = total + logits(x_B3SS, scale).softmax(1)
            if flip:
                total = total + logits(x_B3SS.flip(3), scale).softmax(1).flip(3)
        return total.argmax(1).to(torch.uint8).cpu().numpy()

    return predict
