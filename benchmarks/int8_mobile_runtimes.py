"""LiteRT and ExecuTorch in float32, float16 and int8: how fast, how large and how right their files are.

    python benchmarks/int8_mobile_runtimes.py IMAGENET CALIBRATION [--models NAME...] [--runtimes NAME...] [--n 100]

IMAGENET, CALIBRATION, POCKETVISION_WEIGHTS and the random MobileNetV3-Large as in int8_onnxruntime.py. Of every network
and runtime, in turns, batch 1, one thread: the three precisions, and ONNX Runtime's float32. Twice: as
``measuring.latency`` counts, and in processor time, which other work disturbs less (the least of the rounds; of
threads that a runtime starts itself nothing is seen, but there is only one).
Writes benchmarks/results/int8_mobile_runtimes.json, network by network, beside what is there already.
"""

import argparse
import csv
import json
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from int8_onnxruntime import CALIBRATION, MODELS, WANTED, accuracy, processor_ms, random_with_statistics

from pocketvision.data.image import SUFFIXES
from pocketvision.data.transforms import load_prepared
from pocketvision.exporting.targets import Precision, export_to, file_name
from pocketvision.measuring.latency import measure
from pocketvision.measuring.machine import load_average, this_machine
from pocketvision.measuring.runtimes import open_file
from pocketvision.nn.load import load_model
from pocketvision.zoo import model_spec

RESULTS = Path(__file__).parent / "results" / "int8_mobile_runtimes.json"
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
PACKAGES = ("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "executorch", "torchao", "torch", "onnxruntime")


def contest(name: str, runtime: str, labelled: list[Path], labels: np.ndarray, photos: list[Path], n: int) -> Any:
    """One network in one runtime."""
    real = name != "mobilenet_v3_large"
    model = load_model(model_spec(name), "imagenet")[0].eval() if real else None
    how = model.spec.preprocessing if model else model_spec(name).preprocessing
    calibration, images = (np.stack([load_prepared(file, how) for file in files]) for files in (photos, labelled))
    model = model or random_with_statistics(name, calibration)
    files: dict[str, Any] = {}
    seconds = dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        files["onnxruntime float32"] = export_to("onnx", model, Path(folder) / "float.onnx")
        for precision in PRECISIONS:
            start = time.process_time()
            out = Path(folder) / file_name("model", runtime, precision)
            given = calibration if precision == "int8" else None
            files[precision] = export_to(runtime, model, out, precision=precision, calibration=given)
            seconds[precision] = round(time.process_time() - start, 1)
        sessions = {kind: open_file(artifact) for kind, artifact in files.items()}
        mb = {kind: round(artifact.size_mb, 3) for kind, artifact in files.items()}
    answers = {kind: session(images)[0] for kind, session in sessions.items() if kind in PRECISIONS}
    exact = np.concatenate([sessions["onnxruntime float32"](image[None])[0] for image in images])
    calls = {kind: lambda s=session: s(images[:1]) for kind, session in sessions.items()}
    processor = processor_ms(calls)
    latency = measure(calls, n=n, seconds=60)
    keys = ("min_ms", "median_ms", "p90_ms", "n", "interrupted", "disturbed", "load_before")
    truth = labels if real else None
    result = {
        "weights": "published" if real else "random",
        "mb": mb,
        "size_ratio": round(mb["int8"] / mb["float32"], 3),
        "speedup": round(latency["float32"].median_ms / latency["int8"].median_ms, 3),
        "speedup_processor": round(processor["float32"] / processor["int8"], 3),
        "wanted": WANTED.get(name, 1.5),
        "export_processor_seconds": seconds,
        "processor_ms": processor,
        "latency": {kind: {key: row.to_dict()[key] for key in keys} for kind, row in latency.items()},
        "accuracy": {kind: accuracy(each, exact, truth) for kind, each in (answers | {"onnxruntime": exact}).items()},
    }
    print(f"{name} in {runtime}: int8 {result['speedup']}x ({result['speedup_processor']}x), {processor}, {seconds} s")
    for kind, row in result["accuracy"].items():
        print(f"  {kind:12} {row}", flush=True)
    return result


def main() -> None:
    """Export, compare, time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--runtimes", nargs="+", default=("litert", "executorch"))
    parser.add_argument("--n", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with (arguments.imagenet / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    labelled = [arguments.imagenet / "images" / Path(row["file"]).name for row in rows]
    labels = np.array([int(row["index"]) for row in rows])
    photos = sorted(file for file in arguments.calibration.rglob("*") if file.suffix.lower() in SUFFIXES)
    photos = photos[:: max(1, len(photos) // CALIBRATION)][:CALIBRATION]
    for name in arguments.models:
        for runtime in arguments.runtimes:
            result = contest(name, runtime, labelled, labels, photos, arguments.n)
            networks = json.loads(RESULTS.read_text())["networks"] if RESULTS.exists() else {}
            networks.setdefault(name, {})[runtime] = result
            written = {
                "networks": {each: networks[each] for each in MODELS if each in networks},
                "versions": {package: version(package) for package in PACKAGES},
                "threads": 1,
                "images": {"labelled": len(labelled), "calibration": len(photos)},
                "machine": this_machine().to_dict(),
                "load": load_average(),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            RESULTS.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
