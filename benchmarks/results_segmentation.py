"""The part of docs/results.md on labelling pixels, from the file of segmentation_counts.py."""

from results_page import NOT_RUN, load, table


def segmentation() -> str:
    """All that was measured of segmenters; what has not run says so."""
    return "\n".join(["## Labelling pixels\n", _counts()])


def _counts() -> str:
    text, found = "### Segmenters' parameters and multiply-adds beside the papers'\n\n", load("segmentation_counts")
    if not found:
        return text + f"{NOT_RUN.capitalize()}.\n"
    rows = list[list[str]]()
    for row in found["rows"]:
        paper, ours = row["paper"], row["ours"] or {}
        figures = [(paper, "params_m"), (ours, "params_m"), (paper, "madds_b"), (ours, "madds_b")]
        figures.append((ours, "madds_as_there_b"))
        shown = ["-" if source.get(key) is None else f"{source[key]:.2f}" for source, key in figures]
        rows.append([row["table"], row["row"], *shown, row["note"]])
    head = ("Table", "row", "parameters, paper (M)", "ours", "MAdds, paper (B)", "ours", "as counted there", "note")
    notes = "\n".join(f"- {name}: {words}" for name, words in found["notes"].items())
    return f"{text}`{found['command']}`:\n\n{table(head, rows, 2)}\n{notes}\n"
