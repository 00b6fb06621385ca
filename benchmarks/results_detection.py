"""The part of docs/results.md on finding boxes, from the files of detection.py, detection_counts.py, rpn_tuning.py and
detector_export.py."""

from typing import Any

from results_page import NOT_RUN, load, machine, table

MEASURES = {"map": "mAP", "ap50": "AP50", "ap75": "AP75"}


def detection() -> str:
    """All that was measured of detectors; what has not run says so."""
    return "\n".join(["## Finding boxes\n", _accuracy(), _claims(), _export(), _counts()])


def _accuracy() -> str:
    text = "### bccd: blood cells, 205 images to train, 87 to validate, 72 to test\n\n"
    found = load("detection")
    others = ("lowres", "mosaic")
    runs = [run for run in found["runs"] if not run["name"].startswith(others)] if found else []
    runs.sort(key=lambda run: -run["test"]["map"])
    if not runs:
        return text + f"Training: {NOT_RUN}.\n"
    text += "SSDLite on MobileNetV2 from the same ImageNet weights, trained for the same minutes on the same machine "
    text += "(Faster R-CNN: 8 epochs in batches of 2, beside much other work); "
    text += "settings were chosen on val. torchvision: its own pieces and its references' recipe. In percent, on test "
    text += "(`python benchmarks/detection.py`):\n\n"
    rows = [
        [
            "pocketvision" if run["system"] == "ours" else run["system"],
            _how(run),
            f"{run['minutes']:g}" if run.get("head", "SSDHead") == "SSDHead" else "-",
            f"{(run.get('command_s') or run['curve'][-1]['seconds']) / 60:.1f}",
            *(f"{100 * run['test'][name]:.1f}" for name in MEASURES),
            f"{100 * run['val']['map']:.1f}",
        ]
        for run in runs
    ]
    text += table(("System", "how", "minutes, limit", "taken", *MEASURES.values(), "mAP on val"), rows, 2)
    return text + machine(runs[0])


def _how(run: dict[str, Any]) -> str:
    setting = run.get("setting")
    if setting:
        return f"{setting['preset']}, lr {setting['lr']:g}"
    other = "" if run.get("head", "SSDHead") == "SSDHead" else f"{run['head'].removesuffix('Head')}, "
    return f"{other}{run['model']}, {run['size']} px"


def _claims() -> str:
    text = "### Claims about detectors\n\n"
    rows = list[list[str]]()
    counts, rpn, found = load("detection_counts"), load("rpn_tuning"), load("detection")
    heads = counts["latency"] if counts else None
    here = f"{heads['ratio']:.2f} times its processor time (ONNX Runtime, one thread)" if heads else NOT_RUN
    rows.append(
        ["SSD's head against SSDLite's: seven times the parameters, 3.6 times the MAdds", "S4 Table 5 (H7)", here]
    )
    here = f"{rpn['ratio']:.2f} ({rpn['weights']} weights)" if rpn else NOT_RUN
    rows.append(["Tuning the proposals makes Faster R-CNN 1.73 times as fast", "S0 (H15)", here])
    low = next((run for run in found["runs"] if run["system"] == "lowres"), None) if found else None
    here = NOT_RUN
    if low:
        figures = {name: 100 * row["map"] for name, row in low["test"].items()}
        (own,) = (value for name, value in figures.items() if name.startswith("trained at 160"))
        (fed,) = (value for name, value in figures.items() if name.endswith("320, given 160"))
        here = f"{own - fed:+.1f} points: {own:.1f}% against {fed:.1f}% (one run each, 160 and 320 px)"
    rows.append(
        ["Training at the low resolution: 5 points more than small images in the large model", "S0 (H13)", here]
    )
    here = _mosaic(found["runs"]) if found else NOT_RUN
    rows.append(["Mosaic helps small sets: no source says so, a peer does it", "arXiv:2004.10934 §3.3", here])
    return text + table(("Claim", "where", "here"), rows, 3)


def _mosaic(runs: list[dict[str, Any]]) -> str:
    """What half of the images as mosaics change in the mean of the seeds that ran both ways."""
    both = {name: run["test"]["map"] for run in runs if (name := run["name"]).startswith("mosaic")}
    seeds = sorted({name.rpartition("-")[2] for name in both})
    seeds = [seed for seed in seeds if {f"mosaic0.0-{seed}", f"mosaic0.5-{seed}"} <= both.keys()]
    if not seeds:
        return NOT_RUN
    changes = [100 * (both[f"mosaic0.5-{seed}"] - both[f"mosaic0.0-{seed}"]) for seed in seeds]
    each = ", ".join(f"{change:+.1f}" for change in changes)
    return f"{sum(changes) / len(changes):+.1f} points of mAP with mosaics in half of the images (by seed {each})"


def _export() -> str:
    text, found = "### The whole detector against its raw heads, in ONNX Runtime\n\n", load("detector_export")
    if not found:
        return text + f"{NOT_RUN.capitalize()}.\n"
    rows = [
        [network, graph, f"{ms:.2f}", f"{ms / row['processor_ms']['raw']:.2f}"]
        for network, row in found["networks"].items()
        for graph, ms in row["processor_ms"].items()
    ]
    text += (
        f"Processor time of the median of {found['images']['timed']} images, one thread; wanted: nms at most 1.3 times "
    )
    text += f"raw. All three forms find the same boxes as torch on {found['images']['compared']} images. "
    text += "coco: TensorFlow's trained SSDLite; torchvision: random weights with scores spread as widely. Command: "
    text += "`python benchmarks/detector_export.py`.\n\n"
    return text + table(("Network", "graph", "ms", "of the raw heads'"), rows, 2) + machine(found)


def _counts() -> str:
    text, found = "### Parameters and multiply-adds beside the papers'\n\n", load("detection_counts")
    if not found:
        return text + f"{NOT_RUN.capitalize()}.\n"
    rows = list[list[str]]()
    for row in found["rows"]:
        paper, ours = row["paper"], row["ours"]
        figures = [_figure(source, key) for key in ("params_m", "madds_b") for source in (paper, ours)]
        rows.append([row["table"], row["row"], *figures, row.get("note", "")])
    head = ("Table", "row", "parameters, paper (M)", "ours", "MAdds, paper (B)", "ours", "note")
    lines = table(head, rows, 2)
    notes = "\n".join(f"- {name}: {words}" for name, words in found["notes"].items())
    return f"{text}{lines}\n{notes}\n"


def _figure(source: dict[str, float] | None, key: str) -> str:
    return "-" if source is None or source.get(key) is None else f"{source[key]:.2f}"
