"""A build's results as one HTML file and one Markdown model card."""

from .content import BuildReport, Candidate, Mistake, Promise
from .write import write_report

__all__ = ["BuildReport", "Candidate", "Mistake", "Promise", "write_report"]
