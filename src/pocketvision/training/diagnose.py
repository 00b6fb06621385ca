"""What went wrong in a training run, read from its own curves, and the option that mends it (FACTS P7, P20)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from .recipe import Recipe

Kind = Literal[
    "diverging", "not learning", "memorising", "over-fitting", "too good early", "still improving", "too slow", "low"
]

FLAT = 0.9  # of ln(classes), the loss of guessing: above it nothing was learned
FEW_STEPS = 150  # fewer than this and BatchNorm's statistics and averaged weights have hardly moved
RATE_FACTOR = 5.0  # a learning rate so many times the recipe's, or its inverse, is named as the cause
LOSS_RISE, ACCURACY_GAP = 0.15, 0.15  # of over-fitting: of the lowest validation loss; between training and validation
TOO_GOOD = 0.99  # accuracy that deserves a second look after one epoch, and nothing more at the end
LOSS_FALL = 0.85  # of the validation loss, from a quarter of a run to the next: it still falls
SLOW_S, VERY_SLOW_S, LOADING_SHARE = 600, 3600, 0.4


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing that went wrong: what was ``seen`` in the curves, the likely ``cause``, and the ``fix`` to try."""

    kind: Kind
    seen: str
    cause: str
    fix: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.kind}: {self.seen}. {self.cause}. Try: {self.fix}"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run.

    ``rows``: of results.csv (``epoch``, ``step``, ``train_loss``, ``val_top1``, ``val_loss``, ``seconds``).
    ``usual_lr``: the learning rate that the recipe has by itself, 0 where it is not known. ``finished``: not
    interrupted. ``majority``: share of the most frequent class among the validation images. ``train_top1``:
    accuracy of the kept weights on training images as they are, without augmentation. ``expected``: lowest accuracy
    that was to be expected. ``loading``: share of a step's time that reading images takes. ``gpu``: there is one.
    """

    rows: Sequence[Mapping[str, float]]
    recipe: Recipe
    classes: int
    val_images: int
    usual_lr: float = 0.0
    finished: bool = True
    majority: float = 0.0
    train_top1: float | None = None
    expected: float | None = None
    loading: float | None = None
    gpu: bool = False

    @property
    def guessing(self) -> float:
        """Accuracy of always giving the most frequent class."""
        return max(self.majority, 1 / self.classes)

    def error_of(self, accuracy: float) -> float:
        """Standard error of an accuracy on the validation images."""
        return math.sqrt(max(accuracy * (1 - accuracy), 0.01) / max(1, self.val_images))

    def curve(self, name: str) -> np.ndarray:
        """A column of the rows, float64 [epochs]."""
        return np.array([row[name] for row in self.rows], float)


def diagnose(facts: RunFacts) -> tuple[Remedy, ...]:
    """What went wrong, the gravest first; empty for a healthy run, and for one without a validated epoch."""
    rows = [row for row in facts.rows if "val_top1" in row and "val_loss" in row]
    if not rows or len(rows) < len(facts.rows):
        return ()
    first = _diverging(facts) or _not_learning(facts) or _memorising(facts)
    found = [first] if first else [_over_fitting(facts), _too_good(facts), _still_improving(facts)]
    return tuple(remedy for remedy in (*found, _too_slow(facts), _low(facts)) if remedy)


def _diverging(facts: RunFacts) -> Remedy | None:
    loss, top1, guess = facts.curve("train_loss"), facts.curve("val_top1"), math.log(facts.classes)
    if len(loss) < 2 or loss[-1] < 1.3 * loss[:-1].min() or loss[-1] < FLAT * guess or top1[-1] > 0.8 * top1.max():
        return None
    recipe = facts.recipe
    clip = "" if recipe.clip_norm else " and --set clip_norm=1"
    return Remedy(
        "diverging",
        f"the training loss rose from {loss[:-1].min():.2f} to {loss[-1]:.2f}, accuracy fell to {top1[-1]:.1%}",
        f"The learning rate {recipe.lr:g} is too high for this data",
        f"--lr {recipe.lr / 10:g}{clip}",
    )


def _not_learning(facts: RunFacts) -> Remedy | None:
    loss, top1, guess = facts.curve("train_loss"), facts.curve("val_top1"), math.log(facts.classes)
    if top1.max() > facts.guessing + 3 * facts.error_of(facts.guessing) or loss[-1] < FLAT * guess:
        return None
    seen = (
        f"after {len(loss)} epochs the loss is {loss[-1]:.2f} (guessing: {guess:.2f}) and accuracy {top1[-1]:.1%} "
        f"(guessing: {facts.guessing:.1%})"
    )
    lr, usual, steps = facts.recipe.lr, facts.usual_lr, int(facts.rows[-1]["step"])
    if usual and not usual / RATE_FACTOR <= lr <= usual * RATE_FACTOR:
        level = "low" if lr < usual else "high"
        return Remedy("not learning", seen, f"The learning rate {lr:g} is too {level}", f"--lr {usual:g}")
    if steps < FEW_STEPS:
        return Remedy("not learning", seen, f"{steps} steps are too few to learn anything", _longer(facts))
    cause = "The labels may not belong to the images, or the images are changed too strongly"
    fix = f"`pocketvision data DATA` to look at the labels, then --lr {2 * lr:g}, then --set augment.policy=none"
    return Remedy("not learning", seen, cause, fix)


def _memorising(facts: RunFacts) -> Remedy | None:
    loss, top1 = facts.curve("train_loss"), facts.curve("val_top1")
    if top1.max() > facts.guessing + 3 * facts.error_of(facts.guessing):
        return None
    seen = (
        f"the training loss fell from {loss[0]:.2f} to {loss[-1]:.2f}, but accuracy on validation images is "
        f"{top1[-1]:.1%} (guessing: {facts.guessing:.1%})"
    )
    if (steps := int(facts.rows[-1]["step"])) < FEW_STEPS:
        return Remedy("memorising", seen, f"{steps} steps are too few for what is evaluated to follow", _longer(facts))
    cause = (
        "What holds for the training images does not hold for the others: labels that are wrong or mean other things"
    )
    return Remedy("memorising", seen, cause, "`pocketvision data DATA`, and look at the labels of both splits")


def _over_fitting(facts: RunFacts) -> Remedy | None:
    train, loss, top1 = facts.curve("train_loss"), facts.curve("val_loss"), facts.curve("val_top1")
    lowest, end = int(loss.argmin()), float(loss[-2:].mean())
    rose = end > (1 + LOSS_RISE) * loss[lowest] and train[-1] < train[lowest]
    better = top1[-2:].mean() > top1[lowest] + facts.error_of(top1[lowest])
    gap = None if facts.train_top1 is None else facts.train_top1 - float(top1.max())
    wide = gap is not None and gap > ACCURACY_GAP
    if not wide and not (rose and not better and (gap is None or gap > ACCURACY_GAP / 3)):
        return None
    seen = []
    if gap is not None:
        seen.append(f"{facts.train_top1:.1%} of training images are right, {top1.max():.1%} of validation images")
    if rose:
        seen.append(f"the validation loss rose from {loss[lowest]:.2f} (epoch {lowest + 1}) to {end:.2f}")
    return Remedy(
        "over-fitting",
        ", ".join(seen),
        "The network learns these images by heart. A small one seldom does: the split may not be a fair one (FACTS P7)",
        "more images; `pocketvision data DATA` to check labels and split; "
        + (f"--epochs {max(2, lowest + 2)}; " if rose and lowest + 2 < len(loss) else "")
        + _more_augmentation(facts.recipe),
    )


def _more_augmentation(recipe: Recipe) -> str:
    """The first kind of augmentation that the recipe has not."""
    if recipe.augment.policy == "none":
        return "--set augment.policy=trivialaugment"
    return "--set mixup=0.2" if not recipe.mixup else "--set augment.erase=0.25"


def _too_good(facts: RunFacts) -> Remedy | None:
    first = float(facts.curve("val_top1")[0])
    if first < TOO_GOOD or facts.val_images < 50:
        return None
    cause = "Either the task is easy, or validation images, or near copies of them, are among the training images"
    seen = f"{first:.1%} of validation images are right after the first epoch"
    return Remedy("too good early", seen, cause, "`pocketvision data DATA`, which looks for copies across the splits")


def _still_improving(facts: RunFacts) -> Remedy | None:
    top1, loss = facts.curve("val_top1"), facts.curve("val_loss")
    part = max(1, len(top1) // 4)
    if len(top1) < 2 or not facts.finished:
        return None
    end, before = float(top1[-part:].mean()), float(top1[-2 * part : -part].mean())
    falling = loss[-part:].mean() < LOSS_FALL * loss[-2 * part : -part].mean()
    least = max(0.01, (0.5 if falling else 1.5) * facts.error_of(end))
    if end > TOO_GOOD or end - before < least:
        return None
    epochs = "epoch" if part == 1 else f"{part} epochs"
    return Remedy(
        "still improving",
        f"accuracy rose from {before:.1%} to {end:.1%} in the last {epochs}",
        "The training ended before the network had learned all it could",
        _longer(facts),
    )


def _longer(facts: RunFacts) -> str:
    """The option that makes a run twice as long: the one that ended it."""
    recipe, done = facts.recipe, len(facts.rows)
    if recipe.time_limit_s is not None and done < recipe.epochs:
        return f"--time {2 * recipe.time_limit_s / 60:g}"
    needed = math.ceil(FEW_STEPS / (facts.rows[-1]["step"] / done))
    return f"--epochs {max(2 * recipe.epochs, needed)}"


def _too_slow(facts: RunFacts) -> Remedy | None:
    seconds, recipe = float(facts.rows[-1]["seconds"]), facts.recipe
    if seconds < SLOW_S:
        return None
    seen = f"{len(facts.rows)} epochs took {seconds / 60:.0f} minutes"
    if facts.gpu and recipe.device == "cpu":
        return Remedy("too slow", seen, "A GPU is there, and the training ran on the processor", "--device cuda")
    if facts.loading is not None and facts.loading > LOADING_SHARE:
        cause = f"Reading and changing images takes {facts.loading:.0%} of the time"
        return Remedy("too slow", seen, cause, f"--workers {max(2, 2 * recipe.workers)}")
    if recipe.device == "cuda" and recipe.batch < 64:
        return Remedy("too slow", seen, f"{recipe.batch} images a step leave a GPU idle", "--batch 128 (FACTS P2)")
    if seconds > VERY_SLOW_S and recipe.device == "cpu":
        cause = "A processor needs 5 to 10 times as long as a GPU (FACTS P8)"
        return Remedy("too slow", seen, cause, "--time 30, a smaller --imgsz, or a machine with a GPU")
    return None


def _low(facts: RunFacts) -> Remedy | None:
    best = float(facts.curve("val_top1").max())
    if facts.expected is None or best >= facts.expected or not facts.finished:
        return None
    return Remedy(
        "low",
        f"accuracy {best:.1%}, where a linear classifier on frozen features promised at least {facts.expected:.1%}",
        "Training spoiled or did not use what the weights knew",
        f"leave --lr, --batch and --epochs to the recipe; --weights imagenet; {_longer(facts)}",
    )
