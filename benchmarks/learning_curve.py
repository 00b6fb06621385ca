"""Does the expected-accuracy band hold, and how far above it does fine-tuning end?

    python benchmarks/learning_curve.py cover ../shared/data/clothing10 CIFAR10_FOLDER [--seeds 10]
    python benchmarks/learning_curve.py finetune FOLDER --images 250 1000 [--imgsz 96] [--val 500]

``cover``: for each data set, network and seed the images are shuffled, a test set is set aside, and a forecast is made
from half of the rest. It is compared with the accuracy that the classifier really has on the test set, trained on that
half (1x) and on all of the rest (2x); from a quarter of the rest, at 4x. ``given``: the same on the split that the data
came with. ``finetune``: the network is fine-tuned by its default recipe on a part of the training images; beside
it stands the linear classifier on its frozen features, trained and counted on the same images.
Both write into benchmarks/results/learning_curve.json, each its own part.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pocketvision.app.choose import frozen_features, ridge, sample
from pocketvision.app.expect import Band, forecast
from pocketvision.app.options import TrainOptions
from pocketvision.app.training import train_spec
from pocketvision.data.sources import Dataset, Item, open_dataset
from pocketvision.measuring.machine import load_average, this_machine
from pocketvision.spec.model import ModelSpec
from pocketvision.spec.transform import with_classes, with_size
from pocketvision.zoo import model_spec
from pocketvision.zoo.weights import available

RESULTS = Path(__file__).parent / "results" / "learning_curve.json"
TEST_SHARE = 0.2


def network(name: str, size: int, classes: int) -> ModelSpec:
    """The network as its weights on this machine need it."""
    entry = available(model_spec(name))
    if entry is None:
        raise SystemExit(f"no ImageNet weights of {name} on this machine: set POCKETVISION_WEIGHTS")
    return with_classes(with_size(entry.spec(), size, ratio=1.0), classes)


def compared(features: np.ndarray, labels: np.ndarray, test: np.ndarray, rest: np.ndarray) -> Iterator[dict[str, Any]]:
    """Forecasts at 1x, 2x and 4x beside what happened; ``test``, ``rest``: indices, in random order."""
    half, quarter = rest[: len(rest) // 2], rest[: len(rest) // 4]
    truth = {
        len(part): float(ridge().fit(features[part], labels[part]).score(features[test], labels[test]))
        for part in (half, rest)
    }
    for part, times in ((half, (1, 2)), (quarter, (4,))):
        bands = forecast(features[part], labels[part], ridge(), len(part), len(test)).bands
        for factor in times:
            band: Band = bands[{1: 0, 2: 1, 4: 2}[factor]]
            real = truth[len(half) if factor == 1 else len(rest)]
            yield {
                "from_images": len(part),
                "factor": factor,
                "forecast": round(band.accuracy, 4),
                "low": round(band.low, 4),
                "high": round(band.high, 4),
                "real": round(real, 4),
                "within": bool(band.low <= real <= band.high),
            }


def cover(
    folders: list[Path], networks: list[str], seeds: int, most: int, imgsz: dict[str, int]
) -> list[dict[str, Any]]:
    """One row for each data set, network, seed and factor."""
    rows = list[dict[str, Any]]()
    for folder in folders:
        dataset = open_dataset(folder, check=False)
        train, val = sample(dataset.train, most), sample(dataset.val, most // 4)
        for name in networks:
            spec = network(name, imgsz.get(dataset.name, 224), len(dataset.classes))
            features, labels = frozen_features(spec, "imagenet", [*train, *val])
            for seed in range(seeds):
                random = np.random.default_rng(seed)
                order = random.permutation(len(labels))
                cut = int(TEST_SHARE * len(order))
                given = random.permutation(len(train))
                for split, test, rest in (
                    ("random", order[:cut], order[cut:]),
                    ("given", np.arange(len(train), len(labels)), given),
                ):
                    about = {"data": dataset.name, "network": name, "seed": seed, "split": split}
                    rows += [about | row for row in compared(features, labels, test, rest)]
                print(f"{dataset.name} {name} seed {seed}: {summary(rows[-6:])}", flush=True)
            write("cover", {"rows": rows, "summary": summary(rows)})
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Share of forecasts whose band held, mean error and mean width in points, by split and factor."""
    table = dict[str, dict[str, float]]()
    for split in ("random", "given"):
        for factor in (1, 2, 4):
            some = [row for row in rows if (row["split"], row["factor"]) == (split, factor)]
            table[f"{split} {factor}x"] = {
                "n": len(some),
                "within": round(float(np.mean([row["within"] for row in some])), 3),
                "bias_points": round(100 * float(np.mean([row["forecast"] - row["real"] for row in some])), 2),
                "error_points": round(100 * float(np.mean([abs(row["forecast"] - row["real"]) for row in some])), 2),
                "width_points": round(100 * float(np.mean([row["high"] - row["low"] for row in some])), 2),
            }
    return table


def finetuned(dataset: Dataset, name: str, size: int, count: int, seed: int) -> dict[str, Any]:
    """Top-1 of a default fine-tune (best and last epoch) and of the linear classifier on the same images."""
    part = replace(dataset, train=drawn(dataset.train, count, seed))
    spec = network(name, size, len(dataset.classes))
    features, labels = frozen_features(spec, "imagenet", part.train)
    val_features, val_labels = frozen_features(spec, "imagenet", part.val)
    probe = float(ridge().fit(features, labels).score(val_features, val_labels))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as project:
        options = TrainOptions(weights="imagenet", seed=seed, project=Path(project))
        result, _ = train_spec(part, spec, "imagenet", options)
        lines = (result.run / "results.csv").read_text().splitlines()
        last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    recipe = options.recipe_for(len(part.train), len(part.classes), pretrained=True).to_dict()
    return {
        "data": dataset.name,
        "network": name,
        "imgsz": size,
        "images": len(part.train),
        "val_images": len(part.val),
        "seed": seed,
        "linear": round(probe, 4),
        "finetuned_last": round(float(last["val_top1"]), 4),
        "finetuned_best": round(float(result.value or 0), 4),
        "seconds": round(time.perf_counter() - start),
        "recipe": {key: recipe[key] for key in ("epochs", "batch", "optimizer", "lr", "head_lr", "augment")},
    }


def drawn(items: tuple[Item, ...], count: int, seed: int) -> tuple[Item, ...]:
    """``count`` of the items, evenly from each class, in an order drawn with ``seed``."""
    order = np.random.default_rng(seed).permutation(len(items))
    return tuple(sample([items[index] for index in order], count))


def write(part: str, value: object) -> None:
    """Put ``value`` into its part of the results."""
    data: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    evidence = {
        "machine": this_machine().to_dict(),
        "load": load_average(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    data[part] = {"evidence": evidence} | (value if isinstance(value, dict) else {"rows": value})
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(data, indent=1) + "\n")


def main() -> None:
    """Run one of the two experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cover", "finetune"])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=10, help="how many (cover), which one (finetune)")
    parser.add_argument("--most", type=int, default=2000, help="training images of each data set")
    parser.add_argument("--images", type=int, nargs="+", default=[250, 1000], help="finetune: training images")
    parser.add_argument("--imgsz", nargs="*", default=["cifar10=96"], help="DATA=PIXELS where it is not 224")
    parser.add_argument("--val", type=int, default=1000, help="finetune: validation images at most")
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v3_small"], help="finetune takes the first")
    arguments = parser.parse_args()
    sizes = {name: int(pixels) for name, _, pixels in (text.partition("=") for text in arguments.imgsz)}
    if arguments.what == "cover":
        rows = cover(arguments.folders, arguments.networks, arguments.seeds, arguments.most, sizes)
        print(json.dumps(summary(rows), indent=1))
        return
    old = json.loads(RESULTS.read_text()).get("finetune", {}).get("rows", []) if RESULTS.exists() else []
    for folder in arguments.folders:
        dataset = open_dataset(folder, check=False)
        dataset = replace(dataset, val=tuple(sample(dataset.val, arguments.val)))
        for count in arguments.images:
            old.append(finetuned(dataset, arguments.networks[0], sizes.get(dataset.name, 224), count, arguments.seeds))
            write("finetune", old)
            print(old[-1], flush=True)


if __name__ == "__main__":
    main()
