"""int8 in ONNX Runtime: how fast, how large and how right our files are, beside float32 and ONNX Runtime's quantiser.

    python benchmarks/int8_onnxruntime.py IMAGENET CALIBRATION [--models NAME...] [--n 200]

IMAGENET: a folder with labels.csv (file, index) and images; 200 labelled ImageNet images in our case: enough to see
that a network still works, and how often two forms of it agree, not its accuracy. CALIBRATION: a folder of other
photos, of which 64 are used. POCKETVISION_WEIGHTS names the folder of weights; MobileNetV3-Large has none at hand:
random ones, with the statistics of the photos, and nothing said of its accuracy.

Of every network, in turns, batch 1, one thread: float32, our int8, and ``quantize_static`` of ONNX Runtime (QDQ,
weights per channel, minmax). Twice: as ``measuring.latency`` counts, and in processor time, which other work disturbs
less (the least of the rounds). Of our int8 also with each way to find ranges, and with nothing left in float.
Writes benchmarks/results/int8_onnxruntime.json.
"""

import argparse
import csv
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from pocketvision.data.image import SUFFIXES
from pocketvision.data.transforms import load_prepared
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.onnx import export
from pocketvision.exporting.onnx_int8 import quantize
from pocketvision.measuring.latency import measure
from pocketvision.measuring.machine import load_average, this_machine
from pocketvision.nn.load import load_model
from pocketvision.nn.model import Model, build
from pocketvision.spec.model import Preprocessing
from pocketvision.zoo import model_spec

RESULTS = Path(__file__).parent / "results" / "int8_onnxruntime.json"
MODELS = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mobileone_s0", "efficientnet_lite0")
WANTED = {"mobilenet_v3_small": 1.2, "mobilenet_v3_large": 1.2}  # times as fast; 1.5 of the others
CALIBRATION, ROUNDS = 64, 60


def session(model: Any) -> onnxruntime.InferenceSession:
    """One thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def scores(model: Any, images: np.ndarray) -> np.ndarray:
    """Of each image, alone."""
    run = session(model).run
    return np.concatenate([np.asarray(run(None, {"image": image[None]})[0]) for image in images])


def random_with_statistics(name: str, photos: np.ndarray) -> Model:
    """Random weights, BatchNorm's statistics of ``photos``, logits that spread."""
    torch.manual_seed(0)
    model = build(model_spec(name))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=2 / module.in_features**0.5)
    with torch.no_grad():
        for batch in np.array_split(photos, 4):
            model(torch.from_numpy(batch).permute(0, 3, 1, 2) / 64 - 2)
    return model.eval()


def peers(path: Path, calibration: np.ndarray, out: Path) -> bytes:
    """What ONNX Runtime's own quantiser makes of the file at ``path``."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images: Iterator[np.ndarray] = iter(calibration)

        def get_next(self) -> Any:
            image = next(self.images, None)
            return None if image is None else {"image": image[None]}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(
            path,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return out.read_bytes()


def processor_ms(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Milliseconds of this thread for one call of each: the least of ``ROUNDS``, the second of two calls in a row."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            start = time.thread_time_ns()
            call()
            least[name] = min(least[name], (time.thread_time_ns() - start) / 1e6)
    return {name: round(value, 3) for name, value in least.items()}


def accuracy(answers: np.ndarray, exact: np.ndarray, labels: np.ndarray | None) -> dict[str, float | None]:
    """Of one form, beside float32 (``exact``)."""
    divergence = (exact * (np.log(exact + 1e-9) - np.log(answers + 1e-9))).sum(1).mean()
    return {
        "top1": None if labels is None else round(float((answers.argmax(1) == labels).mean()), 4),
        "agreement": round(float((answers.argmax(1) == exact.argmax(1)).mean()), 4),
        "divergence": round(float(divergence), 5),
    }


def convolutions(file: bytes) -> list[str]:
    """Those that stay float."""
    return [node.name for node in onnx.load_model_from_string(file).graph.node if node.op_type == "Conv"]


def contest(name: str, labelled: tuple[list[Path], np.ndarray], photos: list[Path], n: int) -> dict[str, Any]:
    """Everything about one network."""

    def prepared(files: list[Path], how: Preprocessing) -> np.ndarray:
        return np.stack([load_prepared(file, how) for file in files])

    real = name != "mobilenet_v3_large"
    model = load_model(model_spec(name), "imagenet")[0].eval() if real else None
    how = model.spec.preprocessing if model else model_spec(name).preprocessing
    calibration, images = prepared(photos, how), prepared(labelled[0], how)
    model = model or random_with_statistics(name, calibration)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        export(model, out=path)
        start = time.thread_time()
        artifact: Artifact = export(model, precision="int8", calibration=calibration, out=Path(folder) / "int8.onnx")
        seconds = time.thread_time() - start
        files = {"float32": path.read_bytes(), "int8": artifact.path.read_bytes()}
        files["quantize_static"] = peers(path, calibration, Path(folder) / "peer.onnx")
        for method in ("harm", "percentile", "mse", "minmax"):
            proto = quantize(onnx.load(path), calibration, ranges=method, keep_float=())
            files[f"{method}, nothing float"] = proto.SerializeToString()
    timed = {kind: session(files[kind]) for kind in ("float32", "int8", "harm, nothing float", "quantize_static")}
    calls = {kind: lambda s=s: s.run(None, {"image": images[:1]}) for kind, s in timed.items()}
    processor = processor_ms(calls)
    latency = measure(calls, n=n, seconds=60)
    answers = {kind: scores(file, images) for kind, file in files.items()}
    truth = labelled[1] if real else None
    right = {kind: accuracy(each, answers["float32"], truth) for kind, each in answers.items()}
    keys = ("min_ms", "median_ms", "p90_ms", "n", "interrupted", "disturbed", "load_before")
    result = {
        "weights": "published" if real else "random",
        "mb": {kind: round(len(file) / 1e6, 3) for kind, file in files.items()},
        "size_ratio": round(len(files["int8"]) / len(files["float32"]), 3),
        "speedup": round(latency["float32"].median_ms / latency["int8"].median_ms, 3),
        "speedup_processor": round(processor["float32"] / processor["int8"], 3),
        "wanted": WANTED.get(name, 1.5),
        "float_convolutions": convolutions(files["int8"]),
        "export_processor_seconds": round(seconds, 1),
        "processor_ms": processor,
        "latency": {kind: {key: row.to_dict()[key] for key in keys} for kind, row in latency.items()},
        "accuracy": right,
    }
    print(f"{name}: {result['speedup']}x ({result['speedup_processor']}x), size {result['size_ratio']}", flush=True)
    print(f"  processor {processor}; float convolutions {result['float_convolutions']}", flush=True)
    for kind, row in right.items():
        print(f"  {kind:26} {row}", flush=True)
    return result


def main() -> None:
    """Quantise, compare, time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--n", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with (arguments.imagenet / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    images = [arguments.imagenet / "images" / Path(row["file"]).name for row in rows]
    labelled = images, np.array([int(row["index"]) for row in rows])
    photos = sorted(file for file in arguments.calibration.rglob("*") if file.suffix.lower() in SUFFIXES)
    photos = photos[:: max(1, len(photos) // CALIBRATION)][:CALIBRATION]
    before = json.loads(RESULTS.read_text())["networks"] if RESULTS.exists() else {}
    networks = before | {name: contest(name, labelled, photos, arguments.n) for name in arguments.models}
    written = {
        "networks": {name: networks[name] for name in MODELS if name in networks},
        "versions": {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__, "torch": torch.__version__},
        "threads": 1,
        "images": {"labelled": len(images), "calibration": len(photos)},
        "machine": this_machine().to_dict(),
        "load": load_average(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULTS.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
