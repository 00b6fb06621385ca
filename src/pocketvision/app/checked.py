"""A data set, opened and checked: what every training starts with."""

from pathlib import Path

from ..data.check import Finding, check_dataset, refuse_leaks
from ..data.sources import Dataset, open_dataset
from ..spec.heads import TaskName
from .progress import tell


def open_checked(
    data: str | Path, *, seed: int, allow_leak: bool, task: TaskName | None = None
) -> tuple[Dataset, tuple[Finding, ...]]:
    """The data set, opened for ``task``, and what its check found; what does not stop the training is said as a
    warning.

    Raises DataError for what is no data set, and, without ``allow_leak``, for one whose splits share pictures.
    """
    dataset = open_dataset(data, seed=seed, task=task)
    tell(dataset.description)
    findings = check_dataset(dataset)
    if not allow_leak:
        refuse_leaks(dataset, findings)
    for finding in findings:
        if finding.severity != "info":
            allowed = " (--allow-leak)" if finding.kind == "leak" and finding.severity == "error" else ""
            tell(f"warning{allowed}: {finding}")
    return dataset, findings
