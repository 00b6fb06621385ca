"""Planted copies and planted wrong labels: how many does the data check find, and what would they have done?

    python benchmarks/duplicates.py FOLDER [--seeds 3] [--network mobilenet_v3_small]

FOLDER has class folders below train and val. For each seed 100 validation images get a changed copy in train, 25 each:
the same file, encoded again (JPEG quality 30 to 90), resized (to 0.4 to 1.8 of its side) and mirrored; recall and
precision are those of the pairs that the check reports as a leak. For information, the
same for copies that are cropped, brighter, or of more contrast. The inflation is the gain in validation accuracy of a
ridge classifier on the network's frozen features when the 100 copies are among its training images.
Then 3% of the labels are made wrong, in FOLDER and in sample:digits. Writes benchmarks/results/duplicates.json.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from pocketvision.app.suspects import embedded, image_features, suspects
from pocketvision.data.check import check_dataset
from pocketvision.data.sources import Dataset, Item, open_dataset
from pocketvision.files import write_text
from pocketvision.measuring.machine import load_average, this_machine

RESULTS = Path(__file__).parent / "results" / "duplicates.json"
PLANTED = ("same file", "encoded again", "resized", "mirrored")
OTHERS = ("cropped to 97%", "cropped to 90%", "brighter by 1.3", "contrast by 1.3")
EACH, WRONG = 25, 0.03


def changed(file: Path, how: str, chance: np.random.Generator, out: Path) -> Path:
    """A copy of an image, changed in one way."""
    if how == "same file":
        return Path(shutil.copy(file, out))
    with Image.open(file) as picture:
        image, quality = ImageOps.exif_transpose(picture).convert("RGB"), 85
    if how == "encoded again":
        quality = int(chance.integers(30, 91))
    elif how == "resized":
        scale = chance.uniform(0.4, 1.8)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    elif how == "mirrored":
        image = ImageOps.mirror(image)
    elif how.startswith("cropped"):
        share = float(how.split()[-1].rstrip("%")) / 100
        width, height = round(image.width * share), round(image.height * share)
        left, top = (int(chance.integers(0, room + 1)) for room in (image.width - width, image.height - height))
        image = image.crop((left, top, left + width, top + height))
    else:
        kind = ImageEnhance.Brightness if how.startswith("brighter") else ImageEnhance.Contrast
        image = kind(image).enhance(1.3)
    image.save(out, quality=quality)
    return out


def leaks(data: Path) -> tuple[set[tuple[str, str]], float, Dataset]:
    """The pairs (image of train, image of val) that are reported, processor seconds, and the data set."""
    began = time.process_time()
    dataset = open_dataset(data)
    findings = check_dataset(dataset)
    pairs = {(a, b) for finding in findings if finding.kind == "leak" for a, b in finding.groups}
    return pairs, time.process_time() - began, dataset


def planted(data: Path, kinds: tuple[str, ...], seed: int, work: Path) -> tuple[Path, dict[tuple[str, str], str]]:
    """A copy of ``data`` with changed copies of validation images in train, and which pair was made how."""
    chance = np.random.default_rng(seed)
    root = work / f"planted {seed} {kinds[0]}"
    for split in ("train", "val"):
        shutil.copytree(data / split, root / split)
    images = sorted((root / "val").glob("*/*.jpg"))
    chosen = [images[i] for i in chance.permutation(len(images))[: EACH * len(kinds)]]
    pairs = dict[tuple[str, str], str]()
    for number, image in enumerate(chosen):
        how = kinds[number % len(kinds)]
        copy = changed(image, how, chance, root / "train" / image.parent.name / f"planted {number}.jpg")
        pairs[str(copy), str(image)] = how
    return root, pairs


def found_of(pairs: dict[tuple[str, str], str], reported: set[tuple[str, str]]) -> dict[str, Any]:
    """Recall of each kind and of all, and precision."""
    hits = {
        how: [pair in reported for pair, kind in pairs.items() if kind == how] for how in dict.fromkeys(pairs.values())
    }
    true = len(reported & pairs.keys())
    recall = {"recall": true / len(pairs), "precision": true / max(1, len(reported)), "reported": len(reported)}
    return recall | {"recall_of": {how: sum(hit) / len(hit) for how, hit in hits.items()}}


def inflation(dataset: Dataset, pairs: dict[tuple[str, str], str], network: str) -> dict[str, float]:
    """Validation accuracy of a linear classifier trained without and with the planted copies."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    items = (*dataset.train, *dataset.val)
    features, labels = embedded(items, network), np.array([item.label for item in items])
    copies, victims = ({pair[side] for pair in pairs} for side in (0, 1))
    val = np.arange(len(items)) >= len(dataset.train)
    copy, victim = (np.array([item.image in names for item in items]) for names in (copies, victims))
    result = dict[str, float]()
    for name, train in (("clean", ~val & ~copy), ("leaked", ~val)):
        with threadpool_limits(1):
            classifier = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=(10, 100, 1000, 10_000)))
            right = classifier.fit(features[train], labels[train]).predict(features) == labels
        result |= {f"{name}_top1": right[val].mean(), f"{name}_top1_of_copied": right[victim].mean()}
    result["points"] = 100 * (result["leaked_top1"] - result["clean_top1"])
    return {key: round(float(value), 4) for key, value in result.items()}


def wrong_labels(data: str, seed: int) -> dict[str, Any]:
    """3% of the labels made wrong: which are suspected. ``precision_of_first``: of as many as were made wrong."""
    dataset = open_dataset(data)
    features, looked_at = image_features(dataset)
    items = (*dataset.train, *dataset.val)
    chance = np.random.default_rng(seed)
    wrong = set(chance.choice(len(items), round(WRONG * len(items)), replace=False).tolist())
    turn = chance.integers(1, len(dataset.classes), len(items))
    made = [
        Item(item.image, int(item.label + turn[i]) % len(dataset.classes)) if i in wrong else item
        for i, item in enumerate(items)
    ]
    count = len(dataset.train)
    spoilt = replace(dataset, train=tuple(made[:count]), val=tuple(made[count:]))
    images = {items[i].image for i in wrong}
    hits = [suspect.image in images for suspect in suspects(spoilt, features)]
    return {
        "data": dataset.name,
        "looked_at": looked_at,
        "wrong": len(wrong),
        "suspected": len(hits),
        "recall": round(sum(hits) / len(wrong), 4),
        "precision": round(sum(hits) / len(hits), 4),
        "precision_of_first": round(sum(hits[: len(wrong)]) / len(wrong), 4),
    }


def main() -> None:
    """Run all and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--network", default="mobilenet_v3_small")
    arguments = parser.parse_args()
    natural, seconds, _ = leaks(arguments.data)
    result: dict[str, Any] = {"natural_leaks": len(natural), "cpu_seconds": round(seconds, 2)}
    rows, others = list[dict[str, Any]](), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            data, pairs = planted(arguments.data, PLANTED, seed, Path(folder))
            reported, _, dataset = leaks(data)
            rows.append({"seed": seed} | found_of(pairs, reported))
            print(rows[-1], flush=True)
            rows[-1]["inflation"] = inflation(dataset, pairs, arguments.network)
            print(rows[-1]["inflation"], flush=True)
            data, pairs = planted(arguments.data, OTHERS, seed, Path(folder))
            others.append({"seed": seed} | found_of(pairs, leaks(data)[0]))
            print(others[-1], flush=True)
    labels = [wrong_labels(data, 0) for data in ("sample:digits", str(arguments.data))]
    print(*labels, sep="\n")
    result |= {"planted": rows, "for_information": others, "network": arguments.network, "wrong_labels": labels}
    result |= {"machine": this_machine().to_dict(), "load": load_average(), "date": date.today().isoformat()}
    command = ["python", Path(sys.argv[0]).name, arguments.data.name, *sys.argv[2:]]
    write_text(RESULTS, json.dumps(result | {"command": " ".join(command)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
