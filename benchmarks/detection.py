"""SSDLite-MobileNetV2 on a small detection set: pocketvision beside torchvision's pieces, for the same minutes.

    python benchmarks/detection.py ours DATA --weights FILE.safetensors --minutes 15
    python benchmarks/detection.py torchvision DATA --weights FILE.safetensors --minutes 15 --setting ssdlite
    python benchmarks/detection.py lowres DATA --weights FILE.safetensors --minutes 10
    python benchmarks/detection.py join    # all of benchmarks/results/detection/ -> benchmarks/results/detection.json

Each run needs the machine for itself. Both start from the same ImageNet weights of MobileNetV2 and see the images of
the train split only; settings are chosen on val, and both splits' metrics are those of faster-coco-eval with boxes in
pixels of the originals. ``minutes`` end with the last training step: torchvision's evaluation, which its references
run after each epoch, comes after them; ours is part of them.

torchvision: ``SSD`` with ``SSDLiteHead``, its extra layers, ``DefaultBoxGenerator`` of 0.2 to 0.95 and the
postprocessing of ``ssdlite320_mobilenet_v3_large``, on ``mobilenet_v2`` tapped where S4 §6.2 says, normalised as its
weights need. Training as its references have it for SSDLite: presets "ssdlite" (IoU crops, flips) or "ssd"
(photometric distortion and zoom-out too), SGD with momentum 0.9, batches of 24, weight decay 4e-5 on everything, a
linear warm-up in the first epoch from a thousandth, a cosine by epochs. Its learning rate of 0.15 is that of 8 GPUs
with 24 images each, so one process has 0.15 / 8; "high" keeps 0.15. The schedule gets as many epochs as fit at the
speed of the last one.

lowres (FACTS H13): a detector trained at 160 pixels, against one trained at 320 that is given images of 160.
mosaic: ``ours`` with ``--set epochs=30 --set augment.mosaic=P --seed S --name mosaicP-S`` for P of 0.0 and 0.5.
"""

import argparse
import csv
import importlib.metadata
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pocketvision import files
from pocketvision.data.image import read_image
from pocketvision.data.sources import Dataset, Item, open_dataset
from pocketvision.measuring.machine import load_average, this_machine
from pocketvision.spec.transform import with_size
from pocketvision.tasks.coco import Found
from pocketvision.training.checkpoint import load_model
from pocketvision.training.evaluate_detection import DetectionResult, compare, evaluate_detector, torch_detector

SIZE, LOW, BATCH = 320, 160, 24
SETTINGS: dict[str, dict[str, Any]] = {
    "ssdlite": {"preset": "ssdlite", "lr": 0.15 / 8},
    "ssd": {"preset": "ssd", "lr": 0.15 / 8},
    "high": {"preset": "ssdlite", "lr": 0.15},
}
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "torchvision", "faster-coco-eval", "numpy")


class Photos(torch.utils.data.Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images and targets as torchvision's references give them to its presets; images without boxes are left out."""

    def __init__(self, items: Sequence[Item], preset: str) -> None:
        from torchvision.transforms import v2

        self.items = [item for item in items if item.boxes and not all(item.boxes.ignored)]
        colours = [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=[123.0, 117.0, 104.0])]
        self.change = v2.Compose(
            [
                v2.ToImage(),
                *(colours if preset == "ssd" else []),
                v2.RandomIoUCrop(),
                v2.RandomHorizontalFlip(0.5),
                v2.ToDtype(torch.float, scale=True),
                v2.SanitizeBoundingBoxes(),
                v2.ToPureTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        from PIL import Image
        from torchvision import tv_tensors

        item = self.items[index]
        assert item.boxes is not None
        width, height = item.boxes.size
        counted = [place for place, ignored in enumerate(item.boxes.ignored) if not ignored]
        corners = torch.tensor([item.boxes.corners[place] for place in counted])
        boxes = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(height, width))  # type: ignore[call-overload]
        labels = torch.tensor([item.boxes.labels[place] + 1 for place in counted])
        return self.change(Image.fromarray(read_image(item.image)), {"boxes": boxes, "labels": labels})


def torchvisions_ssdlite(weights: Path, classes: int) -> nn.Module:
    """torchvision's SSDLite on its MobileNetV2; ``weights`` have its names."""
    from torchvision.models import mobilenet_v2
    from torchvision.models.detection import _utils
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD
    from torchvision.models.detection.ssdlite import SSDLiteHead, _extra_block, _normal_init

    class Features(nn.Module):
        """The maps that the head looks at, finest first."""

        def __init__(self) -> None:
            super().__init__()
            whole = mobilenet_v2(norm_layer=partial(nn.BatchNorm2d, momentum=0.03))
            whole.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
            rows: Any = list(whole.features)
            self.fine = nn.Sequential(*rows[:14], rows[14].conv[0])
            self.coarse = nn.Sequential(*rows[14].conv[1:], *rows[15:])
            channels, norm = (1280, 512, 256, 256, 128), partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
            self.extra = nn.ModuleList(_extra_block(a, b, norm) for a, b in pairwise(channels))
            _normal_init(self.extra)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps = [self.fine(x)]
            for part in (self.coarse, *self.extra):
                maps.append(part(maps[-1]))
            return {str(number): x for number, x in enumerate(maps)}

    features = Features()
    anchors = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    channels = _utils.retrieve_out_channels(features, (SIZE, SIZE))
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    head = SSDLiteHead(channels, anchors.num_anchors_per_location(), 1 + classes, norm)
    selection = {"score_thresh": 0.001, "nms_thresh": 0.55, "detections_per_img": 300, "topk_candidates": 300}
    return SSD(features, anchors, (SIZE, SIZE), 1 + classes, head=head, **selection)


def train_torchvisions(data: Dataset, model: nn.Module, setting: dict[str, Any], minutes: float) -> list[Any]:
    """The steps of torchvision's references; one row for each epoch."""
    from torch.utils.data import DataLoader

    photos = Photos(data.train, setting["preset"])
    batches = DataLoader(
        photos,
        BATCH,
        shuffle=True,
        drop_last=len(photos) % BATCH == 1,
        num_workers=this_machine().cores,
        collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
    )
    lr = setting["lr"]
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=4e-5)
    rows, start, epochs = list[Any](), time.perf_counter(), 1
    warmup = max(1, min(1000, len(batches) - 1))
    while len(rows) < epochs:
        model.train()
        losses = list[float]()
        for step, (images, targets) in enumerate(batches):
            share = (1 + math.cos(math.pi * len(rows) / epochs)) / 2 if rows else max(1e-3, min(1.0, step / warmup))
            for group in optimizer.param_groups:
                group["lr"] = lr * share
            loss = sum(model(images, targets).values())
            assert isinstance(loss, Tensor)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        seconds = time.perf_counter() - start
        last_s = seconds - (rows[-1]["seconds"] if rows else 0)
        epochs = len(rows) + 1 + max(0, int((60 * minutes - seconds) / last_s))
        rows.append({"epoch": len(rows) + 1, "train_loss": float(np.mean(losses)), "seconds": round(seconds, 1)})
        print(json.dumps(rows[-1]), f"of {epochs}", flush=True)
    return rows


@torch.inference_mode()
def torchvisions_result(model: nn.Module, items: Sequence[Item], classes: Sequence[str]) -> DetectionResult:
    """What it finds, in pixels of the originals as it gives them."""
    model.eval()
    found = list[Found]()
    for item in items:
        image = torch.from_numpy(read_image(item.image).copy()).permute(2, 0, 1).float() / 255
        said = {name: tensor.numpy() for name, tensor in model([image])[0].items()}
        found.append(Found(said["boxes"].astype(np.float64), said["scores"].astype(np.float64), said["labels"] - 1))
    truths = [item.boxes for item in items if item.boxes is not None]
    return compare([item.image for item in items], truths, found, classes)


def torchvision_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate torchvision's."""
    torch.manual_seed(arguments.seed)
    data, setting = open_dataset(arguments.data), SETTINGS[arguments.setting]
    model = torchvisions_ssdlite(arguments.weights, len(data.classes))
    curve = train_torchvisions(data, model, setting, arguments.minutes)
    results = {
        split: summary(torchvisions_result(model, items, data.classes))
        for split, items in (("val", data.val), ("test", data.test))
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"setting": setting, "curve": curve, "parameters": parameters, **results}


def our_training(arguments: argparse.Namespace, size: int, project: Path) -> tuple[Path, float]:
    """`pocketvision train` with its default recipe; the run and how many seconds the command took."""
    command = [sys.executable, "-m", "pocketvision", "train", str(arguments.data), "--model", arguments.model]
    command += ["--weights", str(arguments.weights), "--time", str(arguments.minutes), "--imgsz", str(size)]
    # bccd has a val image that looks like one of train; its split stays as it is given
    command += ["--seed", str(arguments.seed), "--project", str(project), "--name", str(size), "--allow-leak"]
    for assignment in arguments.set:
        command += ["--set", assignment]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    (run,) = (path.parent for path in project.rglob("args.yaml"))
    return run, time.perf_counter() - start


def our_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate ours, or evaluate a run that there is."""
    data = open_dataset(arguments.data)
    with tempfile.TemporaryDirectory() as scratch:
        run, seconds = (
            (arguments.run, None) if arguments.run else our_training(arguments, arguments.size, Path(scratch))
        )
        model = load_model(run)
        with (run / "results.csv").open() as lines:
            curve = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]
        recipe = (run / "args.yaml").read_text()
    seconds = seconds or curve[-1]["seconds"]
    detector, preprocessing = torch_detector(model), model.spec.preprocessing
    results = {
        split: summary(evaluate_detector(detector, items, preprocessing, data.classes))
        for split, items in (("val", data.val), ("test", data.test))
    }
    head = type(model.spec.head).__name__
    about = {"model": arguments.model, "head": head, "size": preprocessing.size, "command_s": round(seconds, 1)}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {**about, "recipe": recipe, "curve": curve, "parameters": parameters, **results}


def lowres_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same recipe at both sizes, and the larger one's network on small images."""
    data, rows = open_dataset(arguments.data), dict[str, Any]()
    for size in (LOW, SIZE):
        with tempfile.TemporaryDirectory() as scratch:
            run, seconds = our_training(arguments, size, Path(scratch))
            model = load_model(run)
        detector = torch_detector(model)
        for side in {LOW, size}:
            preprocessing = with_size(model.spec, side, ratio=1.0).preprocessing
            found = summary(evaluate_detector(detector, data.test, preprocessing, data.classes))
            rows[f"trained at {size}, given {side}"] = found | {"command_s": round(seconds, 1)}
    return {"model": arguments.model, "test": rows}


def summary(result: DetectionResult) -> dict[str, Any]:
    """Its figures without curves and images."""
    print(result, flush=True)
    return {**{name: round(value, 4) for name, value in result.metrics.items()}, "classes": result.table()}


def join() -> None:
    """One file of all runs by name, the best setting of torchvision's on val marked."""
    paths = sorted((RESULTS / "detection").glob("*.json"))
    runs = [{"name": path.stem, **json.loads(path.read_text())} for path in paths]
    peers = [run for run in runs if run["system"] == "torchvision"]
    for run in peers:
        run["best_on_val"] = run["val"]["map"] == max(other["val"]["map"] for other in peers)
    files.write_text(RESULTS / "detection.json", json.dumps({"runs": runs}, indent=1) + "\n")


def main() -> None:
    """One run, or all of them together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ours", "torchvision", "lowres", "join"])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--weights", type=Path, help="MobileNetV2's with torchvision's names")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--setting", choices=SETTINGS, default="ssdlite", help="of torchvision")
    parser.add_argument("--model", default="mobilenet_v2", help="of ours")
    parser.add_argument("--size", type=int, default=SIZE, help="of ours")
    parser.add_argument("--set", action="append", default=[], help="of ours: a field of the recipe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help="of ours: a run to evaluate instead of training")
    parser.add_argument("--name", default="")
    arguments = parser.parse_args()
    if arguments.what == "join":
        join()
        return
    if not (arguments.data and arguments.weights):
        parser.error("DATA and --weights are needed")
    runs = {"ours": our_run, "torchvision": torchvision_run, "lowres": lowres_run}
    before, cpu_s, date = load_average(), time.process_time(), datetime.now(UTC).isoformat(timespec="seconds")
    result = {"system": arguments.what, "data": arguments.data.name, "minutes": arguments.minutes}
    result |= {"seed": arguments.seed, **runs[arguments.what](arguments)}
    result |= {"machine": this_machine().to_dict(), "load_before": before, "date": date}
    result |= {"processor_s": round(time.process_time() - cpu_s, 1)}
    result |= {"versions": {name: importlib.metadata.version(name) for name in PACKAGES}}
    name = arguments.name or "-".join(
        [arguments.what, *([arguments.setting] if arguments.what == "torchvision" else []), str(arguments.seed)]
    )
    print(files.write_text(RESULTS / "detection" / f"{name}.json", json.dumps(result, indent=1) + "\n"))


if __name__ == "__main__":
    main()
