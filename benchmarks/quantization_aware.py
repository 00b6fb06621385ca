"""int8 by calibration and by training for it, in the form of Q1 of the facts: float32, PTQ, QAT, in ONNX Runtime.

    python benchmarks/quantization_aware.py ../shared/data/clothing10 runs/classify/mobilenet_v3_small-1 ...

For each finished RUN: top-1 on DATA's validation images, which the run has not been trained on, of its float32 file; of
what ONNX Runtime's own quantiser makes of that (extremes as ranges, its default, and one range for each channel of
weights, without which MobileNets fall to chance); of our int8 with extremes as ranges, and as it is exported; and of
the run trained for int8 (`pocketvision train --qat RUN`, below --project, which is made where it is missing). Each
beside the 95% interval of its difference from float32 over the same images. Writes
benchmarks/results/quantization_aware.json.
"""

import argparse
import json
import math
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from int8_onnxruntime import peers, scores

from pocketvision.app.options import TrainOptions
from pocketvision.app.qat import calibration_images, train_for_int8
from pocketvision.app.source import split_file
from pocketvision.data.sources import load_split, open_dataset
from pocketvision.data.transforms import load_prepared
from pocketvision.exporting.onnx import export
from pocketvision.measuring.machine import this_machine
from pocketvision.quant.choice import Int8
from pocketvision.training.checkpoint import load_model
from pocketvision.training.recipe import from_yaml

RESULTS = Path(__file__).parent / "results" / "quantization_aware.json"
MINMAX = Int8("minmax", correct_bias=False, beginning=0)


def compared(answers: np.ndarray, exact: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Top-1 in percent, and the points lost against ``exact`` with their 95% interval over images."""
    right, before = (each.argmax(1) == labels for each in (answers, exact))
    lost = 100 * (before.astype(float) - right)
    half = 1.96 * float(lost.std()) / math.sqrt(len(lost))
    mean = float(lost.mean())
    return {
        "top1": round(100 * float(right.mean()), 2),
        "lost": round(mean, 2),
        "interval": [round(mean - half, 2), round(mean + half, 2)],
        "agreement": round(100 * float((answers.argmax(1) == exact.argmax(1)).mean()), 2),
    }


def contest(data: Path, run: Path, options: TrainOptions) -> dict[str, Any]:
    """Everything about one run."""
    model, split = load_model(run), split_file(run)
    calibration = calibration_images(run, split, model)
    assert split is not None
    trained_on = {item.image for item in load_split(split).train}
    items = [item for item in open_dataset(data).val if item.image not in trained_on]
    images = np.stack([load_prepared(item.image, model.spec.preprocessing) for item in items])
    labels = np.array([item.label for item in items])
    name = f"{model.spec.backbone.name}-qat"
    again = options.project / "classify" / f"{name}-1"
    if not (again / "weights" / "best.safetensors").exists():
        train_for_int8(run, options)
    trained = load_model(again)
    with tempfile.TemporaryDirectory() as folder:
        float32 = export(model, out=Path(folder) / "float32.onnx").path
        files = {"float32": float32.read_bytes()}
        files["PTQ, ONNX Runtime's quantiser"] = peers(float32, calibration, Path(folder) / "peer.onnx")
        forms = {"PTQ, extremes": (model, MINMAX), "PTQ": (model, Int8()), "QAT": (trained, Int8())}
        for form, (network, how) in forms.items():
            out = Path(folder) / f"{len(files)}.onnx"
            export(network, precision="int8", calibration=calibration, how=how, out=out)
            files[form] = out.read_bytes()
    answers = {form: scores(file, images) for form, file in files.items()}
    found = {form: compared(each, answers["float32"], labels) for form, each in answers.items()}
    kept = sum(node.op_type == "Conv" for node in onnx.load_model_from_string(files["PTQ"]).graph.node)
    result = {"n": len(items), "forms": found, "mb": {form: round(len(file) / 1e6, 3) for form, file in files.items()}}
    print(run.name, len(items), *(f"\n  {form:30} {row}" for form, row in found.items()), flush=True)
    recipe = from_yaml((again / "args.yaml").read_text()).to_dict()
    told = {key: recipe[key] for key in ("epochs", "batch", "optimizer", "lr", "weight_decay", "frozen_bn", "ema")}
    return result | {"float_convolutions": {"PTQ": kept, "QAT": 0}, "recipe": told}


def main() -> None:
    """Train where needed, quantise, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--project", type=Path, default=Path("runs"))
    parser.add_argument("--epochs", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = TrainOptions(project=arguments.project, epochs=arguments.epochs)
    before = json.loads(RESULTS.read_text())["networks"] if RESULTS.exists() else {}
    for run in arguments.runs:
        before[load_model(run).spec.backbone.name] = contest(arguments.data, run, options)
        written = {
            "networks": before,
            "data": arguments.data.name,
            "versions": {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__, "torch": torch.__version__},
            "machine": this_machine().to_dict(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        RESULTS.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
