"""Other people's ways to fine-tune MobileNetV2; ``benchmarks/time_to_accuracy.py`` starts each in its own process.

    python benchmarks/finetune_peers.py timm DATA --weights FILE.safetensors --setting lr5e-4 --seed 0 --out curve.json

``DATA`` holds train/CLASS and val/CLASS. All start from the same weights, see every training image once an epoch in
batches of 32 at 224 pixels, and have a new classifier. What differs is what each project's documents recommend:

timm: ``create_loader`` with its default augmentation (crops of 8 to 100% of the area, colour jitter 0.4), AdamW through
``create_optimizer_v2`` (weight decay 0.05), a cosine with a warm-up of one epoch, label smoothing 0.1, and the steps of
its train script. torchvision: the presets of its references, SGD with momentum 0.9 and weight decay 1e-4, a cosine,
label smoothing 0.1, and the steps of its references' ``train_one_epoch``. fastai: ``vision_learner``, then
``fine_tune(7)`` (an epoch with the body frozen, then seven), presizing to 256, ``aug_transforms(size=224,
min_scale=0.75)``, and its defaults for all else.

Each setting is a learning rate or an augmentation, tried with one seed; the best goes on to the others. timm and
torchvision evaluate on the central 87.5% of the short side by default, which costs accuracy where things fill the
photo; their accuracy on the whole short side is counted too, and the better one is reported.

``--cheap`` saves processor time where only accuracy matters: channels_last, and a C library that keeps freed memory.
Neither changes the mathematics. Without it every loop runs as its project ships it, with a worker process per core.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

SIZE, BATCH, EPOCHS = 224, 32, 8
WHOLE, DEFAULT_CROP = 1.0, 0.875  # share of the short side that is evaluated
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "timm": {
        "lr5e-4": {"lr": 5e-4},
        "lr5e-4_randaugment": {"lr": 5e-4, "augment": "rand-m9-mstd0.5-inc1"},
        "lr1e-3": {"lr": 1e-3},
    },
    "torchvision": {
        "lr0.01": {"lr": 0.01},
        "lr0.01_trivialaugment": {"lr": 0.01, "augment": "ta_wide"},
        "lr0.03": {"lr": 0.03},
    },
    "fastai": {"lr2e-3": {"lr": 2e-3}, "lr5e-3": {"lr": 5e-3}, "lr1e-2": {"lr": 1e-2}},
}


@dataclass(frozen=True)
class Job:
    """One run; ``report`` is told each epoch's number, seconds and accuracies (0 to 1)."""

    data: Path
    weights: Path
    setting: dict[str, Any]
    epochs: int
    cheap: bool
    report: Callable[[dict[str, float]], None]

    @property
    def workers(self) -> int:
        return 0 if self.cheap else os.cpu_count() or 1

    def layout(self, x: Any) -> Any:
        """A network or a batch, in the memory layout of this job."""
        return x.to(memory_format=torch.channels_last) if self.cheap else x

    def pretrained(self, model: nn.Module) -> nn.Module:
        """``model`` with the shared weights, whatever its own names: both lists have the same order."""
        state = model.state_dict()
        given = [(name, tensor) for name, tensor in load_file(self.weights).items() if "num_batches" not in name]
        given = dict(given)
        order = [name for name in _torchvision_names() if name in given]
        own = [name for name in state if "num_batches" not in name]
        assert len(order) == len(own), (len(order), len(own))
        for mine, name in zip(own, order, strict=True):
            assert state[mine].shape == given[name].shape, (mine, name)
            state[mine] = given[name].float()
        model.load_state_dict(state)
        return model


def _torchvision_names() -> list[str]:
    from torchvision.models import mobilenet_v2

    return list(mobilenet_v2().state_dict())


def accuracy(job: Job, model: nn.Module, batches: Iterable[Any]) -> float:
    """Share of the images whose highest score is their label's."""
    model.eval()
    hits = seen = 0
    with torch.inference_mode():
        for images, labels in batches:
            hits += int((model(job.layout(images)).argmax(1) == labels).sum())
            seen += len(labels)
    return hits / seen


def run_epochs(
    job: Job, model: nn.Module, train: Callable[[int], None], val: Mapping[float, Iterable[tuple[Tensor, Tensor]]]
) -> None:
    """Train and evaluate in turn; on the default crop first, and on the whole side where only accuracy matters."""
    for epoch in range(job.epochs):
        start = time.perf_counter()
        model.train()
        train(epoch)
        trained = time.perf_counter()
        row: dict[str, float] = {"top1": accuracy(job, model, val[DEFAULT_CROP])}
        row |= {"epoch": epoch + 1, "train_s": trained - start, "eval_s": time.perf_counter() - trained}
        if job.cheap:
            row["top1_whole"] = accuracy(job, model, val[WHOLE])
        job.report(row)


def timm_loop(job: Job) -> None:
    """timm's datasets, loader, model, optimiser, scheduler and the steps of its train.py."""
    import timm
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader
    from timm.loss.cross_entropy import LabelSmoothingCrossEntropy
    from timm.optim._optim_factory import create_optimizer_v2
    from timm.scheduler.scheduler_factory import create_scheduler_v2
    from timm.utils.metrics import AverageMeter

    def loader(split: str, **options: Any) -> Any:
        dataset = create_dataset("", root=str(job.data), split=split)
        return create_loader(
            dataset,  # pyright: ignore[reportArgumentType]
            (3, SIZE, SIZE),
            BATCH,
            num_workers=job.workers,
            persistent_workers=job.workers > 0,
            device=torch.device("cpu"),
            **options,
        )

    augment = job.setting.get("augment")
    batches = loader("train", is_training=True, auto_augment=augment, interpolation="random")
    val = {crop: loader("val", crop_pct=crop, interpolation="bicubic") for crop in (DEFAULT_CROP, WHOLE)}
    model = job.pretrained(timm.create_model("mobilenetv2_100"))
    model.reset_classifier(len(batches.dataset.reader.class_to_idx))  # type: ignore[operator]
    model = job.layout(model)
    optimizer = create_optimizer_v2(model, "adamw", lr=job.setting["lr"], weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=job.epochs,
        warmup_epochs=1,
        step_on_epochs=False,
        updates_per_epoch=len(batches),
    )
    assert scheduler is not None
    criterion, losses = LabelSmoothingCrossEntropy(0.1), AverageMeter()

    def train(epoch: int) -> None:
        updates = epoch * len(batches)
        for images, labels in batches:
            loss = criterion(model(job.layout(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            scheduler.step_update(num_updates=updates, metric=losses.avg)
            losses.update(loss.item(), len(images))
        scheduler.step(epoch + 1)

    run_epochs(job, model, train, val)


def torchvision_loop(job: Job) -> None:
    """The presets, optimiser and steps of torchvision's references/classification."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.models import mobilenet_v2
    from torchvision.transforms import transforms as T
    from torchvision.transforms.autoaugment import TrivialAugmentWide

    to_tensor = [
        T.PILToTensor(),
        T.ConvertImageDtype(torch.float),
        T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    policy = [TrivialAugmentWide()] if job.setting.get("augment") else []
    augment = T.Compose([T.RandomResizedCrop(SIZE), T.RandomHorizontalFlip(), *policy, *to_tensor])
    dataset = ImageFolder(str(job.data / "train"), augment)
    batches = DataLoader(dataset, BATCH, shuffle=True, num_workers=job.workers)
    val = {
        crop: DataLoader(
            ImageFolder(
                str(job.data / "val"), T.Compose([T.Resize(round(SIZE / crop)), T.CenterCrop(SIZE), *to_tensor])
            ),
            BATCH,
            num_workers=job.workers,
        )
        for crop in (DEFAULT_CROP, WHOLE)
    }
    model = job.pretrained(mobilenet_v2())
    model.classifier[1] = nn.Linear(1280, len(dataset.classes))  # type: ignore[index,operator]
    model = job.layout(model)
    optimizer = torch.optim.SGD(model.parameters(), job.setting["lr"], momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=job.epochs)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)

    def train(_: int) -> None:
        for images, labels in batches:
            outputs = model(job.layout(images))
            loss = criterion(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            (outputs.topk(5, 1).indices == labels[:, None]).float().sum(0).tolist()  # its log of accuracies
            loss.item()
        scheduler.step()

    run_epochs(job, model, train, val)


def fastai_loop(job: Job) -> None:
    """fastai's vision_learner and fine_tune; its validation sees the whole short side."""
    from fastai.callback.core import Callback  # pyright: ignore[reportMissingImports]
    from fastai.callback.progress import ProgressCallback  # pyright: ignore[reportMissingImports]
    from fastai.learner import Recorder  # pyright: ignore[reportMissingImports]
    from fastai.metrics import accuracy as top1  # pyright: ignore[reportMissingImports]
    from fastai.vision import all as fv  # pyright: ignore[reportMissingImports]
    from torchvision.models import mobilenet_v2

    class Report(Callback):
        """Tells the job each epoch's seconds and accuracy, and sets the memory layout."""

        order = Recorder.order + 1
        count = 0

        def before_train(self) -> None:
            self.started = time.perf_counter()

        def before_batch(self) -> None:
            self.learn.xb = tuple(job.layout(x) for x in self.learn.xb)

        def before_validate(self) -> None:
            self.trained = time.perf_counter()

        def after_epoch(self) -> None:
            self.count += 1
            row = {"epoch": self.count, "top1": float(self.recorder.values[-1][-1])}
            now = time.perf_counter()
            job.report(row | {"train_s": self.trained - self.started, "eval_s": now - self.trained})

    def arch(**_: Any) -> nn.Module:
        return job.pretrained(mobilenet_v2())

    dls = fv.ImageDataLoaders.from_folder(
        job.data,
        train="train",
        valid="val",
        item_tfms=fv.Resize(256),
        batch_tfms=fv.aug_transforms(size=SIZE, min_scale=0.75),
        bs=BATCH,
        num_workers=job.workers,
    )
    fv.model_meta[arch] = {"cut": -1, "split": fv.default_split, "stats": fv.imagenet_stats}
    learner = fv.vision_learner(dls, arch, metrics=top1, cbs=[Report()])
    assert any(isinstance(transform, fv.Normalize) for transform in dls.after_batch.fs)
    learner.remove_cb(ProgressCallback)
    learner.logger = fv.noop
    learner.model = job.layout(learner.model)
    learner.fine_tune(job.epochs - 1, base_lr=job.setting["lr"])


LOOPS: dict[str, Callable[[Job], None]] = {"timm": timm_loop, "torchvision": torchvision_loop, "fastai": fastai_loop}


def main() -> None:
    """Run one job and write its curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=LOOPS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--setting", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--cheap", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.cheap:
        from pocketvision.training.memory import keep_freed_memory

        keep_freed_memory()
        torch.set_num_threads(1)
    random.seed(arguments.seed)
    np.random.seed(arguments.seed)  # noqa: NPY002 (timm and fastai draw from it)
    torch.manual_seed(arguments.seed)
    setting = SETTINGS[arguments.system][arguments.setting]
    rows = list[dict[str, float]]()

    def report(row: dict[str, float]) -> None:
        rows.append({name: round(value, 4) for name, value in row.items()})
        print(json.dumps(rows[-1]), flush=True)

    LOOPS[arguments.system](Job(arguments.data, arguments.weights, setting, arguments.epochs, arguments.cheap, report))
    result = {
        "system": arguments.system,
        "setting": arguments.setting,
        "values": setting,
        "seed": arguments.seed,
        "cheap": arguments.cheap,
        "processor_s": round(time.process_time(), 1),
        "epochs": rows,
    }
    partial = arguments.out.with_suffix(".part")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(arguments.out)


if __name__ == "__main__":
    main()
