"""What the enlargement to the input's size and the choice of each pixel's class cost in ONNX Runtime.

    python benchmarks/segmenter_export.py [PHOTO ...] [--rounds 20]

LR-ASPP on MobileNetV3-Small and MobileNetV2 (random weights), 11 and 21 classes, 352 and 512 pixels, batch 1, one
thread, in turns on the PHOTOs (or a coarse pattern):

- ``raw``: the small map of logits that the network computes, 1/8 of the input's side;
- ``logits``: enlarged to the input's size, the form "logits";
- ``second_axis``: of these the best class by ArgMax over their second axis, cast to uint8: the graph as it comes;
- ``classes``: the form "classes", which turns the small map to channels last first (``exporting.segmenter``).

The figure is processor time: of a photo the least of all rounds, which other work on the machine disturbs least, and of
the photos the median. The classes of ``second_axis`` and ``classes`` are compared. Writes
benchmarks/results/segmenter_export.json.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import nn

from pocketvision import model_spec
from pocketvision.data.transforms import load_prepared
from pocketvision.exporting.onnx import export
from pocketvision.measuring.machine import load_average, this_machine
from pocketvision.nn.model import Model, build
from pocketvision.spec.segmentation import with_lraspp

RESULTS = Path(__file__).parent / "results" / "segmenter_export.json"
CASES = (
    ("mobilenet_v3_small", 11, 352),
    ("mobilenet_v3_small", 21, 512),
    ("mobilenet_v2", 11, 352),
    ("mobilenet_v2", 21, 512),
)


def session(model: Any) -> onnxruntime.InferenceSession:
    """One thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def forms(model: Model) -> dict[str, onnxruntime.InferenceSession]:
    """Each form by name, from the leanest on."""
    with tempfile.TemporaryDirectory() as folder:
        files = {form: Path(folder) / f"{form}.onnx" for form in ("logits", "classes")}
        for form, file in files.items():
            export(model, form="logits" if form == "logits" else "classes", out=file)
        contents = {form: file.read_bytes() for form, file in files.items()}
    logits = onnx.load_model_from_string(contents["logits"])
    small = next(node for node in logits.graph.node if "logits" in node.output).input[0]
    raw, second = onnx.ModelProto(), onnx.ModelProto()
    for proto in (raw, second):
        proto.CopyFrom(logits)
        del proto.graph.output[:]
    raw.graph.node.pop()  # ONNX Runtime would compute it even so
    raw.graph.output.append(helper.make_tensor_value_info(small, TensorProto.FLOAT, None))
    best = helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0)
    second.graph.node.extend([best, helper.make_node("Cast", ["best"], ["classes"], to=TensorProto.UINT8)])
    second.graph.output.append(helper.make_tensor_value_info("classes", TensorProto.UINT8, None))
    graphs = {
        "raw": raw.SerializeToString(),
        "logits": contents["logits"],
        "second_axis": second.SerializeToString(),
        "classes": contents["classes"],
    }
    return {name: session(graph) for name, graph in graphs.items()}


def contest(name: str, classes: int, size: int, photos: list[Path], rounds: int) -> dict[str, Any]:
    """Everything about one network."""
    torch.manual_seed(0)
    model = build(with_lraspp(model_spec(name), classes, size=size))
    pattern = np.random.default_rng(0).integers(0, 256, (2, size // 32, size // 32, 3), dtype=np.uint8)
    images = pattern.repeat(32, 1).repeat(32, 2)
    if photos:
        images = np.stack([load_prepared(photo, model.spec.preprocessing) for photo in photos])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        model(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    runs = forms(model.eval())
    answers = [
        [np.asarray(runs[form].run(None, {"image": image[None]})[0]) for image in images]
        for form in ("second_axis", "classes")
    ]
    differ = float(np.mean([np.mean(one != other) for one, other in zip(*answers, strict=True)]))
    times: dict[str, list[list[float]]] = {form: [[] for _ in images] for form in runs}
    for _ in range(rounds):
        for number, image in enumerate(images):
            for form, run in runs.items():
                start = time.process_time_ns()
                run.run(None, {"image": image[None]})
                times[form][number].append((time.process_time_ns() - start) / 1e6)
    medians = {form: round(float(np.median([min(one) for one in values])), 3) for form, values in times.items()}
    seen = len(np.unique(answers[1][0]))
    print(
        f"{name} {classes} classes {size} px: {medians}; {seen} classes seen, {differ:.5%} of pixels differ", flush=True
    )
    added = {f"{form}_minus_raw": round(medians[form] - medians["raw"], 3) for form in list(runs)[1:]}
    return {
        "network": name,
        "classes": classes,
        "size": size,
        "processor_ms": medians,
        **added,
        "classes_seen": seen,
        "pixels_that_differ": differ,
    }


def main() -> None:
    """Time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [contest(*case, arguments.photos, arguments.rounds) for case in CASES]
    written = {
        "networks": rows,
        "rounds": arguments.rounds,
        "photos": len(arguments.photos),
        "threads": 1,
        "versions": {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__},
        "machine": this_machine().to_dict(),
        "load": load_average(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULTS.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
