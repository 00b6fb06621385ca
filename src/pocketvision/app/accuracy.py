"""Accuracy of an exported file of any task, in its runtime."""

from collections.abc import Sequence

from ..data.sources import Item
from ..errors import ExportError
from ..exporting.artifact import Artifact
from ..measuring.machine import usable_cores
from ..measuring.runtimes import open_artifact
from ..report.content import EvaluationResult
from ..spec.heads import ClassifierHead
from ..training.evaluate import evaluate


def accuracy_of(
    artifact: Artifact, items: Sequence[Item], classes: Sequence[str], *, threads: int = 0
) -> tuple[str, EvaluationResult]:
    """The runtime, and what the file gets right of ``items``; ``threads=0`` takes all cores."""
    threads, preprocessing = threads or usable_cores(), artifact.spec.preprocessing
    if isinstance(artifact.spec.head, ClassifierHead):
        session = open_artifact(artifact, threads=threads)
        return session.runtime, evaluate(session, items, preprocessing, classes)
    raise ExportError(f"{artifact.path}: detectors cannot be evaluated in their runtime yet")
