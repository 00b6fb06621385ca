"""How a report shows a classifier's accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.check import noun
from ..training.evaluate import ClassificationResult, Mistake
from . import markdown
from .content import BuildReport, percent
from .html import Html, join, picture, table, tag, thumbnail
from .plots import CELL_NUMBERS_UP_TO, DARK, LIGHT, confusion_plot

MISTAKES = 24  # shown at most
FEW = 30  # images of a class


@dataclass(frozen=True, slots=True)
class ClassificationView:
    """The classifier's part of the page and of the card; see ``views.View``."""

    report: BuildReport
    result: ClassificationResult
    kind: str = "image classifier"

    @property
    def headline(self) -> tuple[str, str]:
        """The accuracy, and what it is."""
        low, high = self.result.interval
        return percent(self.result.top1), f"top-1 accuracy; 95% interval {low:.1%} to {high:.1%}, {self._images}"

    @property
    def majority(self) -> float:
        """Accuracy of always answering the most frequent class."""
        return float(self.result.confusion.sum(axis=1).max()) / self.result.n

    @property
    def _images(self) -> str:
        return f"{self.result.n:,} {noun(self.result.n, 'image')}"

    def confusions(self, limit: int = 10) -> list[tuple[str, str, int, int]]:
        """The most frequent mistakes: (true class, predicted class, how often, images of the true class)."""
        wrong = self.result.confusion.copy()
        np.fill_diagonal(wrong, 0)
        worst = np.argsort(-wrong, axis=None, kind="stable")[:limit]
        names, totals = self.result.classes, self.result.confusion.sum(axis=1)
        cells = [divmod(int(cell), len(names)) for cell in worst]
        return [
            (names[row], names[col], int(wrong[row, col]), int(totals[row])) for row, col in cells if wrong[row, col]
        ]

    def accuracy(self) -> Html:
        """Each class, and what is taken for what."""

        def bar(share: float | None) -> Html:
            width = 0 if share is None else share
            return join([percent(share), Html(f'<span class="bar"><i style="width:{width:.1%}"></i></span>')], " ")

        numbered = enumerate(self.result.table())
        ranked = sorted(numbered, key=lambda line: (line[1]["recall"] is None, line[1]["recall"], line[1]["class"]))
        rows = [(i, row["class"], bar(row["recall"]), bar(row["precision"]), f"{row['n']:,}") for i, row in ranked]
        pairs = [(true, predicted, times, f"{times / n:.1%}") for true, predicted, times, n in self.confusions()]
        intro = (
            f"Measured on: {self.report.measured_on}. Always answering the most frequent class would reach "
            f"{self.majority:.1%}."
        )
        meaning = "Recall: how many of its images are found. Precision: how many of the images given its name have it."
        return join(
            [
                tag("p", intro),
                tag("h3", "Each class, the hardest first"),
                tag("p", meaning),
                table(["no.", "class", "recall", "precision", "images"], rows, "rlrrr"),
                tag("h3", "What is taken for what"),
                self._confusion(),
                table(["true class", "taken for", "times", "of its images"], pairs, "llrr") if pairs else Html(),
            ]
        )

    def _confusion(self) -> Html:
        classes, confusion = self.result.classes, self.result.confusion
        light, dark = (confusion_plot(confusion, classes, theme) for theme in (LIGHT, DARK))
        size = "plot" if len(classes) <= CELL_NUMBERS_UP_TO else "large"
        hint = "" if size == "plot" else " It is larger than its frame: scroll in it."
        caption = (
            "Rows: true class. Columns: predicted. Blue: right, orange: wrong; the stronger, the larger the share."
            + hint
        )
        image = picture(light, dark, "Confusion matrix", size)
        return tag("figure", tag("div", image, class_="scroll"), tag("figcaption", caption))

    def mistakes(self) -> Html:
        """The ones of which the model was most certain."""
        if not self.result.mistakes:
            return Html()
        wrong = self.result.n - int(np.trace(self.result.confusion))
        shown = sorted(self.result.mistakes, key=lambda mistake: -mistake.score)[:MISTAKES]
        figures = (_mistake(mistake, self.result.classes) for mistake in shown)
        text = f"The {len(shown)} of {wrong} mistakes of which the model was most certain. Look for wrong labels first."
        return join([tag("p", text), tag("div", *figures, class_="mistakes")])

    def front_matter(self) -> dict[str, Any]:
        """Names that model hubs know."""
        metric = {"type": "accuracy", "value": round(self.result.top1, 4), "name": "top-1 accuracy"}
        return {"task": "image-classification", "dataset": "imagefolder", "metrics": [metric]}

    def results(self) -> str:
        """Accuracy with its interval."""
        low, high = self.result.interval
        return (
            f"Top-1 accuracy {percent(self.result.top1)} (95% interval {percent(low)} to {percent(high)}) on "
            f"{self._images}: {markdown.text(self.report.measured_on)}. Always answering the most frequent class: "
            f"{percent(self.majority)}."
        )

    def classes(self) -> str:
        """Recall and precision of each."""
        rows = [
            (i, row["class"], percent(row["recall"]), percent(row["precision"]), row["n"])
            for i, row in enumerate(self.result.table())
        ]
        return markdown.table(["no.", "class", "recall", "precision", "images"], rows, "rlrrr")

    def limits(self) -> str:
        """A classifier answers anything."""
        small = [row for row in self.result.table() if row["n"] < FEW]
        few = f" {len(small)} of the classes have fewer than {FEW} images to judge by." if small else ""
        return (
            "It knows only these classes and answers one of them for any image at all. The accuracy holds for photos "
            f"like those it was measured on, and the latency for the machine above.{few}"
        )


def _mistake(mistake: Mistake, classes: Sequence[str]) -> Html:
    true, predicted = classes[mistake.label], classes[mistake.predicted]
    name = tag("span", Path(mistake.image).name, class_="file", title=mistake.image)
    words = ("is ", tag("b", true), ", taken for ", tag("b", predicted), f" ({mistake.score:.0%})", name)
    return tag("figure", thumbnail(mistake.image, f"{true}, taken for {predicted}"), tag("figcaption", *words))
