"""Which ONNX files OpenCV's dnn reads, and how far its outputs are from ONNX Runtime's, engine by engine.

    python benchmarks/opencv_dnn.py ../shared/data --out benchmarks/results/opencv_dnn.json

Published weights (V2, V3-Small, EfficientNet-Lite0, SSDLite-V2 of COCO, DeepLabV3-V2 of VOC) on three photos.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pocketvision.data.transforms import load_prepared
from pocketvision.exporting import onnx
from pocketvision.exporting.artifact import Artifact
from pocketvision.measuring.machine import this_machine
from pocketvision.measuring.runtimes import open_file
from pocketvision.nn.load import load_model
from pocketvision.zoo import model_spec

CLASSIFIERS = {
    "mobilenet_v2": "mobilenet_v2_torchvision_imagenet1k_v1_fp16",
    "mobilenet_v3_small": "mobilenet_v3_small_tfptq_imagenet_deq_fp16",
    "efficientnet_lite0": "efficientnet_lite0_tf_imagenet_fp16",
}
OTHERS = {
    "ssdlite_mobilenet_v2": ("ssdlite_mobilenetv2_coco90_tf_fp16", ("nms", "dense", "raw")),
    "deeplabv3_mobilenet_v2": ("deeplabv3_mobilenetv2_voc21_tf_fp16", ("classes", "logits")),
}


def exported(data: Path, photos: list[Path], scratch: Path) -> Iterator[tuple[str, Artifact, np.ndarray]]:
    """Name, file and prepared photos of every network in every form."""
    for name, file in CLASSIFIERS.items():
        model = load_model(model_spec(name), data / "weights" / f"{file}.safetensors")[0].eval()
        images = np.stack([load_prepared(photo, model.spec.preprocessing) for photo in photos])
        yield name, onnx.export(model, out=scratch / f"{name}.onnx"), images
        if name == "mobilenet_v2":
            out = scratch / f"{name}.int8.onnx"
            yield f"{name} int8", onnx.export(model, precision="int8", calibration=images, out=out), images
    for name, (file, forms) in OTHERS.items():
        model = load_model(None, data / "weights" / f"{file}.safetensors")[0].eval()
        images = np.stack([load_prepared(photo, model.spec.preprocessing) for photo in photos])
        for form in forms:
            yield f"{name} {form}", onnx.export(model, form=form, out=scratch / f"{name}.{form}.onnx"), images


def compared(artifact: Artifact, images: np.ndarray, engine: int) -> dict[str, Any]:
    """The largest difference of each output, or why there is none."""
    reference = open_file(artifact)
    worst = dict.fromkeys((output.name for output in artifact.outputs), 0.0)
    try:
        net = cv2.dnn.readNetFromONNX(str(artifact.path), engine)
        for image in images:
            net.setInput(image[None])
            found = net.forward(list(worst))
            for (name, most), actual, expected in zip(worst.items(), found, reference(image[None]), strict=True):
                if actual.size != expected.size:
                    return {"error": f"{name} has the shape {actual.shape} instead of {expected.shape}"}
                off = np.abs(actual.reshape(expected.shape).astype(np.float64) - expected).max(initial=0)
                worst[name] = max(most, float(f"{off:.2g}"))
    except cv2.error as error:
        return {"error": str(error).replace("\n", " ")[:200]}
    return {"largest_difference": worst}


def main() -> None:
    """Compare every file in both engines, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with demo_images and weights")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/opencv_dnn.json"))
    arguments = parser.parse_args()
    photos = [arguments.data / "demo_images" / f"{name}.jpg" for name in ("dog", "horses", "person")]
    engines = {"new": cv2.dnn.ENGINE_NEW, "classic": cv2.dnn.ENGINE_CLASSIC}
    results = dict[str, Any]()
    with tempfile.TemporaryDirectory() as scratch:
        for name, artifact, images in exported(arguments.data, photos, Path(scratch)):
            results[name] = {kind: compared(artifact, images, engine) for kind, engine in engines.items()}
            print(name, json.dumps(results[name]), flush=True)
    found = {
        "command": "python benchmarks/opencv_dnn.py DATA",
        "machine": this_machine().to_dict(),
        "versions": {"opencv": cv2.__version__, **{name: version(name) for name in ("torch", "onnxruntime")}},
        "results": results,
    }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
