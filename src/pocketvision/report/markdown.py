"""Markdown from Python values."""

import re
from collections.abc import Iterable, Sequence


def text(value: object) -> str:
    """Plain text as Markdown: one line, with what Markdown or HTML would act on escaped."""
    line = " ".join(str(value).split())
    line = re.sub(r"([\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w))", r"\\\1", line)
    return re.sub(r"^(\d*)([-+#=.)])(?=[-#=\s]|$)", r"\1\\\2", line)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], align: str = "") -> str:
    """A Markdown table; ``align`` has one letter a column, "l" or "r". Empty for no rows."""
    lines = ["| " + " | ".join(text(cell) for cell in row) + " |" for row in rows]
    marks = ["--:" if letter == "r" else ":--" for letter in align.ljust(len(headers), "l")]
    return "\n".join(["| " + " | ".join(headers) + " |", "|" + "|".join(marks) + "|", *lines]) if lines else ""
