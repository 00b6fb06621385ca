"""LR-ASPP, R-ASPP, DeepLabV3 and FCN on a small segmentation set, in the form of S1 Table 7, and S1's observations.

    python benchmarks/segmentation.py train DATA --row "V2 LR 128" --weights FOLDER [--seed 0]
    python benchmarks/segmentation.py latency [--size 256]
    python benchmarks/segmentation.py lowres DATA --weights FOLDER
    python benchmarks/segmentation.py join      # all runs and the latency -> benchmarks/results/segmentation.json

train: one row of ``ROWS`` with the default recipe for so many images, all for the same ``--epochs`` and at the same
``--size``, and its mIoU on val (camvid11 has no test). Rows start from ImageNet weights where there are some
("V2", "V3-S"); with the last block halved ("RF2", S1 §6.3) that block starts from random weights and the rest from
ImageNet's; "scratch" rows start from random weights, as all of S1's do (FACTS H24), with the recipe for that.

latency: all rows' networks in ONNX Runtime, one thread, interleaved, random weights: the time does not depend on them.

lowres (FACTS H28): a network trained at 520 pixels is given 520 and 320; what it loses and how much faster it is.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from pocketvision import files
from pocketvision.app.choose import load_whole
from pocketvision.app.options import TrainOptions
from pocketvision.app.training import train_spec
from pocketvision.data.sources import Dataset, open_dataset
from pocketvision.exporting.onnx import export
from pocketvision.measuring.latency import measure_sessions
from pocketvision.measuring.machine import load_average, this_machine
from pocketvision.measuring.runtimes import open_file
from pocketvision.nn.load import save_model
from pocketvision.nn.model import build, stand_in
from pocketvision.spec.cost import cost
from pocketvision.spec.model import ModelSpec
from pocketvision.spec.segmentation import with_deeplabv3, with_fcn, with_lraspp, with_raspp
from pocketvision.spec.transform import as_folded, reduced_tail, with_size
from pocketvision.training.checkpoint import load_model
from pocketvision.training.evaluate_segmentation import evaluate_segmenter, torch_segmenter
from pocketvision.zoo import model_spec

RESULTS = Path(__file__).resolve().parent / "results"
Start = Literal["imagenet", "partial", "none"]
NETWORKS = {"V2": "mobilenet_v2", "V3": "mobilenet_v3_large", "V3-S": "mobilenet_v3_small"}
HEADS: dict[str, Callable[..., ModelSpec]] = {
    "R": with_raspp,
    "LR": with_lraspp,
    "DeepLabV3": with_deeplabv3,
    "FCN": with_fcn,
}
TIMED, LARGE, SMALL = 100, 520, 320


@dataclass(frozen=True, slots=True)
class Row:
    """A network of the table: ``channels`` of the head (0: it has no such choice); ``paper``: its number there."""

    network: str
    head: str
    channels: int
    start: Start
    width: float = 1.0
    halved: bool = False
    paper: int = 0

    @property
    def name(self) -> str:
        """As it is asked for."""
        width = "" if self.width == 1 else f" {self.width:g}"
        parts = [self.network + width, "RF2" * self.halved, self.head, str(self.channels or "")]
        return " ".join([part for part in parts if part] + ["scratch"] * (self.start == "none"))

    def spec(self, labels: Sequence[str], size: int) -> ModelSpec:
        """The network for these classes."""
        spec = model_spec(NETWORKS[self.network], width=self.width)
        spec = reduced_tail(spec, "paper") if self.halved else spec
        channels = {"channels": self.channels} if self.channels else {}
        return HEADS[self.head](spec, tuple(labels), size=size, **channels)


ROWS = {
    row.name: row
    for row in (
        Row("V2", "R", 256, "imagenet", paper=1),
        Row("V2", "R", 256, "partial", halved=True, paper=2),
        Row("V2", "LR", 256, "partial", halved=True, paper=3),
        Row("V2", "LR", 128, "partial", halved=True, paper=4),
        Row("V2", "LR", 256, "imagenet"),
        Row("V2", "LR", 128, "imagenet"),
        Row("V2", "DeepLabV3", 256, "imagenet"),
        Row("V2", "FCN", 0, "imagenet"),
        Row("V3-S", "R", 256, "imagenet"),
        Row("V3-S", "LR", 128, "imagenet"),
        Row("V3-S", "FCN", 0, "imagenet"),
        Row("V2", "LR", 128, "none", halved=True, paper=4),
        Row("V3", "R", 256, "none", paper=5),
        Row("V3", "R", 256, "none", halved=True, paper=6),
        Row("V3", "LR", 256, "none", halved=True, paper=7),
        Row("V3", "LR", 128, "none", halved=True, paper=8),
        Row("V2", "LR", 128, "none", width=0.5, halved=True, paper=9),
        Row("V2", "LR", 128, "none", width=0.35, halved=True, paper=10),
        Row("V3-S", "LR", 128, "none", halved=True, paper=11),
    )
}


def train(row: Row, data: Dataset, size: int, arguments: argparse.Namespace) -> tuple[Path, float]:
    """Train a row; its run and how many seconds that took."""
    spec = row.spec(data.classes, size)
    project = Path(tempfile.mkdtemp(prefix="segmentation-"))
    options = TrainOptions(project=project, name="run", seed=arguments.seed, epochs=arguments.epochs)
    weights = "none" if row.start == "none" else "imagenet"
    if row.start == "partial":
        weights = str(partly_pretrained(row, spec, project))
    start = time.perf_counter()
    result, _ = train_spec(data, spec, weights, options)
    return result.run, time.perf_counter() - start


def partly_pretrained(row: Row, spec: ModelSpec, folder: Path) -> Path:
    """A file of random weights for ``spec``, with ImageNet's in all layers that the plain network has as they are."""
    plain = replace(row, halved=False, start="imagenet").spec(spec.labels, spec.preprocessing.size)
    model, donor = build(spec), load_whole(plain, "imagenet")[0].state_dict()
    own = model.state_dict()
    same = {name: donor[name] for name in own if name in donor and donor[name].shape == own[name].shape}
    model.load_state_dict(same, strict=False)
    return save_model(model, folder / "partly.safetensors")


def train_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """One row, trained and evaluated."""
    row, data = ROWS[arguments.row], open_dataset(arguments.data)
    run, seconds = train(row, data, arguments.size, arguments)
    model = load_model(run)
    result = evaluate_segmenter(torch_segmenter(model), data.val, model.spec.preprocessing, data.classes)
    print(result, flush=True)
    return {
        "row": row.name,
        "seconds": round(seconds, 1),
        "recipe": (run / "args.yaml").read_text(),
        "curve": (run / "results.csv").read_text().splitlines(),
        "val": result.to_dict() | {"worst": []},
    }


def latency_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds, parameters and MAdds of every row, in the form that is deployed."""
    specs = {row.name: as_folded(row.spec(CAMVID, arguments.size)) for row in ROWS.values()}
    unique = {name: spec for name, spec in specs.items() if not name.endswith("scratch") or name[:-8] not in specs}
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for number, (name, spec) in enumerate(unique.items()):
            artifact = export(stand_in(spec), out=Path(folder) / f"{number}.onnx")
            sessions[name] = open_file(artifact, threads=1)
        measured = measure_sessions(sessions, n=TIMED, seconds=120)
    return {
        name: {"params": cost(spec).params, "madds": cost(spec).madds, **measured[name].to_dict()}
        for name, spec in unique.items()
    }


CAMVID = tuple(f"class {number}" for number in range(11))


def lowres_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """LR-ASPP trained at 520 pixels, given 520 and 320."""
    row, data = ROWS[arguments.row], open_dataset(arguments.data)
    run, seconds = train(row, data, LARGE, arguments)
    model, rows, sessions = load_model(run), dict[str, Any](), {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (LARGE, SMALL):
            model.spec = with_size(model.spec, size, ratio=1.0)
            result = evaluate_segmenter(torch_segmenter(model), data.val, model.spec.preprocessing, data.classes)
            rows[str(size)] = dict(result.metrics)
            artifact = export(model.eval(), out=Path(folder) / f"{size}.onnx")
            sessions[str(size)] = open_file(artifact, threads=1)
        for size, latency in measure_sessions(sessions, n=TIMED).items():
            rows[size] |= latency.to_dict()
    return {"row": row.name, "seconds": round(seconds, 1), "sizes": rows}


def join() -> None:
    """One file of all runs."""
    folder = RESULTS / "segmentation"
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    runs = [run for run in found.values() if run["what"] == "train"]
    kinds = {kind: [run for run in found.values() if run["what"] == kind] for kind in ("latency", "lowres")}
    files.write_text(RESULTS / "segmentation.json", json.dumps({"runs": runs, **kinds}, indent=1) + "\n")


def main() -> None:
    """One run, or all of them together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "latency", "lowres", "join"])
    parser.add_argument("data", nargs="?")
    parser.add_argument("--row", choices=ROWS, default="V3-S LR 128")
    parser.add_argument("--weights", type=Path, help="folder with ImageNet weights")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--size", type=int, default=352)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.what == "join":
        join()
        return
    if arguments.weights:
        os.environ["POCKETVISION_WEIGHTS"] = str(arguments.weights)
    if arguments.what != "latency" and not arguments.data:
        parser.error("DATA is needed")
    runs = {"train": train_run, "latency": latency_run, "lowres": lowres_run}
    before, cpu_s, date = load_average(), time.process_time(), datetime.now(UTC).isoformat(timespec="seconds")
    found = runs[arguments.what](arguments)
    result = {"what": arguments.what, "size": arguments.size, "epochs": arguments.epochs, "seed": arguments.seed}
    result |= {"rows": found} if arguments.what == "latency" else found
    result |= {"processor_s": round(time.process_time() - cpu_s, 1), "load_before": before, "date": date}
    result |= {"machine": this_machine().to_dict(), "torch": torch.__version__}
    row = f" {arguments.row}-{arguments.size}-{arguments.seed}"
    name = arguments.what + (row if arguments.what != "latency" else "")
    path = RESULTS / "segmentation" / f"{name.replace(' ', '_').lower()}.json"
    print(files.write_text(path, json.dumps(result, indent=1) + "\n"))


if __name__ == "__main__":
    main()
