"""The part of docs/results.md on measuring, from the file of same_or_not.py."""

from typing import Any

from results_page import NOT_RUN, load, machine, table


def measuring() -> str:
    """Whether latencies are told apart when they differ, and only then."""
    found = load("same_or_not")
    text = "## Measuring\n\n### The same or not\n\n"
    if found is None:
        return text + f"Measured: {NOT_RUN}.\n"
    text += f"Two sessions of MobileNetV3-Small, {found['n']} calls each in turns, ONNX Runtime, one thread: how often "
    text += f"they are told apart at the {100 * found['level']:.0f}% level (`python benchmarks/same_or_not.py`):\n\n"
    rows = [line("the same network", found["same"]), line("224 and 232 pixels", found["heavier"])]
    head = ("Pair", "pairs", "told apart", "ratio of times", "5 to 95% of ratios")
    return text + table(head, rows) + machine(found | {"load": found["load"][0]})


def line(name: str, found: dict[str, Any]) -> list[str]:
    """One kind of pair."""
    low, high = found["ratio_5_to_95"]
    apart = f"{100 * found['told_apart']:.1f}%"
    return [name, f"{found['pairs']}", apart, f"{found['ratio']:.3f}", f"{low:.3f} to {high:.3f}"]
