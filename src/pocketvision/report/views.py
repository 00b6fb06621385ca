"""What a report shows of a task's result; the rest of the page and of the card is the same for all."""

from typing import Any, Protocol

from ..training.evaluate import ClassificationResult
from ..training.evaluate_detection import DetectionResult
from ..training.evaluate_segmentation import SegmentationResult
from .classification import ClassificationView
from .content import BuildReport
from .detection import DetectionView
from .html import Html
from .segmentation import SegmentationView


class View(Protocol):
    """A task's part of the page (HTML) and of the model card (Markdown)."""

    @property
    def kind(self) -> str: ...
    @property
    def headline(self) -> tuple[str, str]: ...

    def accuracy(self) -> Html:
        """How well it recognises."""
        ...

    def mistakes(self) -> Html:
        """Pictures of the worst ones; empty when there are none."""
        ...

    def front_matter(self) -> dict[str, Any]:
        """``task`` and ``dataset`` types, and ``metrics``, as model hubs name them."""
        ...

    def results(self) -> str:
        """The card's sentence on accuracy."""
        ...

    def classes(self) -> str:
        """The card's table of classes."""
        ...

    def limits(self) -> str:
        """What the model cannot do."""
        ...


def view_of(report: BuildReport) -> View:
    """How the report's result is shown."""
    match report.result:
        case ClassificationResult():
            return ClassificationView(report, report.result)
        case DetectionResult():
            return DetectionView(report, report.result)
        case SegmentationResult():
            return SegmentationView(report, report.result)
