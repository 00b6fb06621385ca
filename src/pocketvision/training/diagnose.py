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

FLAT = 0.9  # of ln(classes), the loss of guessing, and of the first epoch's: above it nothing was learned
FEW_STEPS = 150  # fewer than this and averaged weights have hardly moved
MEMORIES = 3  # of BatchNorm's running statistics, 1 / momentum steps each: after so many their start is forgotten
USUAL_MOMENTUM = 0.1  # of BatchNorm, PyTorch's
RARE = 1.5  # times the share of a class among equal ones: a class so frequent makes the others rare
RATE_FACTOR = 5.0  # a learning rate so many times the recipe's, or its inverse, is named as the cause
LOSS_RISE, ACCURACY_GAP = 0.15, 0.15  # of over-fitting: of the lowest validation loss; between training and validation
TOO_GOOD = 0.99  # accuracy that deserves a second look after one epoch, and nothing more at the end
FALLS = 0.98  # of the first epoch's validation loss: below it something was learned that holds for other images
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
    that the images promised to ``expected_of``, a classifier on ``frozen`` pretrained features or else on pixels.
    ``bn_momentum``: weight of a new batch in BatchNorm's running statistics, 1 where they do not move or are not
    there. ``loading``: share of a step's time that reading images takes. ``gpu``: there is one.
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
    expected_of: str = "a linear classifier on frozen features"
    frozen: bool = True
    bn_momentum: float = 0.1
    loading: float | None = None
    gpu: bool = False

    @property
    def guessing(self) -> float:
        """Accuracy of always giving the most frequent class."""
        return max(self.majority, 1 / self.classes)

    @property
    def steps(self) -> int:
        """Training steps that were done."""
        return int(self.rows[-1]["step"])

    @property
    def needed_steps(self) -> int:
        """Steps after which what is evaluated has followed what was trained."""
        return max(FEW_STEPS, math.ceil(MEMORIES / self.bn_momentum))

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
    first = _diverging(facts) or _guessing(facts)
    found = [first] if first else [_over_fitting(facts), _too_good(facts), _still_improving(facts)]
    return tuple(remedy for remedy in (*found, _too_slow(facts), _low(facts)) if remedy)


def _learned_nothing(facts: RunFacts) -> float:
    """The training loss that counts as nothing learned: that of guessing, or of the first epoch where that is lower.

    The first epoch's is all there is where the loss is not that of labels (from teachers), or classes are unequal.
    """
    loss, guess = facts.curve("train_loss"), math.log(facts.classes)
    return FLAT * (min(guess, float(loss[0])) if facts.recipe.teachers or len(loss) > 1 else guess)


def _diverging(facts: RunFacts) -> Remedy | None:
    loss, top1 = facts.curve("train_loss"), facts.curve("val_top1")
    if len(loss) < 2 or loss[-1] < 1.3 * loss[:-1].min() or top1[-1] > 0.8 * top1.max():
        return None
    if loss[-1] < _learned_nothing(facts):
        return None
    recipe = facts.recipe
    clip = "" if recipe.clip_norm else " and --set clip_norm=1"
    return Remedy(
        "diverging",
        f"the training loss rose from {loss[:-1].min():.2f} to {loss[-1]:.2f}, accuracy fell to {top1[-1]:.1%}",
        f"The learning rate {recipe.lr:g} is too high for this data",
        f"--lr {recipe.lr / 10:g}{clip}",
    )


def _guessing(facts: RunFacts) -> Remedy | None:
    """Accuracy that stays at guessing: nothing is learned, or nothing that holds for other images."""
    train, val, top1 = facts.curve("train_loss"), facts.curve("val_loss"), facts.curve("val_top1")
    guess, error = facts.guessing, facts.error_of(facts.guessing)
    if top1.max() > guess + 3 * error or top1[-3:].mean() > guess + 2 * error:
        return None
    flat = train[-1] >= _learned_nothing(facts)
    if not flat and val[-1] < FALLS * val[0] and facts.steps >= facts.needed_steps:
        return None  # it learns what holds for other images too, and accuracy will follow
    kind: Kind = "not learning" if flat or facts.steps < facts.needed_steps else "memorising"
    of_guessing = "" if facts.recipe.teachers else f" (guessing: {math.log(facts.classes):.2f})"
    loss = f"is {train[-1]:.2f}{of_guessing}" if flat else f"fell from {train[0]:.2f} to {train[-1]:.2f}"
    seen = (
        f"after {counted(len(train), 'epoch')} the training loss {loss}, and accuracy on validation images is "
        f"{top1[-1]:.1%} (guessing: {guess:.1%})"
    )
    return Remedy(kind, seen, *_cause_of_guessing(facts, flat=flat))


def _cause_of_guessing(facts: RunFacts, *, flat: bool) -> tuple[str, str]:
    """Why accuracy stays at guessing, and what to try."""
    lr, usual, done = facts.recipe.lr, facts.usual_lr, counted(facts.steps, "step")
    if flat and usual and not usual / RATE_FACTOR <= lr <= usual * RATE_FACTOR:
        return f"The learning rate {lr:g} is too {'low' if lr < usual else 'high'}", f"--lr {usual:g}"
    if facts.bn_momentum < USUAL_MOMENTUM and facts.steps * facts.bn_momentum < MEMORIES:
        cause = f"BatchNorm's statistics, of momentum {facts.bn_momentum:g}, cannot follow in {done}"
        return cause, f"--set bn_momentum={USUAL_MOMENTUM:g}, or {_longer(facts)}"
    if facts.steps < FEW_STEPS:
        return f"For what is evaluated to follow, {done} are too few", _longer(facts)
    top1 = float(facts.curve("val_top1")[-3:].mean())
    unequal = facts.majority * facts.classes >= RARE and abs(top1 - facts.majority) < 2 * facts.error_of(facts.majority)
    data = "`pocketvision data DATA` to look at the labels of both splits"
    if unequal:
        cause = f"The most frequent class, {facts.majority:.0%} of the images, is the answer to everything"
        return cause, f"more images of the others, or fewer of that one; {data}"
    if flat:
        cause = "The labels may not belong to the images, or the images are changed too strongly"
        return cause, f"{data}, then --lr {2 * lr:g}, then --set augment.policy=none"
    cause = "What holds for the training images does not hold for the others"
    return f"{cause}: labels that are wrong or mean other things", data


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
    if done < recipe.epochs:
        if not facts.finished:
            return "going on with it (train --resume RUN)"
        if recipe.time_limit_s is not None:
            return f"--time {2 * recipe.time_limit_s / 60:g}"
        if recipe.patience:
            return f"--patience {2 * recipe.patience}"
    return f"--epochs {max(2 * recipe.epochs, math.ceil(facts.needed_steps * done / facts.steps))}"


def _too_slow(facts: RunFacts) -> Remedy | None:
    seconds, recipe = float(facts.rows[-1]["seconds"]), facts.recipe
    if seconds < SLOW_S:
        return None
    seen = f"{counted(len(facts.rows), 'epoch')} took {seconds / 60:.0f} minutes"
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
    seen = f"accuracy {best:.1%}, where {facts.expected_of} promised at least {facts.expected:.1%}"
    if not facts.frozen:
        cause = "A classical classifier does better than this network did; from scratch it takes images and time"
        return Remedy("low", seen, cause, f"that classifier; more images; {_longer(facts)}")
    return Remedy(
        "low",
        seen,
        "Training spoiled what pretrained weights know, or started without them",
        f"--weights imagenet; --lr and --batch of the recipe; {_longer(facts)}",
    )


def counted(number: int, what: str) -> str:
    """The number and its noun."""
    return f"{number} {what}" + ("" if number == 1 else "s")
