"""The part of docs/results.md on labelling pixels, from the files of segmentation.py, segmenter_export.py and
segmentation_counts.py."""

from typing import Any

from results_page import NOT_RUN, load, machine, table

# S1 §6.4's observations (FACTS H30): the rows that it compares, in time and in accuracy
OBSERVATIONS = (
    ("(1) halving the last block's channels is faster and as accurate", "V2 R 256", "V2 RF2 R 256"),
    ("(2) LR-ASPP is slightly faster than R-ASPP, and better", "V2 RF2 R 256", "V2 RF2 LR 256"),
    ("(3) 128 instead of 256 filters: faster, slightly worse", "V2 RF2 LR 256", "V2 RF2 LR 128"),
    ("(4) V3 is as accurate as V2 and slightly faster", "V2 RF2 LR 128 scratch", "V3 RF2 LR 128 scratch"),
    ("(5) V3-Small is as accurate as V2 0.5 and faster", "V2 0.5 RF2 LR 128 scratch", "V3-S RF2 LR 128 scratch"),
    ("(6) V3-Small is much better than V2 0.35, as fast", "V2 0.35 RF2 LR 128 scratch", "V3-S RF2 LR 128 scratch"),
)
FORMS = ("raw", "logits", "second_axis", "classes")


def segmentation() -> str:
    """All that was measured of segmenters; what has not run says so."""
    found = load("segmentation") or {"runs": [], "latency": [], "lowres": []}
    parts = ["## Labelling pixels\n", _accuracy(found), _observations(found), _lowres(found), _export(), _counts()]
    return "\n".join(parts)


def _milliseconds(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each row its latency; a network that starts from random weights takes as long as any other."""
    rows = found["latency"][0]["rows"] if found["latency"] else {}
    return rows | {f"{name} scratch": row for name, row in rows.items() if not name.endswith("scratch")}


def _accuracy(found: dict[str, Any]) -> str:
    text = "### camvid11: street scenes, 367 images to train, 101 to validate, 11 classes\n\n"
    if not found["runs"]:
        return text + f"Training: {NOT_RUN}.\n"
    times = _milliseconds(found)
    text += "In the form of S1 Table 7. RF2: the last block's channels halved, which then starts from random weights; "
    text += "scratch: all of it does; otherwise from ImageNet weights. Filters: of the head. Minutes are those of a "
    text += "core's time; ms: ONNX Runtime, one thread, interleaved (`python benchmarks/segmentation.py`):\n\n"
    rows = []
    for run in sorted(found["runs"], key=lambda run: (run["size"], -run["val"]["miou"])):
        own = times.get(run["row"])
        size, timed = run["size"], found["latency"][0]["size"] if found["latency"] else None
        same = own is not None and timed == size
        network = [f"{own['params'] / 1e6:.2f}" if own else "-", f"{own['madds'] / 1e9:.2f}" if own and same else "-"]
        ms = f"{own['median_ms']:.1f}" if own and same else "-"
        accuracy = [f"{100 * run['val'][name]:.1f}" for name in ("miou", "pixel_accuracy")]
        rows.append(
            [run["row"], f"{size}", f"{run['epochs']}", f"{run['processor_s'] / 60:.0f}", *accuracy, *network, ms]
        )
    head = ("Row", "px", "epochs", "minutes", "mIoU", "pixel accuracy", "parameters (M)", "MAdds (B)", "ms")
    return text + table(head, rows, 1) + machine(found["runs"][0])


def _observations(found: dict[str, Any]) -> str:
    text = "### S1's observations about segmentation (§6.4, H30)\n\n"
    text += "One run each, so that a point of mIoU decides nothing.\n\n"
    times, rows = _milliseconds(found), []
    for claim, before, after in OBSERVATIONS:
        pairs = [
            (one, other)
            for one in found["runs"]
            for other in found["runs"]
            if (one["row"], other["row"]) == (before, after) and one["size"] == other["size"]
        ]
        change = ", ".join(f"{100 * (b['val']['miou'] - a['val']['miou']):+.1f} ({a['size']} px)" for a, b in pairs)
        known = {before, after} <= times.keys()
        ratio = f"{times[after]['median_ms'] / times[before]['median_ms']:.2f}" if known else NOT_RUN
        rows.append([claim, f"{before} to {after}", ratio, change or NOT_RUN])
    return text + table(("Observation", "rows", "time", "points of mIoU"), rows, 2)


def _lowres(found: dict[str, Any]) -> str:
    text = "### 320 pixels instead of 520\n\n"
    if not found["lowres"]:
        return text + f"{NOT_RUN.capitalize()}.\n"
    run = found["lowres"][0]
    large, small = run["sizes"]["520"], run["sizes"]["320"]
    time = 100 * (1 - small["median_ms"] / large["median_ms"])
    accuracy = f"{100 * large['miou']:.1f}% at 520, {100 * small['miou']:.1f}% at 320"
    lost = f"{100 * (small['miou'] - large['miou']):+.1f} points"
    return text + (
        "S0 (H28): LR-ASPP on MobileNetV3-Large, COCO, loses 2.1 points of mIoU and 65.3% of its time. Here "
        f"{run['row']}, trained on camvid11 at 520 pixels: {accuracy}, {lost}; {large['median_ms']:.1f} and "
        f"{small['median_ms']:.1f} ms, {time:.0f}% less (ONNX Runtime, one thread).\n"
    )


def _export() -> str:
    text, found = "### What enlarging and choosing cost in ONNX Runtime\n\n", load("segmenter_export")
    if not found:
        return text + f"{NOT_RUN.capitalize()}.\n"
    rows = [
        [row["network"], f"{row['classes']}", f"{row['size']}", *(f"{row['processor_ms'][form]:.2f}" for form in FORMS)]
        for row in found["networks"]
    ]
    words = (
        "Processor time in ms, one thread: the small map alone, enlarged, with ArgMax over the second axis, and the "
    )
    words += "form that is exported (`python benchmarks/segmenter_export.py`):\n\n"
    return text + words + table(("Network", "classes", "px", *FORMS), rows, 1) + machine(found)


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
