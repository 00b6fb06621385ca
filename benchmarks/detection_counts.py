"""Parameters and multiply-adds of the papers' detectors beside the papers' figures (S1 Table 6, S4 Tables 5 and 6).

    python benchmarks/detection_counts.py [--latency]

Counted from the rows of the tables (``spec.cost``, which tests prove against the built modules): convolutions only, as
everywhere here; parameters with BatchNorm merged into the convolutions, as a phone runs them, and as trained. Writes
benchmarks/results/detection_counts.json.

With --latency both detectors of S4 Table 5 also run in ONNX Runtime, up to the raw heads, in turns on one thread; the
file keeps what was measured last.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pocketvision.spec.cost import cost
from pocketvision.spec.detectors import EXTRAS, default_anchors, with_ssd
from pocketvision.spec.model import ModelSpec
from pocketvision.spec.rows import round8
from pocketvision.spec.transform import TailRule, as_folded, with_backbone
from pocketvision.zoo import model_spec
from pocketvision.zoo.coco import tensorflow_anchors

RESULTS = Path(__file__).parent / "results" / "detection_counts.json"
V1, V2, MNAS = "mobilenet_v1", "mobilenet_v2", "mnasnet_a1"
LARGE, SMALL = "mobilenet_v3_large", "mobilenet_v3_small"
NOTES = {
    "setup": "What reproduces S1 Table 6 throughout: 320 pixels, 90 classes and the background, TensorFlow's anchors "
    "(3 on the finest map, 6 on the others), the finest map from inside the strided block for MnasNet too, merged "
    "BatchNorm. With torchvision's 6 anchors everywhere each network is larger than the paper's.",
    "small multipliers": "The multiplier scales everything: the extra maps (at least 16 channels) and the last "
    "convolution too, which a classifier keeps at 1280.",
    "halved": "Table 6's halving leaves the first stride-32 block's expansion whole, as torchvision's reduced_tail "
    "does; halving that as well (RF2 of the segmentation table, FACTS C-8) leaves 10% and 5% fewer parameters than "
    "printed.",
    "S4": "80 classes and the background, else the same; S1 repeats these two rows of S4 with 80 classes beside rows "
    "of its own with 90.",
    "SSD": "Three figures of S4 Table 5 agree; SSDLite's 0.35 B does not (FACTS C-25): 0.18 B here, and Table 6's own "
    "total leaves no room for it: 0.80 B less the backbone's 0.61 B is 0.19 B.",
    "MnasNet outputs": "What with_ssd builds unless told inside=True: the finest map is the output of the last "
    "stride-16 stage. Cheaper than the paper's.",
    "not ours": "VGG and Darknet networks are not in the zoo. SSD300: torchvision's figures of its ssd300_vgg16 with "
    "90 classes.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a paper's table: its parameters in millions and multiply-adds in billions, and the network for it."""

    table: str
    name: str
    params_m: float
    madds_b: float
    spec: ModelSpec | None
    note: str
    heads_only: bool = False


def detector(
    name: str,
    width: float = 1.0,
    *,
    classes: int = 90,
    halved: TailRule | None = None,
    separable: bool = True,
    inside: bool | None = None,
    few_anchors: bool = True,
) -> ModelSpec:
    """SSDLite as the papers' TensorFlow code builds it, a width below 1 scaling everything."""
    spec, extras = model_spec(name, width=width), EXTRAS
    if width < 1:
        *rows, last = spec.backbone.rows
        spec = with_backbone(spec, rows=(*rows, replace(last, out=round8(1280 * width))))
        extras = tuple(max(16, int(channels * width)) for channels in extras)
    anchors = tensorflow_anchors() if few_anchors else default_anchors(6)
    return with_ssd(spec, classes, separable=separable, extras=extras, anchors=anchors, halved=halved, inside=inside)


def rows() -> Iterator[Row]:
    """Every line of the three tables, and variants that explain a difference."""
    table = "S1 Table 6"
    yield Row(table, "V1", 5.1, 1.3, detector(V1, classes=80), "S4")
    yield Row(table, "V2", 4.3, 0.80, detector(V2, classes=80), "S4")
    yield Row(table, "MnasNet", 4.88, 0.84, detector(MNAS, inside=True), "setup")
    yield Row(table, "MnasNet, stage outputs", 4.88, 0.84, detector(MNAS), "MnasNet outputs")
    yield Row(table, "V3", 4.97, 0.62, detector(LARGE), "setup")
    yield Row(table, "V3 halved", 3.22, 0.51, detector(LARGE, halved="torchvision"), "halved")
    yield Row(table, "V3 halved as RF2", 3.22, 0.51, detector(LARGE, halved="paper"), "halved")
    every = detector(LARGE, halved="torchvision", few_anchors=False)
    yield Row(table, "V3 halved, torchvision's anchors", 3.22, 0.51, every, "setup")
    yield Row(table, "V2 0.35", 0.93, 0.16, detector(V2, 0.35), "small multipliers")
    yield Row(table, "V2 0.5", 1.54, 0.27, detector(V2, 0.5), "small multipliers")
    yield Row(table, "MnasNet 0.35", 1.02, 0.18, detector(MNAS, 0.35, inside=True), "small multipliers")
    yield Row(table, "MnasNet 0.5", 1.68, 0.29, detector(MNAS, 0.5, inside=True), "small multipliers")
    yield Row(table, "V3-Small", 2.49, 0.21, detector(SMALL), "setup")
    yield Row(table, "V3-Small halved", 1.77, 0.16, detector(SMALL, halved="torchvision"), "halved")
    yield Row(table, "V3-Small halved as RF2", 1.77, 0.16, detector(SMALL, halved="paper"), "halved")
    table = "S4 Table 5"
    yield Row(table, "SSD", 14.8, 1.25, detector(V2, classes=80, separable=False), "SSD", heads_only=True)
    yield Row(table, "SSDLite", 2.1, 0.35, detector(V2, classes=80), "SSD", heads_only=True)
    table = "S4 Table 6"
    yield Row(table, "SSD300", 36.1, 35.2, None, "not ours")
    yield Row(table, "SSD512", 36.1, 99.5, None, "not ours")
    yield Row(table, "YOLOv2", 50.7, 17.5, None, "not ours")
    yield Row(table, "V1 + SSDLite", 5.1, 1.3, detector(V1, classes=80), "S4")
    yield Row(table, "V2 + SSDLite", 4.3, 0.8, detector(V2, classes=80), "S4")


def counted(row: Row) -> dict[str, Any]:
    """The line with our figures; ``None`` where there is nothing to count."""
    line: dict[str, Any] = {
        "table": row.table,
        "row": row.name,
        "paper": {"params_m": row.params_m, "madds_b": row.madds_b},
        "ours": None,
        "note": row.note,
    }
    if row.name == "SSD300":
        from torchvision.models.detection import SSD300_VGG16_Weights

        meta = SSD300_VGG16_Weights.COCO_V1.meta
        line["ours"] = {"params_m": round(meta["num_params"] / 1e6, 3), "madds_b": meta["_ops"]}
    if row.spec is None:
        return line
    deploy, trained = cost(as_folded(row.spec)), cost(row.spec)
    part, whole = (deploy.rows[-1], trained.rows[-1]) if row.heads_only else (deploy, trained)
    line["ours"] = {
        "params_m": round(part.params / 1e6, 3),
        "params_trained_m": round(whole.params / 1e6, 3),
        "madds_b": round(part.madds / 1e9, 3),
    }
    line["difference_percent"] = {
        "params": round(100 * (part.params / 1e6 / row.params_m - 1), 1),
        "madds": round(100 * (part.madds / 1e9 / row.madds_b - 1), 1),
    }
    return line


def latency(runs: int = 100) -> dict[str, Any]:
    """Median milliseconds of processor time for an image with either head on MobileNetV2, and their ratio."""
    import numpy as np
    import onnxruntime
    import torch

    from pocketvision.measuring.machine import load_average, this_machine
    from pocketvision.nn.fold import fold
    from pocketvision.nn.model import Model, build

    class RawHeads(torch.nn.Module):
        def __init__(self, model: Model) -> None:
            super().__init__()
            self.model = model

        def forward(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = self.model(x_BCHW)
            return outputs.logits, outputs.codes

    sessions, options = dict[str, onnxruntime.InferenceSession](), onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for head, separable in (("SSD", False), ("SSDLite", True)):
        model = RawHeads(fold(build(detector(V2, classes=80, separable=separable)).eval())).eval()
        program = torch.onnx.export(model, (torch.zeros(1, 3, 320, 320),), dynamo=True, verbose=False)
        assert program is not None
        sessions[head] = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)
    times: dict[str, list[float]] = {head: [] for head in sessions}
    image = np.random.default_rng(0).standard_normal((1, 3, 320, 320), dtype=np.float32)
    for _ in range(runs + 10):
        for head, session in sessions.items():
            start = time.process_time()
            session.run(None, {session.get_inputs()[0].name: image})
            times[head].append(1000 * (time.process_time() - start))
    medians = {head: round(statistics.median(values[10:]), 2) for head, values in times.items()}
    return {
        "processor_ms": medians,
        "ratio": round(medians["SSD"] / medians["SSDLite"], 2),
        "runs": runs,
        "onnxruntime": onnxruntime.__version__,
        "machine": this_machine().to_dict(),
        "load": load_average(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    """Print the tables and write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", action="store_true")
    measured = latency() if parser.parse_args().latency else None
    if measured is None and RESULTS.exists():
        measured = json.loads(RESULTS.read_text())["latency"]
    lines = [counted(row) for row in rows()]
    print(f"{'':46}{'M parameters':>22}{'B multiply-adds':>22}\n{'':46}" + f"{'paper':>11}{'here':>11}" * 2)
    for line in lines:
        paper, ours = line["paper"], line["ours"] or {"params_m": "-", "madds_b": "-"}
        figures = (paper["params_m"], ours["params_m"], paper["madds_b"], ours["madds_b"])
        name = f"{line['table']}: {line['row']}"
        print(f"{name:46}" + "".join(f"{figure:>11}" for figure in figures) + f"  {line['note']}")
    for note, text in NOTES.items():
        print(f"\n{note}: {text}")
    print("\nSSD and SSDLite heads on MobileNetV2:", measured or "not measured; run with --latency")
    RESULTS.parent.mkdir(exist_ok=True)
    command = "python benchmarks/detection_counts.py --latency"
    result = {"command": command, "pixels": 320, "rows": lines, "notes": NOTES, "latency": measured}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
