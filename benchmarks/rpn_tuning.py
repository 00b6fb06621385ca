"""How much faster Faster R-CNN 320 is with tuned proposals: 150 of at least 0.05 against 1000 of any score.

    python benchmarks/rpn_tuning.py FOLDER [--weights FILE] [--images 16] [--rounds 10]

S0 says 0.2904 s before and 0.1679 s after, 1.73 times faster (FACTS H15). FOLDER: images. FILE: a trained Faster R-CNN
on any backbone (``nn.load.save_model``); without it the weights are random and only spread the scores, so that the
figure is that of an image on which many boxes look like something. Both forms have the same weights and take turns on
every image. Writes benchmarks/results/rpn_tuning.json.
"""

import argparse
import copy
import json
import statistics
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from pocketvision.data.image import SUFFIXES
from pocketvision.measuring.machine import load_average, this_machine
from pocketvision.nn.heads.faster_rcnn import FasterRCNN, detections
from pocketvision.nn.layers import Normalize
from pocketvision.nn.load import load_model
from pocketvision.nn.model import Model, build
from pocketvision.spec.faster_rcnn import with_faster_rcnn
from pocketvision.spec.heads import FasterRCNNHead
from pocketvision.zoo import model_spec

RESULTS = Path(__file__).parent / "results" / "rpn_tuning.json"
ARTICLE = 1.73
UNTUNED = with_faster_rcnn(model_spec("mobilenet_v3_large"), 90, tuned=False).head


def network(weights: Path | None) -> Model:
    """The tuned form."""
    if weights:
        return load_model(None, weights)[0].eval()
    torch.manual_seed(0)
    model = build(with_faster_rcnn(model_spec("mobilenet_v3_large"), 90))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over the batches
    assert isinstance(model.head, FasterRCNN)
    nn.init.normal_(model.head.proposals.objectness.weight, std=0.1)
    nn.init.normal_(model.head.regions.logits.weight, std=0.3)
    return model


def untuned(model: Model) -> Model:
    """The same weights with the proposals of before."""
    other = copy.deepcopy(model)
    assert isinstance(other.head, FasterRCNN) and isinstance(UNTUNED, FasterRCNNHead)
    other.head.spec = replace(other.head.spec, proposals=UNTUNED.proposals)
    return other


def pixels(file: Path, model: Model) -> Tensor:
    """A network's input [1, 3, size, size]."""
    size = model.spec.preprocessing.size
    image = Image.open(file).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, size, size, 3)
    return Normalize(model.spec.preprocessing)(data.permute(0, 3, 1, 2))


def main() -> None:
    """Time both forms in turns, print and write the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    files = sorted(file for file in arguments.folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    model = network(arguments.weights)
    inputs = [pixels(file, model) for file in files[: arguments.images]]
    load = load_average()
    with torch.inference_mode():
        if arguments.weights is None:
            model.train()(torch.cat(inputs))  # BatchNorms that know the images
        forms = {"tuned": model.eval(), "untuned": untuned(model).eval()}
        wall, processor = {name: list[float]() for name in forms}, {name: list[float]() for name in forms}
        regions = {name: [len(form(x).regions[0]) for x in inputs] for name, form in forms.items()}  # warms up, too
        for _ in range(arguments.rounds):
            for x in inputs:
                for name, form in forms.items():
                    start, used = time.perf_counter(), time.process_time()
                    detections(form(x))
                    wall[name].append(time.perf_counter() - start)
                    processor[name].append(time.process_time() - used)
    ratios = [slow / fast for slow, fast in zip(wall["untuned"], wall["tuned"], strict=True)]
    cut = statistics.quantiles(ratios, n=4)
    result = {
        "ratio": round(statistics.median(ratios), 2),
        "ratio_quartiles": [round(cut[0], 2), round(cut[2], 2)],
        "ratio_of_processor_time": round(sum(processor["untuned"]) / sum(processor["tuned"]), 2),
        "article": ARTICLE,
        "milliseconds": {name: round(1e3 * statistics.median(times), 2) for name, times in wall.items()},
        "mean_regions": {name: round(statistics.mean(counts), 1) for name, counts in regions.items()},
        "weights": "trained" if arguments.weights else "random, with spread scores",
        "images": len(inputs),
        "rounds": arguments.rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": this_machine().to_dict(),
        "load_before": load,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
