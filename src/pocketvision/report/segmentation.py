"""How a report shows a segmenter's accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data.check import noun
from ..data.image import read_image
from ..data.masks import read_mask
from ..errors import DataError
from ..tasks.segmentation import confusion, enlarged, ious
from ..training.evaluate_segmentation import Labelled, SegmentationResult
from . import markdown
from .content import BuildReport, percent
from .drawing import side_by_side
from .html import Html, data_uri, html, join, picture, table, tag
from .masks import chips, tinted
from .plots import DARK, LIGHT, confusion_plot

SHOWN = 12  # images at most
SIDE = 480  # pixels of the longer side of each of the three pictures of an image
TINT = 0.7  # how strong the colours are
PAIRS = 10
WORST = 3  # classes of an image that are named
RARE = 0.001  # share of the pixels
NAMES = {"miou": ("mean_iou", "mean IoU"), "pixel_accuracy": ("accuracy", "pixel accuracy")}


@dataclass(frozen=True, slots=True)
class SegmentationView:
    """The segmenter's part of the page and of the card; see ``views.View``."""

    report: BuildReport
    result: SegmentationResult
    kind: str = "image segmenter"

    @property
    def headline(self) -> tuple[str, str]:
        """The mean IoU, and what it is."""
        metrics = self.result.metrics
        right = percent(metrics.get("pixel_accuracy"))
        return percent(metrics.get("miou")), f"mean IoU of the classes; {right} of the pixels right, {self._images}"

    @property
    def _images(self) -> str:
        return f"{self.result.n:,} {noun(self.result.n, 'image')}"

    def accuracy(self) -> Html:
        """Each class, and what is taken for what."""
        names = chips(self.result.classes)

        def bar(share: float | None) -> Html:
            return join([percent(share), Html(f'<span class="bar"><i style="width:{share or 0:.1%}"></i></span>')], " ")

        ranked = sorted(enumerate(self.result.table()), key=lambda line: (line[1]["iou"] is None, line[1]["iou"]))
        rows = [
            (i, names[i], bar(row["iou"]), *(percent(row[key]) for key in ("recall", "precision", "share")))
            for i, row in ranked
        ]
        pairs = [
            (true, taken, percent(of_true), percent(of_wrong)) for true, taken, of_true, of_wrong in self.confusions()
        ]
        meaning = (
            "IoU: of the pixels that have the class or are given it, how many are both. Recall: how many of its pixels "
            "are found. Precision: how many of the pixels given its name have it. Share: of all pixels that count."
        )
        return join(
            [
                tag("p", f"Measured on: {self.report.measured_on}, in pixels of the masks' own size."),
                tag("h3", "Each class, the hardest first"),
                tag("p", meaning),
                table(["no.", "class", "IoU", "recall", "precision", "share"], rows, "rlrrrr"),
                tag("h3", "What is taken for what"),
                self._confusion(),
                table(["true class", "taken for", "of its pixels", "of all wrong pixels"], pairs, "llrr")
                if pairs
                else Html(),
            ]
        )

    def confusions(self) -> list[tuple[str, str, float, float]]:
        """Where most wrong pixels are: (true class, found class, share of the true class, share of all wrong ones)."""
        wrong = self.result.confusion.copy()
        np.fill_diagonal(wrong, 0)
        worst = [divmod(int(cell), len(wrong)) for cell in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]]
        names, totals, every = self.result.classes, self.result.confusion.sum(1), max(1, int(wrong.sum()))
        return [
            (names[row], names[column], float(wrong[row, column] / totals[row]), float(wrong[row, column] / every))
            for row, column in worst
            if wrong[row, column]
        ]

    def _confusion(self) -> Html:
        confusion = self.result.confusion
        percents = np.round(100 * confusion / confusion.sum(1, keepdims=True).clip(1)).astype(np.int64)
        light, dark = (confusion_plot(percents, self.result.classes, theme) for theme in (LIGHT, DARK))
        caption = (
            "Rows: true class. Columns: found. In percent of the true class's pixels; below half a percent a cell is "
            "empty. Blue: right, orange: wrong."
        )
        image = picture(light, dark, "Confusion matrix")
        return tag("figure", tag("div", image, class_="scroll"), tag("figcaption", caption))

    def mistakes(self) -> Html:
        """The images with the lowest IoU: image, truth and what was found."""
        shown = self.result.worst[:SHOWN]
        if not shown:
            return Html()
        text = (
            f"The {len(shown)} of {self.result.n} images with the lowest mean IoU of their own. Look for wrong masks "
            "first. Pale in the truth: pixels that do not count."
        )
        legend = tag("ul", *(tag("li", chip) for chip in chips(self.result.classes)), class_="legend")
        figures = (_figure(one, self.result.classes) for one in shown)
        return join([tag("p", text), legend, tag("div", *figures, class_="misses")])

    def front_matter(self) -> dict[str, Any]:
        """Names that model hubs know."""
        metrics = [
            {"type": kind, "value": round(self.result.metrics[key], 4), "name": name}
            for key, (kind, name) in NAMES.items()
            if key in self.result.metrics
        ]
        return {"task": "image-segmentation", "dataset": "image-segmentation", "metrics": metrics}

    def results(self) -> str:
        """The two figures."""
        figures = [f"{name} {percent(self.result.metrics[key])}" for key, (_, name) in NAMES.items()
                   if key in self.result.metrics]  # fmt: skip
        return f"{', '.join(figures)} on {self._images}: {markdown.text(self.report.measured_on)}."

    def classes(self) -> str:
        """IoU of each."""
        rows = [
            (i, row["class"], *(percent(row[key]) for key in ("iou", "recall", "precision", "share")))
            for i, row in enumerate(self.result.table())
        ]
        return markdown.table(["no.", "class", "IoU", "recall", "precision", "share of pixels"], rows, "rlrrrr")

    def limits(self) -> str:
        """What it was not measured on."""
        rare = sum(row["share"] < RARE for row in self.result.table())
        unsure = f" {rare} of the classes have fewer than {RARE:.1%} of the pixels to judge by." if rare else ""
        return (
            "It gives every pixel of any image one of these classes. The whole image is squeezed into "
            f"{self.report.spec.preprocessing.size} × {self.report.spec.preprocessing.size} pixels, so that things "
            "which are thin in it are lost and borders are no finer. The accuracy holds for photos like those it "
            f"was measured on, and the latency for the machine above.{unsure}"
        )


def _figure(one: Labelled, classes: Sequence[str]) -> Html:
    """An image, its truth and what was found."""
    file = tag("span", Path(one.image).name, class_="file", title=one.image)
    try:
        pixels, truth = read_image(one.image), read_mask(one.mask)
    except DataError as error:
        words = tag("p", f"This image cannot be shown: {error}", class_="quiet")
        return tag("figure", words, tag("figcaption", f"mean IoU {percent(one.iou)}", file))
    caption = tag("figcaption", _words(one, truth, classes), file)
    uri = data_uri(_jpeg(pixels, truth, one.found, classes), "jpeg")
    alt = html(f"{Path(one.image).name}: the image, what is in it, and what was found")
    return tag("figure", Html(f'<img loading="lazy" alt="{alt}" src="{uri}">'), caption)


def _jpeg(pixels: np.ndarray, truth: np.ndarray, found: np.ndarray, classes: Sequence[str]) -> bytes:
    photo = Image.fromarray(pixels)
    photo = photo.resize([max(1, round(side * SIDE / max(photo.size))) for side in photo.size])
    grey = photo.convert("L").convert("RGB")  # so that all colours are classes
    pictures = (photo, *(tinted(grey, mask, classes, TINT) for mask in (enlarged(truth, photo.size), found)))
    buffer = BytesIO()
    joined = side_by_side([np.asarray(one) for one in pictures], ("image", "what is in it", "found"))
    Image.fromarray(joined).save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def _words(one: Labelled, truth: np.ndarray, classes: Sequence[str]) -> str:
    """As in: mean IoU 41.2%; lowest: fence (0.0%), pole (12.5%), car (33.1%)."""
    height, width = truth.shape
    full = torch.from_numpy(enlarged(one.found, (width, height)))
    iou = ious(confusion(torch.from_numpy(truth), full, len(classes)).numpy())
    worst = [index for index in np.argsort(iou)[:WORST] if iou[index] < 1]  # classes that are not there come last
    named = ", ".join(f"{classes[index]} ({percent(float(iou[index]))})" for index in worst)
    return f"mean IoU {percent(one.iou)}; lowest: {named}"
