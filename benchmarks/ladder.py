"""The papers' training components switched on one at a time: several seeds, means, 95% intervals of paired differences.

    python benchmarks/ladder.py tune  --scale cpu    # learning rates, with a seed of their own
    python benchmarks/ladder.py run   --scale cpu    # every rung, seed after seed: two hours of one core, restartable
    python benchmarks/ladder.py table                # benchmarks/results/ladder.json from what is finished

CIFAR-10 (at 64 pixels, networks from random weights) and clothing10 (at 96 pixels, MobileNetV3-Small from ImageNet's
weights); ``ladder_rungs.py`` says which rungs and which claims. ``--scale cpu`` takes part of the images and few
epochs, ``--scale gpu`` all of them and many. Each run is a process of its own and leaves one file in results/ladder/;
a file whose recipe is still the same is not made again. All runs with one seed start from the same weights and see the
images in the same order, so their differences are taken pair by pair; test images choose nothing.
"""

import argparse
import hashlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from ladder_rungs import (
    CLAIMS,
    RUNS,
    SCALES,
    TUNED_ON,
    TUNING_SEED,
    DataName,
    Rung,
    Scale,
    network,
    rungs,
    teacher_recipe,
    tuning_rungs,
)

from pocketvision.data.sources import Dataset, Item
from pocketvision.files import write_text
from pocketvision.training.recipe import Recipe

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "ladder.json"
SHARED = Path(os.environ.get("POCKETVISION_SHARED") or HERE.parent.parent / "shared") / "data"
CACHE = Path(tempfile.gettempdir()) / "pocketvision-ladder"
TEACHER_SEED = 101
TEACHERS = {"cifar10": "mobilenet_v2", "clothing10": "efficientnet_lite0"}


def dataset(data: DataName, scale: Scale) -> Dataset:
    """The images of each class in a fixed order: first those of the test, then validation, then training."""
    if data == "cifar10":
        folder = CACHE / "cifar10"
        if not folder.exists():
            with tarfile.open(SHARED / "cifar10" / "cifar10_jpg.tar.xz") as archive:
                archive.extractall(CACHE, filter="data")
        train, test = (_files([folder / part]) for part in ("train", "test"))
    else:
        train = _files([SHARED / "clothing10" / part for part in ("train", "val")])
        test = {name: files[: scale.test] for name, files in train.items()}
        train = {name: files[scale.test :] for name, files in train.items()}
    classes = tuple(train)
    parts = {
        "train": {name: files[scale.val : scale.val + scale.train] for name, files in train.items()},
        "val": {name: files[: scale.val] for name, files in train.items()},
        "test": {name: files[: scale.test] for name, files in test.items()},
    }
    items = {
        part: tuple(Item(str(path), classes.index(name)) for name in classes for path in by_class[name])
        for part, by_class in parts.items()
    }
    return Dataset(data, classes, items["train"], items["val"], items["test"], ())


def _files(folders: list[Path]) -> dict[str, list[Path]]:
    """Images by class, in the order of their names' hashes."""
    names = sorted({path.name for folder in folders for path in folder.iterdir()})
    return {
        name: sorted(
            (path for folder in folders for path in (folder / name).iterdir()),
            key=lambda path: hashlib.sha256(f"{path.parent.parent.name}/{path.name}".encode()).digest(),
        )
        for name in names
    }


def train(rung: Rung, data: DataName, scale: Scale, seed: int, run: Path) -> dict[str, Any]:
    """One run: its test accuracies, its course and the processor time it took."""
    import torch

    from pocketvision.app.choose import load_whole, normalised, sample
    from pocketvision.nn.fold import has_identity_norms, unfold
    from pocketvision.nn.load import load_model
    from pocketvision.nn.model import build
    from pocketvision.spec.transform import with_classes, with_size
    from pocketvision.tasks.classification import Classification
    from pocketvision.training.checkpoint import BEST, LAST
    from pocketvision.training.evaluate import evaluate, torch_predictor
    from pocketvision.training.events import EpochEnd
    from pocketvision.training.loop import fit

    started, images = time.process_time(), dataset(data, scale)
    torch.manual_seed(seed)
    spec = with_classes(with_size(network(rung.network), scale.size, ratio=1.0), images.classes)
    model = load_whole(spec, "imagenet")[0] if rung.pretrained else build(spec)
    if rung.pretrained and has_identity_norms(model):
        model = unfold(model.eval(), normalised(sample(images.train, 256), model)).train()
    recipe = replace(rung.recipe, seed=seed, save_every_s=1e9)
    if rung.taught:
        recipe = replace(recipe, teachers=(str(teacher(data, scale) / LAST),))
    events = [event for event in fit(model, Classification(), images, recipe, run) if isinstance(event, EpochEnd)]
    top1 = {}
    for name, weights in (("last", LAST), ("best", BEST)):
        trained = load_model(None, run / weights)[0]
        predict = torch_predictor(trained, "cuda" if torch.cuda.is_available() else "cpu")
        result = evaluate(predict, images.test, trained.spec.preprocessing, images.classes, batch=100)
        top1[name] = round(result.top1, 5)
    return {
        "data": data,
        "rung": rung.name,
        "seed": seed,
        "network": rung.network,
        "recipe": settings(rung.recipe),
        "scale": asdict(scale),
        "top1": top1,
        "train_loss": round(events[-1].train_loss, 5),
        "val_top1": [round(event.metrics["top1"], 4) for event in events],
        "processor_s": round(time.process_time() - started, 1),
    }


def teacher(data: DataName, scale: Scale) -> Path:
    """The run folder of a data set's teacher, trained when it is not there."""
    rung = Rung("teacher", TEACHERS[data], teacher_recipe(scale), pretrained=True)
    folder = CACHE / f"teacher_{data}_{hashlib.sha256(repr((scale, rung)).encode()).hexdigest()[:8]}"
    if not (folder / "result.json").exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as place:
            run = Path(place) / "run"
            result = train(rung, data, scale, TEACHER_SEED, run)
            write_text(run / "result.json", json.dumps(result))
            run.rename(folder)
        write_text(_file("cpu" if scale in SCALES["cpu"].values() else "gpu", rung, data, TEACHER_SEED), _json(result))
    return folder


def settings(recipe: Recipe) -> dict[str, Any]:
    """The fields of a recipe that are not the defaults, as JSON values."""
    defaults, values = Recipe().to_dict(), recipe.to_dict()
    return {field.name: values[field.name] for field in fields(recipe) if values[field.name] != defaults[field.name]}


def _json(result: dict[str, Any]) -> str:
    return json.dumps(result) + "\n"


def _file(scale: str, rung: Rung, data: DataName, seed: int) -> Path:
    return RUNS / f"{scale}_{data}_{rung.name}_seed{seed}.json"


def jobs(scale: str, part: str, data: list[DataName]) -> Iterator[tuple[DataName, Rung, int]]:
    """What is to be run, seed after seed, so that an early end leaves complete seeds."""
    for seed in [TUNING_SEED] if part == "tune" else range(max(SCALES[scale][name].seeds for name in data)):
        for name in data:
            size = SCALES[scale][name]
            for rung in tuning_rungs(name, size) if part == "tune" else rungs(name, size):
                yield name, rung, seed


def run_all(arguments: argparse.Namespace) -> None:
    """Each job in a process of its own; what is there, of the same recipe and scale, is kept."""
    for name, rung, seed in jobs(arguments.scale, arguments.part, arguments.data):
        path = _file(arguments.scale, rung, name, seed)
        if path.exists():
            done = json.loads(path.read_text())
            wanted = {"recipe": settings(rung.recipe), "scale": asdict(SCALES[arguments.scale][name])}
            if all(done[key] == value for key, value in wanted.items()) and done["network"] == rung.network:
                continue
        command = [sys.executable, __file__, "one", "--scale", arguments.scale, "--data", name]
        print(f"{time.strftime('%H:%M:%S')} {name} {rung.name} seed {seed}", flush=True)
        subprocess.run([*command, "--rung", rung.name, "--seed", str(seed)], check=True)


def run_one(arguments: argparse.Namespace) -> None:
    """One job, here."""
    (name,) = arguments.data
    scale = SCALES[arguments.scale][name]
    (rung,) = (r for r in [*rungs(name, scale), *tuning_rungs(name, scale)] if r.name == arguments.rung)
    random.seed(arguments.seed)
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        result = train(rung, name, scale, arguments.seed, Path(folder) / "run")
    print(_json(result), end="", flush=True)
    write_text(_file(arguments.scale, rung, name, arguments.seed), _json(result))


def interval(values: list[float]) -> dict[str, Any]:
    """Mean and 95% interval (Student's t) of ``values``; no interval for one."""
    from scipy.stats import t

    n, mean = len(values), statistics.mean(values)
    if n == 1:
        return {"n": n, "mean": round(mean, 4), "low": None, "high": None}
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return {"n": n, "mean": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4)}


def verdict(difference: dict[str, Any], claimed: float | None) -> str:
    """Held, or not, only where the interval leaves 0 on one side; they differ, where nobody claims a direction."""
    low, high = difference["low"], difference["high"]
    if low is None or low <= 0 <= high:
        return "undecided"
    if claimed is None:
        return "they differ"
    return "held" if (low > 0) == (claimed > 0) else "did not hold"


def table(arguments: argparse.Namespace) -> None:
    """The finished runs as means, and the claims as paired differences."""
    results = [json.loads(path.read_text()) for path in sorted(RUNS.glob(f"{arguments.scale}_*.json"))]
    by_rung: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for result in results:
        by_rung.setdefault((result["data"], result["rung"]), {})[result["seed"]] = result
    lines = list[dict[str, Any]]()
    for data, scale in SCALES[arguments.scale].items():
        for rung in rungs(data, scale):
            done = list(by_rung.get((data, rung.name), {}).values())
            line: dict[str, Any] = {"data": data, "rung": rung.name, "network": rung.network}
            for measure in ("last", "best"):
                line[measure] = interval([100 * result["top1"][measure] for result in done]) if done else None
            lines.append(line | {"recipe": settings(rung.recipe), "taught": rung.taught})
    summary = {
        "scale": arguments.scale,
        "command": f"python benchmarks/ladder.py run --scale {arguments.scale}",
        "scales": {data: asdict(scale) for data, scale in SCALES[arguments.scale].items()},
        "rungs": lines,
        "claims": [_judged(claim, by_rung) for claim in CLAIMS],
        "teachers": [result for result in results if result["rung"] == "teacher"],
        "tuning": [
            {"rate": key, "lr": lr, "val_top1": runs[TUNING_SEED]["val_top1"][-1]}
            for key in TUNED_ON
            for (_, name), runs in sorted(by_rung.items())
            if name.startswith(f"tune_{key}_") and (lr := name.removeprefix(f"tune_{key}_"))[0].isdigit()
        ],
        "processor_hours": round(sum(result["processor_s"] for result in results) / 3600, 2),
    }
    print(write_text(RESULTS, json.dumps(summary, indent=1) + "\n"))
    for line in summary["claims"]:
        print(line["verdict"], line["data"], line["what"], line["difference"])


def _judged(claim: Any, by_rung: dict[tuple[str, str], dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """A claim with the paired difference of what has run; the loss is compared in percent of the other's."""
    new, old = (by_rung.get((claim.data, name), {}) for name in (claim.rung, claim.against))
    seeds = sorted(new.keys() & old.keys())
    if claim.measure == "train_loss":
        values = [100 * (new[seed]["train_loss"] / old[seed]["train_loss"] - 1) for seed in seeds]
    else:
        values = [100 * (new[seed]["top1"][claim.measure] - old[seed]["top1"][claim.measure]) for seed in seeds]
    difference = interval(values) if values else None
    judged = verdict(difference, claim.claimed) if difference else "not run"
    return asdict(claim) | {"difference": difference, "verdict": judged}


def main() -> None:
    """Do one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("tune", "run", "one", "table"))
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--data", nargs="+", choices=("cifar10", "clothing10"), default=["cifar10", "clothing10"])
    parser.add_argument("--rung")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    {"tune": run_all, "run": run_all, "one": run_one, "table": table}[arguments.part](arguments)


if __name__ == "__main__":
    main()
