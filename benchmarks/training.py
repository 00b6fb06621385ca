"""Images per second of training from JPEG files: ours beside timm's, torchvision's and fastai's loops, same machine.

    python benchmarks/training.py ../shared/data/clothing10/train [--fastai-python OTHER/bin/python] [--steps-only]

``DATA`` holds CLASS/*.jpg. Everyone trains the same network (random weights: time does not depend on them) on the same
files at 224 pixels in batches of 32 with 2 threads, two whole epochs from files to optimiser steps: the first, in which
nobody has decoded anything yet, and the second. Each contestant runs in a process of its own, all in turn, round after
round; the best of the rounds counts, because other work on the machine only slows one down.

timm: ``create_loader`` with its defaults, AdamW from ``create_optimizer_v2``, the steps of its train script.
torchvision: the preset, SGD and steps of its references. Both with their default number of worker processes and with
one per core; the better one is compared. fastai: ``ImageDataLoaders``, ``aug_transforms``, ``fit_one_cycle``. None has
an average of weights. Ours has timm's augmentation (crops of 8 to 100% of the area, mirrored, colour jitter 0.4) and
optimiser there; two more rows show the recipe ``finetune`` with all it has, at 224 and at its default of 192 pixels.

Then the step alone on one batch that lies ready, by each decision (``training.md``). Writes results/training.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "training.json"
SIZE, BATCH, THREADS, EPOCHS = 224, 32, 2, 2
IMAGES = {"mobilenet_v3_small": 1024, "mobilenet_v2": 256}
PEERS = {  # and the numbers of worker processes to try
    "timm": (4, 2),
    "torchvision": (16, 2),
    "fastai": (2,),
}
OURS = {
    "BatchNorm trained": {},
    "BatchNorm trained, 2 workers": {"workers": 2},
    "BatchNorm trained, no cache": {},
    "BatchNorm trained, files cached before": {},
    "BatchNorm frozen, inside the convolutions": {"frozen_bn": True},
    "BatchNorm folded": {"fold_bn": True},
    "recipe finetune at 224 px": {},
    "recipe finetune, its 192 px": {},
}
STEPS: dict[str, dict[str, Any]] = {
    "float32, channels_last, freed memory kept": {},
    "contiguous": {"channels_last": False},
    "freed memory returned": {"memory": False},
    "bfloat16 autocast": {"amp": True},
    "BatchNorm frozen": {"frozen_bn": True},
    "BatchNorm folded": {"fold_bn": True},
    "with torch's own gradients": {"plain": True},
    "with averaged weights": {"ema": 0.99},
    "optimiser fused": {"fused": True},
    "torch.compile": {"compile": True},
}


def timed(epoch: Callable[[int], int]) -> dict[str, float]:
    """Images per second of each epoch."""
    rates = []
    for number in range(EPOCHS):
        start = time.perf_counter()
        images = epoch(number)
        rates.append(images / (time.perf_counter() - start))
    return {"first": round(rates[0], 1), "later": round(max(rates[1:]), 1)}


def timm_loop(name: str, data: Path, workers: int) -> dict[str, float]:
    """timm's dataset, loader, model and optimiser, and the steps of its train.py."""
    import timm
    import torch
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader
    from timm.optim._optim_factory import create_optimizer_v2

    dataset = create_dataset("", root=str(data))
    cpu = torch.device("cpu")
    loader = create_loader(dataset, (3, SIZE, SIZE), BATCH, is_training=True, num_workers=workers, device=cpu)  # pyright: ignore[reportArgumentType]
    classes = sum(path.is_dir() for path in data.iterdir())
    model = timm.create_model(
        {"mobilenet_v2": "mobilenetv2_100", "mobilenet_v3_small": "mobilenetv3_small_100"}[name], num_classes=classes
    )
    optimizer = create_optimizer_v2(model, "adamw", lr=5e-4, weight_decay=0.05)
    criterion = torch.nn.CrossEntropyLoss()

    def epoch(_: int) -> int:
        model.train()
        seen = 0
        for images, labels in loader:
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            seen += len(images)
        return seen

    return timed(epoch)


def torchvision_loop(name: str, data: Path, workers: int) -> dict[str, float]:
    """The preset, optimiser and steps of torchvision's references/classification."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import models
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import transforms as T

    steps = [T.RandomResizedCrop(SIZE), T.RandomHorizontalFlip(), T.PILToTensor(), T.ConvertImageDtype(torch.float)]
    normalize = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    dataset = ImageFolder(str(data), T.Compose([*steps, normalize]))
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers)
    model = getattr(models, name)(num_classes=len(dataset.classes))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    criterion = torch.nn.CrossEntropyLoss()

    def epoch(_: int) -> int:
        model.train()
        seen = 0
        for images, labels in loader:
            outputs = model(images)
            loss = criterion(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            (outputs.topk(5, 1).indices == labels[:, None]).float().sum(0).tolist()  # its log of accuracies
            loss.item()
            seen += len(images)
        return seen

    return timed(epoch)


def fastai_loop(name: str, data: Path, workers: int) -> dict[str, float]:
    """fastai's loaders and Learner with fit_one_cycle; the time of validation is not counted."""
    from fastai.callback.core import Callback  # pyright: ignore[reportMissingImports]
    from fastai.callback.progress import ProgressCallback  # pyright: ignore[reportMissingImports]
    from fastai.vision import all as fv  # pyright: ignore[reportMissingImports]
    from torchvision import models

    rates = list[float]()

    class Watch(Callback):
        """Notes images per second of each epoch's training."""

        def before_train(self) -> None:
            self.start = time.perf_counter()

        def after_train(self) -> None:
            rates.append(len(dls.train) * BATCH / (time.perf_counter() - self.start))

    dls = fv.ImageDataLoaders.from_folder(
        data,
        valid_pct=0.02,
        item_tfms=fv.Resize(256),
        batch_tfms=fv.aug_transforms(size=SIZE, min_scale=0.75),
        bs=BATCH,
        num_workers=workers,
    )
    learner = fv.Learner(dls, getattr(models, name)(num_classes=dls.c), cbs=[Watch()])
    learner.remove_cb(ProgressCallback)
    learner.logger = fv.noop
    learner.fit_one_cycle(EPOCHS, 1e-3)
    return {"first": round(rates[0], 1), "later": round(max(rates[1:]), 1)}


def our_run(name: str, recipe: Any, items: Iterable[Any]) -> Any:
    """A ``Training`` as ``fit`` makes it."""
    from pocketvision.data.sources import Dataset
    from pocketvision.nn.fold import fold
    from pocketvision.nn.model import build
    from pocketvision.spec.transform import with_classes
    from pocketvision.tasks.classification import Classification
    from pocketvision.training.training import prepare
    from pocketvision.zoo import model_spec

    items = tuple(items)
    classes = tuple(map(str, range(1 + max(item.label for item in items))))
    model = build(with_classes(model_spec(name), classes))
    model = fold(model.eval()).train() if recipe.fold_bn else model
    run = prepare(model, Classification(), Dataset("benchmark", classes, items, (), (), ()), recipe, Path())
    run.train_mode()
    return run


def our_loop(name: str, data: Path, variant: str) -> dict[str, float]:
    """``pocketvision train`` without its evaluations and checkpoints."""
    from dataclasses import replace

    from pocketvision.data.sources import Item
    from pocketvision.data.transforms import Augment
    from pocketvision.training.recipe import Recipe
    from pocketvision.training.recipes import finetune

    folders = sorted(path for path in data.iterdir() if path.is_dir())
    items = [Item(str(file), label) for label, folder in enumerate(folders) for file in sorted(folder.iterdir())]
    recipe = Recipe(optimizer="adamw", lr=5e-4, weight_decay=0.05, augment=Augment(jitter=0.4))
    if variant.startswith("recipe"):
        recipe = finetune(len(items), len(folders))
        recipe = recipe if "192" in variant else replace(recipe, train_scale=1.0)
    recipe = replace(recipe, epochs=100, device="cpu", amp=False, **OURS[variant])
    with tempfile.TemporaryDirectory() as cache:
        os.environ["POCKETVISION_CACHE"] = "" if "no cache" in variant else cache
        if "before" in variant:
            for _ in our_run(name, recipe, items).epoch_batches(99, 0):
                pass
        run = our_run(name, recipe, items)

        def epoch(number: int) -> int:
            seen = 0
            for batch in run.epoch_batches(number, 0):
                run.step(batch)
                seen += len(batch.items)
            return seen

        return timed(epoch)


def one_step(name: str, variant: str) -> dict[str, float]:
    """Seconds of the fastest of some steps on one batch; MiB at the peak of the process."""
    import torch
    from torch import nn

    from pocketvision.data.loader import Batch
    from pocketvision.data.sources import Item
    from pocketvision.nn import layers
    from pocketvision.training import training
    from pocketvision.training.recipe import Recipe

    options = dict(STEPS[variant])
    if not options.pop("memory", True):
        training.keep_freed_memory = bool  # leaves the C library alone
    if options.pop("plain", False):
        layers.ReLU6, layers.Hardswish, layers.Depthwise = nn.ReLU6, nn.Hardswish, nn.Conv2d
    compiled, fused = options.pop("compile", False), options.pop("fused", False)
    fields = {"epochs": 100, "optimizer": "adamw", "lr": 1e-3, "device": "cpu", "amp": False} | options
    items = tuple(Item("", number % 10) for number in range(BATCH))
    run = our_run(name, Recipe(**fields), items)
    run.model = torch.compile(run.model) if compiled else run.model
    for group in run.optimizer.param_groups:
        group["fused"] = fused or None
    pixels = torch.randint(0, 256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    batch = Batch(pixels, torch.tensor([item.label for item in items]), items)
    wall, processor = list[float](), list[float]()
    until = time.monotonic() + 4
    while len(wall) < 8 or time.monotonic() < until:
        start, used = time.perf_counter(), time.process_time()
        run.step(batch)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return {
        "images_per_s": round(BATCH / min(wall[2:]), 1),
        "step_s": round(min(wall[2:]), 4),
        "processor_s": round(min(processor[2:]), 4),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def child(task: list[str]) -> dict[str, float]:
    """What a process of its own does: system, network, folder, and a number of workers or a variant."""
    import torch

    torch.set_num_threads(THREADS)
    system, name, data, variant = task
    match system:
        case "ours":
            return our_loop(name, Path(data), variant)
        case "step":
            return one_step(name, variant)
        case _:
            loop = {"timm": timm_loop, "torchvision": torchvision_loop, "fastai": fastai_loop}[system]
            return loop(name, Path(data), int(variant))


def subset(data: Path, images: int, folder: Path) -> Path:
    """Links to every n-th file below ``data``, in the same class folders."""
    files = sorted(file for file in data.glob("*/*") if file.is_file())
    for file in files[:: max(1, len(files) // images)][:images]:
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / file.parent.name / file.name).symlink_to(file.resolve())
    return folder


def best_of(
    rounds: int, tasks: list[tuple[str, ...]], pythons: dict[str, str]
) -> dict[tuple[str, ...], dict[str, float]]:
    """Run each task in a process of its own, all in turn, and keep the best of each figure."""
    best = dict[tuple[str, ...], dict[str, float]]()
    for turn, task in product(range(rounds), tasks):
        command = [pythons.get(task[0], sys.executable), __file__, "--one", *task]
        ours = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}  # as the command line sets them
        environment = os.environ | (ours if task[0] in ("ours", "step") else {})
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(f"{task} failed:\n{done.stderr}")
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        old = best.get(task, figures)
        best[task] = {k: (max if k in ("first", "later", "images_per_s") else min)(old[k], figures[k]) for k in figures}
        print(f"round {turn + 1}", *(Path(word).name for word in task), figures, file=sys.stderr, flush=True)
    return best


def epochs_table(name: str, data: Path, images: int, rounds: int, fastai: str | None) -> list[dict[str, Any]]:
    """Everyone's images per second with one network."""
    with tempfile.TemporaryDirectory() as folder:
        files = str(subset(data, images, Path(folder)))
        systems = [system for system in PEERS if system != "fastai" or fastai]
        tasks = [("ours", name, files, variant) for variant in OURS]
        tasks += [(system, name, files, str(workers)) for system in systems for workers in PEERS[system]]
        best = best_of(rounds, tasks, {"fastai": fastai or ""})
    timm = max(figures["later"] for task, figures in best.items() if task[0] == "timm")
    rows = []
    for (system, _, _, variant), figures in best.items():
        how = variant if system == "ours" else f"{variant} workers"
        rows.append(
            {"model": name, "system": system, "how": how, **figures, "to_timm": round(figures["later"] / timm, 2)}
        )
    print(f"\n{name}, {SIZE} px, images/s{'first epoch':>50}{'later':>8}{'/ timm':>8}")
    for row in rows:
        print(f"{row['system']:12} {row['how']:45} {row['first']:>10}{row['later']:>10}{row['to_timm']:>8}", flush=True)
    return rows


def steps_table(name: str, variants: Iterable[str], rounds: int) -> list[dict[str, Any]]:
    """One step by each decision."""
    best = best_of(rounds, [("step", name, "-", variant) for variant in variants], {})
    print(f"\n{name}, one step of {BATCH}{'images/s':>40}{'wall s':>10}{'processor s':>13}{'peak MiB':>10}")
    for (*_, how), f in best.items():
        print(f"{how:45} {f['images_per_s']:>14}{f['step_s']:>10}{f['processor_s']:>13}{f['peak_mib']:>10}", flush=True)
    return [{"model": name, "how": task[-1], **figures} for task, figures in best.items()]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--images", type=int, help=f"in an epoch; default {IMAGES}")
    parser.add_argument("--models", nargs="+", default=list(IMAGES), choices=list(IMAGES))
    parser.add_argument("--fastai-python")
    parser.add_argument("--steps-only", action="store_true", help="leave the epochs out")
    parser.add_argument("--compile", action="store_true", help="torch.compile too (minutes, needs a C++ compiler)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(child(arguments.one)))
        return
    from pocketvision.files import write_text
    from pocketvision.measuring.machine import load_average, this_machine

    load, started = load_average(), time.monotonic()
    result: dict[str, Any] = {} if not arguments.out.exists() else json.loads(arguments.out.read_text())
    if not arguments.steps_only:
        if not arguments.data:
            parser.error("name the folder of images, which holds CLASS/*.jpg")
        result["epochs"] = []
        for name in arguments.models:
            images = arguments.images or IMAGES[name]
            result["epochs"] += epochs_table(name, arguments.data, images, arguments.rounds, arguments.fastai_python)
    variants = [how for how in STEPS if arguments.compile or how != "torch.compile"]
    result["steps"] = [row for name in arguments.models for row in steps_table(name, variants, arguments.rounds)]
    words = ["OTHER/bin/python" if word == arguments.fastai_python else word for word in sys.argv[1:]]
    result |= {
        "what": f"images per second of training, {SIZE} px, batch {BATCH}, {THREADS} threads; best of the rounds",
        "images": IMAGES,
        "rounds": arguments.rounds,
        "seconds": round(time.monotonic() - started),
        "machine": this_machine().to_dict(),
        "load_before": load,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python benchmarks/training.py " + " ".join(words),
    }
    print(write_text(arguments.out, json.dumps(result, indent=2) + "\n"))


if __name__ == "__main__":
    main()
