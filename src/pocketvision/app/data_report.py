"""`pocketvision data`: what is wrong with a data set, with pictures and the fix of each."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.check import Finding, check_dataset, class_counts, noun
from ..data.mask_check import class_shares
from ..data.sources import open_dataset
from ..errors import ConfigurationError
from ..files import check_writable, write_text
from ..report.data_page import data_page
from ..spec.heads import TaskName
from .lookalikes import lookalikes
from .progress import tell
from .suspects import FEATURES, Suspect, image_features, suspects

PAGE = Path("data_report.html")
SHOWN = 5


@dataclass(frozen=True, slots=True)
class DataReport:
    """What was found. ``counts``: images, or boxes, per split and class (of masks: images that have the class);
    ``suspects``: labels that may be wrong, the surest first, and ``looked_at``: what the classifier saw that doubts
    them. ``shares``: of masks, each class's share of train's pixels that are not void; ``task``: what was asked for."""

    data: str
    page: Path
    description: str
    counts: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    suspects: tuple[Suspect, ...]
    looked_at: str
    shares: dict[str, float] = field(default_factory=dict)
    task: TaskName | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing has to be mended before training."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def next_step(self) -> str:
        """The command that comes next."""
        data = shlex.quote(self.data)
        if self.ok:
            return f"pocketvision build {data}" + (" --head lraspp" if self.task == "segment" else "")
        task = f" --task {self.task}" if self.task else ""
        return f"pocketvision data {data}{task} (when the errors are mended)"

    def to_dict(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "page": str(self.page),
            "ok": self.ok,
            "counts": self.counts,
            "shares": {name: round(share, 6) for name, share in self.shares.items()},
            "findings": [finding.to_dict() for finding in self.findings],
            "suspects": [suspect.to_dict() for suspect in self.suspects],
            "looked_at": self.looked_at,
        }

    def __str__(self) -> str:
        lines = [self.description]
        for finding in self.findings[1:]:
            fix = f"\n         fix: {finding.fix}" if finding.fix else ""
            lines.append(f"{finding.severity:8} {finding.text}{fix}")
        if self.suspects:
            count = len(self.suspects)
            lines.append(f"look at  {count} {noun(count, 'label')} that may be wrong ({self.looked_at}):")
            lines += [
                f"         {s.image}: labelled {s.label}, looks like {s.looks_like} ({s.probability:.0%})"
                for s in self.suspects[:SHOWN]
            ]
        if len(lines) == 1:
            lines.append("nothing wrong was found")
        return "\n".join([*lines, f"page: {self.page}", f"next: {self.next_step}"])


def data_report(data: str | Path, *, out: str | Path = PAGE, seed: int = 0, task: TaskName | None = None) -> DataReport:
    """Look for unreadable, tiny and equal images, leaks, unequal classes and wrong labels; write a page with pictures.

    Of a detection or segmentation set: what is wrong with boxes or masks instead of labels.
    ``out``: the HTML file. ``seed``: of the split, where one is drawn. ``task``: what to look at where there are
    several, as for ``open_dataset``. Raises DataError for what is no data set, and ConfigurationError where ``out``
    cannot be written, which is tried first.
    """
    try:
        check_writable(out)
    except OSError as error:
        raise _unwritable(out, error) from error
    dataset = open_dataset(data, seed=seed, task=task)
    tell(dataset.description)
    findings, doubted, looked_at = check_dataset(dataset), (), ""
    if dataset.task == "classify":
        features, looked_at = image_features(dataset)
        doubted = tuple(suspects(dataset, features))
        alike = lookalikes(dataset, features) if looked_at.startswith(FEATURES) else None
        findings = (*findings, alike) if alike else findings
    report = DataReport(
        str(data), Path(out), dataset.description, class_counts(dataset), findings, doubted, looked_at,
        class_shares(dataset) if dataset.task == "segment" else {}, task,
    )  # fmt: skip
    rows = [suspect.to_dict() for suspect in doubted]
    page = data_page(dataset, findings, rows, looked_at, report.next_step)
    try:
        write_text(out, page)
    except OSError as error:
        raise _unwritable(out, error) from error
    return report


def _unwritable(out: str | Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{out}: the page cannot be written ({error.strerror}); name another file with --out")
