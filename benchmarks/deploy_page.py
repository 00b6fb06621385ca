"""The table of docs/deploy.md from benchmarks/results/deploy/*.json: no figure of it is typed."""

import json
from pathlib import Path
from typing import Any

from results_page import NOT_RUN, ROOT, table

RESULTS, PAGE = ROOT / "benchmarks" / "results" / "deploy", ROOT / "docs" / "deploy.md"
BEGIN, END = "<!-- table -->\n", "<!-- /table -->"
HEAD = ("Runtime", "precision", "MB", "same answer", "{metric} %", "ms", "x float32", "x torch", "x peer")
METRICS = {"classify": "top-1", "detect": "mAP", "segment": "mIoU"}
INTRODUCTION = """Made by [benchmarks/deploy.py](../benchmarks/deploy.py). *Same answer*: on up to 32 images, beside the
network in torch: the same class, boxes found again with an IoU of 0.99, pixels of the same class. *Top-1*, *mAP* and
*mIoU*: measured in the runtime, and the difference to torch in points. *ms*: median of up to 100 calls, batch 1, one
thread, all files of a network in turns. *x float32*: how many times as fast as the float32 file of the same runtime;
*x torch*: as the network in torch (folded, channels last); *x peer*: as the same network by the peer's usual path,
torch.onnx.export and ONNX Runtime. Below 1 is slower, and `export` says so.
"""


def deploy_table() -> str:
    """All networks; what has not run says so."""
    files = sorted(RESULTS.glob("*.json"))
    if not files:
        return f"Measured: {NOT_RUN}.\n"
    return INTRODUCTION + "\n" + "\n".join(network(file.stem, json.loads(file.read_text())) for file in files)


def network(name: str, result: dict[str, Any]) -> str:
    """One network's rows."""
    times = {kind: row["median_ms"] for kind, row in result.get("latency", {}).items()}
    metric = METRICS[result["task"]]
    text = f"### {name}\n\n{result['size']} px; weights: {result['weights']}"
    if result["n"]:
        text += f"; {result['n']} images judge, torch {metric} {100 * result['torch']:.1f}%"
    if times:
        text += f"; torch {times['torch']:.2f} ms"
        if "peer" in times:
            text += f", {result['peer']} {times['peer']:.2f} ms"
        if any(row["disturbed"] for row in result["latency"].values()):
            text += "; other work on the machine disturbed the times"
    rows = [
        line(target, precision, row, result, times)
        for target, precisions in result.get("files", {}).items()
        for precision, row in precisions.items()
    ]
    return text + "\n\n" + table([head.format(metric=metric) for head in HEAD], rows, 2)


def line(
    target: str, precision: str, row: dict[str, Any], result: dict[str, Any], times: dict[str, float]
) -> list[str]:
    """One file."""
    if "error" in row:
        return [target, precision, "-", row["error"].replace("|", "/"), *["-"] * 5]
    own = times.get(f"{target} {precision}")

    def ratio(other: str) -> str:
        return f"{times[other] / own:.2f}" if own and other in times else "-"

    same, accuracy = "no runtime here", "-"
    if row["parity"]:
        found = row["parity"]
        pairs, alone = found.get("boxes", 0), found.get("unmatched", 0)
        share = found["agreement"] if "agreement" in found else 2 * pairs / max(2 * pairs + alone, 1)
        same = f"{100 * share:.1f}%"
    if "accuracy" in row:
        accuracy = f"{100 * row['accuracy']:.1f} ({100 * (row['accuracy'] - result['torch']):+.1f})"
    speed = ratio(f"{target} float32") if precision != "float32" else ""
    ms = f"{own:.2f}" if own else "-"
    return [target, precision, f"{row['mb']:.2f}", same, accuracy, ms, speed, ratio("torch"), ratio("peer")]


def write_page() -> Path:
    """Put the table between the marks of the page."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(before + BEGIN + deploy_table() + END + rest.partition(END)[2])
    return PAGE
