"""What went wrong in a run folder: its curves, its recipe, and its accuracy on the images it was trained on."""

import csv
import time
from collections import Counter
from pathlib import Path

import numpy as np

from ..data.loader import ImageLoader
from ..data.sources import Dataset, load_split
from ..errors import ConfigurationError
from ..training.checkpoint import ARGS, RESULTS, SPLIT, load_model
from ..training.diagnose import SLOW_S, Remedy, RunFacts, diagnose
from ..training.recipe import Recipe, from_yaml
from ..training.recipes import finetune, scratch
from .choose import normalised, sample
from .expect import Expectation

LOOKED_AT = 256  # training images that the accuracy on them is counted on
TIMED_BATCHES = 4


def read_rows(run: Path) -> tuple[dict[str, float], ...]:
    """The epochs of results.csv; () before the first is done."""
    if not (run / RESULTS).is_file():
        return ()
    with open(run / RESULTS, newline="") as file:
        return tuple({name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file))


def read_run(run: Path) -> tuple[Recipe, Dataset]:
    """A run's recipe and images. Raises ConfigurationError for a folder that is no run."""
    try:
        recipe = from_yaml((run / ARGS).read_text(encoding="utf-8"))
    except OSError:
        raise ConfigurationError(f"{run} is no run folder: it has no {ARGS}; name a folder below runs/") from None
    return recipe, load_split(run / SPLIT)


def diagnose_run(run: Path, *, finished: bool = True, expected: Expectation | None = None) -> tuple[Remedy, ...]:
    """What went wrong in a run, read from its folder; ``expected``: the accuracy that its images promised."""
    recipe, dataset = read_run(run)
    rows = read_rows(run)
    if not rows or not dataset.val or dataset.task != "classify":
        return ()
    may_end_early = recipe.time_limit_s is not None or recipe.patience
    finished = finished and bool(may_end_early or len(rows) >= recipe.epochs)
    labels = Counter(item.label for item in dataset.val)
    facts = RunFacts(
        rows=rows,
        recipe=recipe,
        classes=len(dataset.classes),
        val_images=len(dataset.val),
        usual_lr=_usual_lr(recipe, len(dataset.train), len(dataset.classes)),
        finished=finished,
        majority=max(labels.values()) / len(dataset.val),
        train_top1=_training_accuracy(run, dataset) if finished else None,
        expected=expected.bands[0].low if expected else None,
        expected_of=expected.of if expected else "",
        frozen=expected is None or expected.weights != "none",
        bn_momentum=_bn_momentum(run, recipe),
        loading=_loading_share(run, recipe, dataset, rows) if rows[-1]["seconds"] > SLOW_S else None,
        gpu=_has_gpu(),
    )
    return diagnose(facts)


def _bn_momentum(run: Path, recipe: Recipe) -> float:
    """That of the run's BatchNorms, the network's own where the recipe says none; 1 where they stay or are folded."""
    if recipe.frozen_bn or recipe.fold_bn:
        return 1.0
    return recipe.bn_momentum or load_model(run).spec.backbone.bn_momentum or 1.0


def _usual_lr(recipe: Recipe, images: int, classes: int) -> float:
    """The learning rate of our recipe with the same optimiser; 0 where there is none."""
    rates = [own.lr for own in (finetune(images, classes), scratch(images, classes)) if _alike(own, recipe)]
    return rates[0] if len(rates) == 1 else 0.0


def _alike(own: Recipe, recipe: Recipe) -> bool:
    return (own.optimizer, own.head_lr) == (recipe.optimizer, recipe.head_lr)


def _training_accuracy(run: Path, dataset: Dataset) -> float:
    """Share of some training images, without augmentation, that the kept weights get right."""
    import torch

    model, items = load_model(run), sample(dataset.train, LOOKED_AT)
    with torch.inference_mode():
        predicted = np.concatenate([model(x_BCHW).argmax(1).numpy() for x_BCHW in normalised(items, model)])
    return float(np.mean(predicted == [item.label for item in items]))


def _loading_share(run: Path, recipe: Recipe, dataset: Dataset, rows: tuple[dict[str, float], ...]) -> float:
    """Seconds that reading a training image takes, of the seconds that the run took for it; 1 at most."""
    if recipe.workers:
        return 0.0  # read beside the training, as fast as it asks
    p, items = load_model(run).spec.preprocessing, dataset.train[: TIMED_BATCHES * recipe.batch]
    loader = ImageLoader(items, p, batch=recipe.batch, augment=recipe.augment, seed=recipe.seed)
    for _ in loader.epoch(0):
        pass  # decoded once, as the run's first epoch does
    start = time.perf_counter()
    for _ in loader.epoch(1):
        pass
    reading = (time.perf_counter() - start) / len(items)
    return min(1.0, reading * len(dataset.train) * len(rows) / rows[-1]["seconds"])


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
