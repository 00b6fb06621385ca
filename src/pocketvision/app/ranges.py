"""The ranges that S2 gives, and a warning for what lies outside; nothing is refused (FACTS P1 to P20)."""

from dataclasses import dataclass, replace
from math import log

from ..errors import ConfigurationError
from ..training.diagnose import counted
from ..training.recipe import Recipe
from ..training.recipes import PUBLISHED, SMALL_DATA
from .choose import SMALL_IMAGE
from .options import RECIPES, TrainOptions

LR_SPREAD = 4.0  # of an optimiser that S2's learning rates are not for: so far from the recipe's own, either way
LEAST_STEPS = 4  # an epoch: fewer, and even S2's longest schedules have only some hundred
OUR_BATCH = Recipe().batch  # of finetune and scratch


@dataclass(frozen=True, slots=True)
class Range:
    """From ``low`` to ``high`` (None: no limit); what happens ``below`` and ``above``; ``source``: in FACTS."""

    low: float
    high: float | None
    below: str
    above: str
    source: str

    def __str__(self) -> str:
        return f"at least {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"


RANGES = {
    "images": Range(
        200, 5000, "expect little, and a wide band", "a larger network would use them better", "S2, P1 P18"
    ),
    "epochs": Range(10, 100, "a small network may not have converged", "time that seldom pays", "S2, P3"),
    "batch": Range(16, 128, "noisy steps and BatchNorm statistics", "few steps an epoch", "S2, P2"),
    "lr": Range(5e-4, 5e-3, "it may hardly learn", "it may diverge or forget the weights it starts from", "S2, P4"),
    "imgsz": Range(96, 224, "details are lost", "time that a network made for 224 px seldom repays", "S4, A2"),
    "minutes": Range(1, None, "the schedule may end before the first epoch does", "", "ours"),
}


@dataclass(frozen=True, slots=True)
class Tier:
    """What S2 recommends for a number of training images (FACTS P6, P19); None: it says nothing."""

    name: str
    images: tuple[int, int | None]
    epochs: tuple[int, int]
    batch: int | None
    lr: float | None
    augmentation: str

    def __str__(self) -> str:
        low, high = self.images
        return f"{self.name}, {f'{low} to {high}' if high else f'above {low}'} images"


TIERS = (
    Tier("tiny", (200, 500), (60, 100), 16, 5e-4, "maximum"),
    Tier("small", (500, 2000), (30, 50), 32, 1e-3, "heavy"),
    Tier("medium", (2000, 5000), (20, 30), 64, 1e-3, "standard"),
    Tier("large", (5000, None), (10, 20), None, 2e-3, "reduced"),
)


def tier(images: int) -> Tier:
    """S2's advice for ``images`` training images; fewer than 200 count as tiny."""
    return next(row for row in reversed(TIERS) if images >= row.images[0] or row is TIERS[0])


def outside(name: str, value: float, own: float | None = None) -> str:
    """What to warn of ``value``; "" where it is in its range or the recipe's ``own``.

    Raises ConfigurationError for a name without a range.
    """
    if name not in RANGES:
        raise ConfigurationError(f"there is no range for {name!r}; valid: {', '.join(RANGES)}")
    bounds = RANGES[name]
    if value == own or (bounds.low <= value and (bounds.high is None or value <= bounds.high)):
        return ""
    side, consequence = ("below", bounds.below) if value < bounds.low else ("above", bounds.above)
    usual = f"; the recipe's own value is {own:g}" if own is not None else ""
    return f"{name}={value:g} is {side} the usual {bounds} ({bounds.source}): {consequence}{usual}"


def warnings(options: TrainOptions, recipe: Recipe, images: int, classes: int, *, pretrained: bool) -> tuple[str, ...]:
    """What lies outside: the number of training images, and what the user changed of the recipe to ``recipe``.

    A recipe that has a name is what it is; of a file's or an object's every value is the user's.
    """
    named = isinstance(options.recipe, str) and options.recipe in RECIPES
    plain = replace(options, recipe=options.recipe if named else "auto", epochs=None, lr=None, settings=())
    own = replace(plain, batch=None).recipe_for(images, classes, pretrained=pretrained)
    scaled = replace(plain, batch=recipe.batch).recipe_for(images, classes, pretrained=pretrained)
    found = [outside("images", images)]
    found.append(outside("epochs", recipe.epochs, own.epochs))
    found.append(outside("batch", recipe.batch, own.batch) or _few_steps(recipe, images))
    found.append(_learning_rate(recipe, scaled))
    if options.imgsz is not None and options.imgsz > SMALL_IMAGE:  # of small pictures it has to be small
        found.append(outside("imgsz", options.imgsz))
    if options.minutes is not None:
        found.append(outside("minutes", options.minutes))
    return tuple(text for text in found if text)


def _few_steps(recipe: Recipe, images: int) -> str:
    """A batch that leaves hardly a step an epoch, as those of ImageNet's recipes do; not our own for small data."""
    batch, most = recipe.batch, max(OUR_BATCH, images // LEAST_STEPS)
    if batch <= most:
        return ""
    steps = counted(-(-images // batch), "step")
    return f"batch={batch} leaves {steps} an epoch of {images} images: --batch {most} has {-(-images // most)} (ours)"


def _learning_rate(recipe: Recipe, own: Recipe) -> str:
    """S2 does not name its optimiser, and a rate means something else to each: its range is an adaptive one's."""
    lr, alike = recipe.lr, recipe.optimizer == own.optimizer
    if recipe.optimizer == "adamw":
        text = outside("lr", lr, own.lr if alike else None)
        return (
            f"{text}. S2 does not say for which optimiser; its range fits AdamW, which this recipe has" if text else ""
        )
    usual, whose = (own.lr, "the recipe's own value") if alike else _of_optimizer(recipe)
    low, high = usual / LR_SPREAD**2, usual * LR_SPREAD
    if low <= lr <= high:
        return ""
    side, consequence = ("below", RANGES["lr"].below) if lr < low else ("above", RANGES["lr"].above)
    return (
        f"lr={lr:g} is {side} {low:g} to {high:g}, which suits this recipe's {recipe.optimizer}: {consequence}; "
        f"{whose} is {usual:g} (S2's {RANGES['lr']}, P4, is for adaptive optimisers such as AdamW)"
    )


def _of_optimizer(recipe: Recipe) -> tuple[float, str]:
    """The rate of the recipe of ours or a paper's with the same optimiser and the nearest batch, for this batch."""
    known = {name: make(1000, 10) for name, make in SMALL_DATA.items()} | {n: make() for n, make in PUBLISHED.items()}
    rivals = [(name, own) for name, own in known.items() if own.optimizer == recipe.optimizer]
    name, own = min(rivals, key=lambda rival: abs(log(rival[1].batch / recipe.batch)))
    return own.lr * recipe.batch / own.batch, f"{name}'s for this batch"
