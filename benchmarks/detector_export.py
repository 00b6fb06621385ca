"""What box decoding and NMS cost in ONNX Runtime, and whether the file's boxes are torch's.

    python benchmarks/detector_export.py WEIGHTS TIMED PARITY [--n 100]

WEIGHTS: TensorFlow's SSDLite-MobileNetV2 of COCO, as safetensors. TIMED and PARITY: folders of photos; all of TIMED
take turns, and up to 100 of PARITY are compared. Two networks, batch 1, one thread:

- ``coco``: that SSDLite with its real weights, 300 pixels, sigmoid scores.
- ``torchvision``: torchvision's ssdlite320_mobilenet_v3_large, 320 pixels, softmax, beside its own full graph from the
  TorchScript exporter (preprocessing that does nothing, decoding, NMS). Its COCO weights are not at hand: they are
  random, and the background's bias is set so that as many scores exceed 0.001 as do in ``coco``.

Each in our three forms, in turns: raw (the heads alone), dense, nms; and torch eager with its selection. Timed twice:
milliseconds as ``measuring.latency`` counts them, and processor time, which other work on the machine disturbs less:
every form on every image, one after the other, of an image the least of eight rounds, and the median image. The figure
that counts is nms / raw of the processor's time. Writes benchmarks/results/detector_export.json.
"""

import argparse
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from pocketvision.data.image import SUFFIXES
from pocketvision.data.transforms import load_prepared
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.contract import Form
from pocketvision.exporting.onnx import export
from pocketvision.measuring.latency import measure
from pocketvision.measuring.machine import load_average, this_machine
from pocketvision.measuring.parity import parity
from pocketvision.measuring.runtimes import open_model_detector
from pocketvision.nn.load import load_model
from pocketvision.nn.model import Model
from pocketvision.zoo.coco import DETECTORS

RESULTS = Path(__file__).parent / "results" / "detector_export.json"
FORMS: tuple[Form, ...] = ("raw", "dense", "nms")
TARGET, ROUNDS = 1.3, 8


def session(model: Any) -> onnxruntime.InferenceSession:
    """One thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def caller(run: Callable[[np.ndarray], object], images: np.ndarray) -> Callable[[], object]:
    """A call on the next image; each has two turns."""
    turns = cycle(index for index in range(len(images)) for _ in range(2))
    return lambda: run(images[(index := next(turns)) : index + 1])


def torchvisions(photos: np.ndarray) -> nn.Module:
    """torchvision's SSDLite with random weights, the statistics of ``photos``, and logits that spread."""
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(0)
    model: Any = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        model.head(list(model.backbone(pixels(photos)).values()))
        for module in model.head.classification_head.module_list:
            nn.init.normal_(module[1].weight, std=4 / module[1].in_channels ** 0.5)
            nn.init.zeros_(module[1].bias)
    return model.eval()


def pixels(photos: np.ndarray) -> torch.Tensor:
    """uint8 [N, S, S, 3] as torchvision's SSDLite takes it: [N, 3, S, S], -1 to 1."""
    return (torch.from_numpy(photos).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


def set_background(model: nn.Module, photos: np.ndarray, wanted: float) -> None:
    """Change the background's bias until ``wanted`` scores an image exceed 0.001 in the mean."""
    net: Any = model
    with torch.inference_mode():
        logits = net.head(list(net.backbone(pixels(photos)).values()))["cls_logits"]
    low, high = -40.0, 40.0
    for _ in range(30):
        added = (low + high) / 2
        shift = torch.zeros(91).index_fill(0, torch.tensor([0]), added)
        above = ((logits + shift).softmax(2)[..., 1:] > 0.001).sum().item() / len(photos)
        low, high = (added, high) if above > wanted else (low, added)
    with torch.no_grad():
        for module in net.head.classification_head.module_list:
            module[1].bias.view(-1, 91)[:, 0] += low


def full_graph(model: nn.Module) -> bytes:
    """torchvision's whole detector as the TorchScript exporter writes it; takes one float image [3, 320, 320]."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, ([torch.rand(3, 320, 320)],), buffer, dynamo=False, opset_version=17)  # type: ignore[arg-type]
    return buffer.getvalue()


def candidates(artifact: Artifact, images: np.ndarray) -> list[int]:
    """Of each image, how many scores of the dense form exceed 0.001."""
    dense = session(artifact.path)
    scores = (np.asarray(dense.run(["scores"], {"image": image[None]})[0]) for image in images)
    return [int((one > 0.001).sum()) for one in scores]


def processor_ms(calls: dict[str, Callable[[], object]], images: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of this thread for one call of each, the second of two on an image: of each image the least in
    ``rounds`` rounds, for whatever else the machine does only adds to it."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds * images):
        for name, call in calls.items():
            call()
            start = time.thread_time_ns()
            call()
            times[name].append((time.thread_time_ns() - start) / 1e6)
    return {name: np.reshape(values, (rounds, images)).min(0).round(3).tolist() for name, values in times.items()}


def compared(files: list[Path], model: Model, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """Parity of each form."""
    images = np.stack([load_prepared(file, model.spec.preprocessing) for file in files])
    results = {form: parity(artifact, model, images) for form, artifact in artifacts.items()}
    for form, result in results.items():
        print(f"  {form}: {result}", flush=True)
    return {form: result.to_dict() | {"holds": result.holds} for form, result in results.items()}


def contest(
    name: str, model: Model, timed: list[Path], same: list[Path], n: int, peer: nn.Module | None = None
) -> dict[str, Any]:
    """Everything about one network."""
    images = np.stack([load_prepared(file, model.spec.preprocessing) for file in timed])
    calls = dict[str, Callable[[], object]]()
    with tempfile.TemporaryDirectory() as folder:
        artifacts = {form: export(model, form=form, out=Path(folder) / f"{form}.onnx") for form in FORMS}
        for form, artifact in artifacts.items():
            run = session(artifact.path).run
            calls[form] = caller(lambda image, run=run: run(None, {"image": image}), images)
        calls["torch eager"] = caller(open_model_detector(model, threads=1), images)
        if peer is not None:
            full = session(full_graph(peer))
            feed = full.get_inputs()[0].name
            floats = np.ascontiguousarray(images.transpose(0, 3, 1, 2) / np.float32(255), np.float32)
            calls["torchvision's full TorchScript graph"] = caller(
                lambda image: full.run(None, {feed: image[0]}), floats
            )
        many = candidates(artifacts["dense"], images)
        print(f"{name}: {np.mean(many):.0f} scores above 0.001 an image", flush=True)
        processor = processor_ms(calls, len(images), rounds=ROUNDS)
        medians = {name: round(float(np.median(values)), 3) for name, values in processor.items()}
        print(f"  processor time of the median image, ms: {medians}", flush=True)
        latency = measure(calls, n=n, seconds=60)
        same_boxes = compared(same, model, artifacts)
    for row in latency.values():
        print(f"  {row}", flush=True)
    raw, nms = medians["raw"], medians["nms"]
    worst = max(nms / raw for nms, raw in zip(processor["nms"], processor["raw"], strict=True))
    print(f"  nms / raw: {nms / raw:.3f} (at most {TARGET}), of the worst image {worst:.2f}", flush=True)
    keys = ("min_ms", "median_ms", "p90_ms", "n", "interrupted", "disturbed", "load_before")
    return {
        "anchors": len(artifacts["raw"].anchors),
        "classes": model.spec.head.classes,
        "size": model.spec.preprocessing.size,
        "scores_above_0.001": {"mean": round(float(np.mean(many))), "by_image": many},
        "nms_to_raw": round(nms / raw, 3),
        "nms_to_raw_worst_image": round(worst, 3),
        "dense_to_raw": round(medians["dense"] / raw, 3),
        "processor_ms": medians,
        "processor_ms_by_image": processor,
        "latency": {key: {k: row.to_dict()[k] for k in keys} for key, row in latency.items()},
        "parity": same_boxes,
    }


def main() -> None:
    """Export, compare, time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("timed", type=Path)
    parser.add_argument("parity", type=Path)
    parser.add_argument("--n", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    timed, same = (
        sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
        for folder in (arguments.timed, arguments.parity)
    )
    coco = load_model(DETECTORS["ssdlite_mobilenet_v2_coco"](), arguments.weights)[0].eval()
    results = {"coco": contest("coco", coco, timed, same[:100], arguments.n)}
    spec = DETECTORS["ssdlite320_mobilenet_v3_large"]()
    photos = np.stack([load_prepared(file, spec.preprocessing) for file in timed])
    peer = torchvisions(photos)
    set_background(peer, photos, results["coco"]["scores_above_0.001"]["mean"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.pth"
        torch.save(peer.state_dict(), path)
        ours = load_model(spec, path)[0].eval()
    results["torchvision"] = contest("torchvision", ours, timed, same[:100], arguments.n, peer)
    written = {
        "target": f"nms / raw at most {TARGET}",
        "networks": results,
        "versions": {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__},
        "threads": 1,
        "images": {"timed": len(timed), "compared": len(same[:100])},
        "machine": this_machine().to_dict(),
        "load": load_average(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULTS.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
