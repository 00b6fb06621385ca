"""The table of docs/deploy.md: every network in every runtime, in every precision.

    python benchmarks/deploy.py export FILES SOURCE... [--imagenet FOLDER] [--photos FOLDER] [--targets NAME...]
    python benchmarks/deploy.py latency FILES [NETWORK...]
    python benchmarks/deploy.py page

``export`` writes the files of each SOURCE into the folder FILES, and what is true of them on any machine, however busy:
size, parity with torch, accuracy measured in their runtime. A SOURCE is a run, judged on its validation images and
calibrated with 128 training images; or a network of the zoo with ImageNet weights (POCKETVISION_WEIGHTS), judged on
three of four images of --imagenet (labels.csv and images) and calibrated with the fourth; or a network of the zoo
without weights at hand: random ones with the statistics of --photos, of which size and time say something, accuracy
does not. ``latency`` times all files of a network in turns, batch 1, one thread, beside torch and beside the path that
users of timm or torchvision take: torch.onnx.export, ONNX Runtime. Both write benchmarks/results/deploy/NETWORK.json.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deploy_peers import peer
from int8_onnxruntime import random_with_statistics

from pocketvision.app.accuracy import accuracy_of
from pocketvision.app.qat import CALIBRATION_IMAGES, calibration_images
from pocketvision.app.source import split_file
from pocketvision.data.image import SUFFIXES
from pocketvision.data.sources import Item, load_split
from pocketvision.data.transforms import load_prepared
from pocketvision.errors import PocketvisionError
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.targets import TARGETS, Precision, export_to, file_name
from pocketvision.measuring.latency import measure
from pocketvision.measuring.machine import load_average, this_machine
from pocketvision.measuring.parity import parity
from pocketvision.measuring.runtimes import (
    open_any_model,
    open_file,
    open_model,
    open_model_detector,
    open_model_segmenter,
    runtime_of,
)
from pocketvision.nn.load import imagenet_labels
from pocketvision.nn.load import load_model as load_weights
from pocketvision.nn.model import Model, stand_in
from pocketvision.spec.heads import task_of
from pocketvision.training.checkpoint import load_model
from pocketvision.training.evaluate import evaluate
from pocketvision.training.evaluate_detection import evaluate_detector
from pocketvision.training.evaluate_segmentation import evaluate_segmenter
from pocketvision.zoo import MODELS, model_spec
from pocketvision.zoo.weights import available

RESULTS = Path(__file__).parent / "results" / "deploy"
PARITY_IMAGES = 32
PACKAGES = ("torch", "onnxruntime", "litert-torch", "ai-edge-litert", "ai-edge-quantizer", "executorch")
PACKAGES += ("openvino", "nncf", "ncnn", "pnnx", "coremltools", "timm", "torchvision")


@dataclass(frozen=True, slots=True)
class Source:
    """A network and the images that judge and calibrate it; ``items`` is empty where its weights are random."""

    name: str
    weights: str
    model: Model
    items: Sequence[Item]
    classes: Sequence[str]
    calibration: np.ndarray


def from_run(run: Path) -> Source:
    """A run, by the name of its folder, and its own split."""
    model, split = load_model(run).eval(), split_file(run)
    assert split is not None, run
    data = load_split(split)
    weights = "fine-tuned" if model.rounding is None else "trained for int8, which is what they are for"
    if model.rounding is not None:
        model.rounding.on = True
    return Source(run.name, weights, model, data.val, data.classes, calibration_images(run, split, model))


def from_zoo(name: str, imagenet: Path, photos: Path) -> Source:
    """A network with ImageNet weights, or random ones."""

    def prepared(files: Sequence[Path]) -> np.ndarray:
        how = model_spec(name).preprocessing if model is None else model.spec.preprocessing
        return np.stack([load_prepared(file, how) for file in files])

    model = load_weights(model_spec(name), "imagenet")[0].eval() if available(MODELS[name]()) else None
    if model is None:
        files = sorted(file for file in photos.rglob("*") if file.suffix.lower() in SUFFIXES)
        seen = prepared(files[:: max(1, len(files) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES])
        return Source(name, "random", random_with_statistics(name, seen), (), (), seen)
    with (imagenet / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    items = [Item(str(imagenet / row["file"]), int(row["index"])) for row in rows]
    judged = [item for place, item in enumerate(items) if place % 4]
    return Source(name, "ImageNet", model, judged, imagenet_labels(), prepared([Path(i.image) for i in items[::4]]))


def export(source: Source, folder: Path, targets: Sequence[str]) -> None:
    """All files of one network, each with what is true of it."""
    place = folder / source.name
    place.mkdir(parents=True, exist_ok=True)
    result = read(source.name)
    model, how = source.model, source.model.spec.preprocessing
    task = task_of(model.spec.head)
    result |= {"weights": source.weights, "task": task, "size": how.size, "n": len(source.items)}
    if source.items:
        result["torch"] = round(torch_accuracy(source), 4)
    images = source.calibration
    if source.items:
        step = max(1, len(source.items) // PARITY_IMAGES)
        images = np.stack([load_prepared(item.image, how) for item in source.items[::step][:PARITY_IMAGES]])
    np.save(place / "image.npy", images[:1])
    for target in targets:
        for precision in TARGETS[target].precisions:
            row = exported(source, place / file_name("model", target, precision), target, precision, images)
            result.setdefault("files", {}).setdefault(target, {})[precision] = row
            print(source.name, target, precision, row, flush=True)
            write(source.name, result)


def torch_accuracy(source: Source) -> float:
    """Top-1, mAP or mIoU of the network as it was trained."""
    model, rest = source.model, (source.items, source.model.spec.preprocessing, source.classes)
    match task_of(model.spec.head):
        case "classify":
            return evaluate(open_model(model), *rest).value
        case "detect":
            return evaluate_detector(open_model_detector(model), *rest).value
        case "segment":
            return evaluate_segmenter(open_model_segmenter(model), *rest).value


def exported(source: Source, out: Path, target: str, precision: Precision, images: np.ndarray) -> dict[str, Any]:
    """One file."""
    start = time.process_time()
    try:
        given = source.calibration if precision == "int8" else None
        artifact = export_to(target, source.model, out, precision=precision, calibration=given)
    except PocketvisionError as error:
        return {"error": str(error).replace(str(out.parent), "").partition("\n")[0]}
    row: dict[str, Any] = {"mb": round(artifact.size_mb, 3), "export_s": round(time.process_time() - start, 1)}
    if runtime_of(artifact) is None:
        return row | {"parity": None}
    row["parity"] = parity(artifact, source.model, images).to_dict()
    if source.items:
        row["accuracy"] = round(accuracy_of(artifact, source.items, source.classes, threads=1)[1].value, 4)
    return row


def latency(name: str, folder: Path) -> None:
    """All files of one network in turns."""
    result, image = read(name), np.load(folder / name / "image.npy")
    torch.set_num_threads(1)
    artifacts = {
        f"{target} {precision}": Artifact.load(folder / name / file_name("model", target, precision))
        for target, rows in result["files"].items()
        for precision, row in rows.items()
        if "error" not in row
    }
    sessions = {kind: open_file(artifact) for kind, artifact in artifacts.items() if runtime_of(artifact)}
    calls: dict[str, Callable[[], object]] = {kind: partial(run, image) for kind, run in sessions.items()}
    eager = open_any_model(stand_in(next(iter(artifacts.values())).spec))
    calls["torch"] = lambda: eager(image)
    if (other := peer(name, image.shape[1])) is not None:
        result["peer"], calls["peer"] = other
    found = measure(calls, n=100, seconds=120)
    keys = ("min_ms", "median_ms", "p90_ms", "n", "interrupted", "disturbed", "load_before")
    result["latency"] = {kind: {key: row.to_dict()[key] for key in keys} for kind, row in found.items()}
    result["timed"] = datetime.now(UTC).isoformat(timespec="seconds")
    write(name, result)
    for kind, row in found.items():
        print(f"{name} {kind}: {row.median_ms:.2f} ms", flush=True)


def read(name: str) -> dict[str, Any]:
    """What is known of a network."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(name: str, result: dict[str, Any]) -> None:
    """The same, with versions and machine."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    versions = dict[str, str]()
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    result |= {"versions": versions, "machine": this_machine().to_dict(), "load": load_average()}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    """Export, time or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export")
    exporting.add_argument("files", type=Path)
    exporting.add_argument("sources", nargs="+")
    exporting.add_argument("--imagenet", type=Path)
    exporting.add_argument("--photos", type=Path)
    exporting.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    timing = commands.add_parser("latency")
    timing.add_argument("files", type=Path)
    timing.add_argument("networks", nargs="*")
    commands.add_parser("page")
    arguments = parser.parse_args()
    match arguments.command:
        case "export":
            torch.set_num_threads(1)
            for name in arguments.sources:
                if name in MODELS:
                    source = from_zoo(name, arguments.imagenet, arguments.photos)
                else:
                    source = from_run(Path(name))
                export(source, arguments.files, arguments.targets)
        case "latency":
            for name in arguments.networks or sorted(path.name for path in arguments.files.iterdir()):
                latency(name, arguments.files)
        case "page":
            from deploy_page import write_page

            write_page()


if __name__ == "__main__":
    main()
