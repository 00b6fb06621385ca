"""Both files of a report."""

from pathlib import Path

from ..files import write_text
from .card import card
from .content import BuildReport
from .page import page


def write_report(report: BuildReport, folder: Path | str) -> Path:
    """Write ``report.html`` (one file that needs nothing else) and ``model_card.md`` into ``folder``.

    Returns the path of ``report.html``.
    """
    write_text(Path(folder) / "model_card.md", card(report))
    return write_text(Path(folder) / "report.html", page(report))
