"""Accuracy of an exported file of any task, in its runtime."""

from collections.abc import Sequence

from ..data.sources import Item
from ..exporting.artifact import Artifact
from ..measuring.machine import usable_cores
from ..measuring.runtimes import open_artifact, open_detector, open_segmenter
from ..report.content import EvaluationResult
from ..training.evaluate import evaluate
from ..training.evaluate_detection import evaluate_detector
from ..training.evaluate_segmentation import evaluate_segmenter


def accuracy_of(
    artifact: Artifact, items: Sequence[Item], classes: Sequence[str], *, threads: int = 0
) -> tuple[str, EvaluationResult]:
    """The runtime, and what the file gets right of ``items``; ``threads=0`` takes all cores."""
    threads, preprocessing = threads or usable_cores(), artifact.spec.preprocessing
    match artifact.task:
        case "classify":
            classifier = open_artifact(artifact, threads=threads)
            return classifier.runtime, evaluate(classifier, items, preprocessing, classes)
        case "detect":
            detector = open_detector(artifact, threads=threads)
            return detector.runtime, evaluate_detector(detector, items, preprocessing, classes)
        case "segment":
            segmenter = open_segmenter(artifact, threads=threads)
            return segmenter.runtime, evaluate_segmenter(segmenter, items, preprocessing, classes)
