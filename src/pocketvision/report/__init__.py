"""A build's results as one HTML file and one Markdown model card."""

from .content import BuildReport, Candidate, Promise
from .write import write_report

__all__ = ["BuildReport", "Candidate", "Promise", "write_report"]
