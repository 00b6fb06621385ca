"""Accuracy of an exported file of any task, in its runtime."""

from collections.abc import Sequence

from ..data.sources import Item
from ..exporting.artifact import Artifact
from ..measuring.machine import usable_cores
from ..measuring.runtimes import open_artifact, open_detector
from ..report.content import EvaluationResult
from ..training.evaluate import evaluate
from ..training.evaluate_detection import evaluate_detector


def accuracy_of(
    artifact: Artifact, items: Sequence[Item], classes: Sequence[str], *, threads: int = 0
) -> tuple[str, EvaluationResult]:
    """The runtime, and what the file gets right of ``items``; ``threads=0`` takes all cores."""
    threads, preprocessing = threads or usable_cores(), artifact.spec.preprocessing
    if artifact.detects:
        detector = open_detector(artifact, threads=threads)
        return detector.runtime, evaluate_detector(detector, items, preprocessing, classes)
    session = open_artifact(artifact, threads=threads)
    return session.runtime, evaluate(session, items, preprocessing, classes)
