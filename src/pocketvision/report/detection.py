"""How a report shows a detector's accuracy."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.check import noun
from ..data.image import read_image
from ..errors import DataError
from ..training.evaluate_detection import DetectionResult, Errors
from . import markdown
from .content import BuildReport, percent
from .drawing import Drawn, draw, side_by_side
from .html import Html, data_uri, html, join, picture, table, tag
from .plots import DARK, LIGHT, axis_labels, precision_recall_plot

MISSES = 12  # images shown at most
SIDE = 480  # pixels of the longer side of each of the two pictures of an image
FEW = 50  # boxes of a class
NAMES = {"map": "mAP", "ap50": "AP50", "ap75": "AP75"}
AREAS = {"map_small": "small", "map_medium": "medium", "map_large": "large"}


@dataclass(frozen=True, slots=True)
class DetectionView:
    """The detector's part of the page and of the card; see ``views.View``."""

    report: BuildReport
    result: DetectionResult
    kind: str = "object detector"

    @property
    def headline(self) -> tuple[str, str]:
        """The mean average precision, and what it is."""
        ap50 = percent(self.result.metrics.get("ap50"))
        return percent(self.result.metrics.get("map")), f"mAP (IoU 0.50 to 0.95); AP50 {ap50}, {self._counted}"

    @property
    def _counted(self) -> str:
        boxes = sum(curve.boxes for curve in self.result.curves)
        return f"{boxes:,} {'box' if boxes == 1 else 'boxes'} in {self.result.n:,} {noun(self.result.n, 'image')}"

    def accuracy(self) -> Html:
        """Each class, each size, and the trade between finding all and being right."""
        metrics = self.result.metrics
        sizes = [
            (name, percent(metrics[key]), text)
            for key, name, text in zip(
                AREAS,
                AREAS.values(),
                ("up to 32 × 32 pixels", "up to 96 × 96", "larger"),
                strict=True,
            )
            if key in metrics
        ]
        rows = [
            (
                row["class"],
                *(percent(row[key]) for key in ("ap", "ap50", "precision", "recall")),
                f"{row['score']:.2f}",
                f"{row['boxes']:,}",
            )
            for row in sorted(self.result.table(), key=lambda row: (row["ap"] is None, row["ap"], row["class"]))
        ]
        meaning = (
            "AP: the mean precision over all recalls and overlaps (IoU) from 0.50 to 0.95, as COCO counts it; AP50: at "
            "0.50 only. Precision: how many of the boxes told are right; recall: how many of the true ones are told; "
            "both from the score on where they balance best (F1). Take that score in the app, or a higher one to be "
            "wrong less often."
        )
        return join(
            [
                tag("p", f"Measured on: {self.report.measured_on}."),
                tag("h3", "Each class, the hardest first"),
                tag("p", meaning),
                table(["class", "AP", "AP50", "precision", "recall", "from score", "boxes"], rows, "lrrrrrr"),
                tag("h3", "Small and large boxes"),
                table(["boxes", "AP", "in pixels of the original"], sizes, "lrl") if sizes else Html(),
                tag("h3", "Finding all, or being right"),
                self._curves(),
            ]
        )

    def _curves(self) -> Html:
        curves = [(curve.recall, curve.precision) for curve in self.result.curves]
        light, dark = (precision_recall_plot(curves, self.result.classes, theme) for theme in (LIGHT, DARK))
        caption = "Each score is a point: the lower it is, the more boxes are found, and the more of them are wrong."
        image = picture(light, dark, "Precision by recall")
        return tag("figure", image, tag("figcaption", caption))

    def mistakes(self) -> Html:
        """The images with the most and surest errors, the truth beside what was found."""
        shown = self.result.worst[:MISSES]
        if not shown:
            return Html()
        text = (
            f"The {len(shown)} of {self.result.n} images with the most errors, from each class's best score on. Left, "
            "what is in it: strong what was missed. Right, what was found: strong what is wrong. Look for missing and "
            "wrong labels first."
        )
        names = axis_labels(self.result.classes)
        return join([tag("p", text), tag("div", *(_figure(errors, names) for errors in shown), class_="misses")])

    def front_matter(self) -> dict[str, Any]:
        """Names that model hubs know."""
        metrics = [
            {"type": key, "value": round(self.result.metrics[key], 4), "name": name}
            for key, name in NAMES.items()
            if key in self.result.metrics
        ]
        return {"task": "object-detection", "dataset": "objects", "metrics": metrics}

    def results(self) -> str:
        """COCO's figures."""
        figures = [f"{NAMES[key]} {percent(self.result.metrics[key])}" for key in NAMES if key in self.result.metrics]
        sizes = [
            f"{name} {percent(self.result.metrics[key])}" for key, name in AREAS.items() if key in self.result.metrics
        ]
        by_size = f" By size of the boxes: {', '.join(sizes)}." if sizes else ""
        return f"{', '.join(figures)} on {self._counted}: {markdown.text(self.report.measured_on)}.{by_size}"

    def classes(self) -> str:
        """Average precision of each, and the score to take."""
        rows = [
            (i, row["class"], percent(row["ap"]), percent(row["ap50"]), f"{row['score']:.2f}", row["boxes"])
            for i, row in enumerate(self.result.table())
        ]
        return markdown.table(["no.", "class", "AP", "AP50", "best score", "boxes"], rows, "rlrrrr")

    def limits(self) -> str:
        """What it was not measured on."""
        few = sum(curve.boxes < FEW for curve in self.result.curves)
        unsure = f" {few} of the classes have fewer than {FEW} boxes to judge by." if few else ""
        return (
            "It boxes only these classes, and may see them in any image. The whole image is squeezed into "
            f"{self.report.spec.preprocessing.size} × {self.report.spec.preprocessing.size} pixels, so that things "
            "which are tiny in it are lost. The accuracy holds for photos like those it was measured on, and the "
            f"latency for the machine above.{unsure}"
        )


def _figure(errors: Errors, names: Sequence[str]) -> Html:
    """An image with its errors, twice."""
    file = tag("span", Path(errors.image).name, class_="file", title=errors.image)
    caption = tag("figcaption", _words(errors, names), file)
    try:
        pixels = read_image(errors.image)
    except DataError as error:
        return tag("figure", tag("p", f"This image cannot be shown: {error}", class_="quiet"), caption)
    uri = data_uri(_jpeg(pixels, errors, names), "jpeg")
    alt = html(f"{Path(errors.image).name}: what is in it, and what was found")
    return tag("figure", Html(f'<img loading="lazy" alt="{alt}" src="{uri}">'), caption)


def _jpeg(pixels: np.ndarray, errors: Errors, names: Sequence[str]) -> bytes:
    photo = Image.fromarray(pixels)
    photo.thumbnail((SIDE, SIDE))
    scale = np.tile(np.divide(photo.size, (pixels.shape[1], pixels.shape[0])), 2)
    found, truth = errors.found, errors.truth
    there = [
        _mark(np.asarray(corners) * scale, names[label], label, index not in errors.missed)
        for index, (corners, label) in enumerate(zip(truth.corners, truth.labels, strict=True))
    ]
    said = [
        _mark(box * scale, f"{names[label]} {score:.2f}", int(label), index not in errors.wrong)
        for index, (box, score, label) in enumerate(zip(*found, strict=True))
    ]
    left, right = (draw(np.asarray(photo), sorted(marks, key=lambda mark: mark.faint)) for marks in (there, said))
    buffer = BytesIO()
    Image.fromarray(side_by_side((left, right), ("in it", "found"))).save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def _mark(corners: np.ndarray, text: str, label: int, faint: bool) -> Drawn:
    x1, y1, x2, y2 = map(float, corners)
    return Drawn((x1, y1, x2, y2), text, label, faint)


def _words(errors: Errors, names: Sequence[str]) -> str:
    """As in: missed: 2 RBC, 1 WBC; wrong: 1 RBC."""
    missed = Counter(names[errors.truth.labels[index]] for index in errors.missed)
    wrong = Counter(names[int(errors.found.labels[index])] for index in errors.wrong)
    parts = [
        f"{what}: " + ", ".join(f"{count} {name}" for name, count in counts.most_common())
        for what, counts in (("missed", missed), ("wrong", wrong))
        if counts
    ]
    return "; ".join(parts)
