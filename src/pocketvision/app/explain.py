"""Why a run is what it is: each value of the chosen network and its recipe, with S2's beside it."""

from dataclasses import dataclass

from ..spec.cost import cost
from ..spec.transform import as_folded
from ..training.recipe import Recipe
from .choose import SMALL_IMAGE, Option
from .expect import Expectation
from .ranges import tier

TINY, LARGE = 500, 5000
S2_MODELS = {"medium": "S2 would consider EfficientNet-B0 here", "large": "S2 would take a larger network here"}


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the advice: ``what``, the recommended ``value``, ``why``, and the ``source`` of that."""

    what: str
    value: str
    why: str
    source: str


def explained(
    chosen: Option,
    compared: int,
    weights: str,
    recipe: Recipe,
    images: int,
    seconds: float,
    expected: Expectation | None,
) -> tuple[Line, ...]:
    """A line for each decision. ``compared``: networks that were probed; ``seconds``: that the training will take."""
    tuned = weights != "none"
    lines = [
        _model(chosen, compared, images),
        _input(chosen, recipe, tuned),
        _weights(weights),
        _epochs(recipe, images, tuned),
        _batch(recipe, images),
        _lr(recipe, images),
        _augmentation(recipe, images),
        _quantisation(chosen),
        _time(recipe, seconds),
    ]
    if images < TINY:
        lines.append(_classical(images, expected))
    return tuple(lines)


def _model(chosen: Option, compared: int, images: int) -> Line:
    why = chosen.note + (f" of {compared} that were probed" if compared > 1 else "")
    if chosen.latency_ms is not None:
        why += f"; {chosen.latency_ms:.2f} ms for one image and {chosen.size_mb or 0:.1f} MB here"
    size, source = tier(images).name, "measured here"
    if size in S2_MODELS:
        why += f"; {S2_MODELS[size]}, and a looser budget allows one"
        source += "; S2, P6 P10 P18"
    return Line("model", chosen.name, why, source)


def _input(chosen: Option, recipe: Recipe, tuned: bool) -> Line:
    size = chosen.spec.preprocessing.size
    smaller = recipe.train_size(size)
    value = f"{size} px" + (f", trained at {smaller}" if smaller != size else "")
    if not tuned:
        return Line("input", value, "fits the images, whose short side is small; S2's 224 is for photos", "S2, P13")
    why = "the largest that keeps to the budget and the images" if size != 224 else "the usual size of these networks"
    if smaller != size:
        why += "; random crops show things larger, so training on smaller images matches evaluation, and saves time"
    return Line("input", value, why, "S2, P13; docs/LOG.md, fine-tuning on clothing10")


def _weights(weights: str) -> Line:
    if weights == "none":
        why = f"pictures of {SMALL_IMAGE} px or less, or --weights none: ImageNet's photos have nothing to teach there"
        return Line("weights", "none", why, "docs/LOG.md, choosing")
    return Line(
        "weights", weights, "features learned from a million photos, which yours only have to adjust", "S0, T26"
    )


def _epochs(recipe: Recipe, images: int, tuned: bool) -> Line:
    advice = tier(images)
    low, high = advice.epochs
    why = f"S2 has {low} to {high} for {advice}"
    if low <= recipe.epochs <= high:
        return Line("epochs", str(recipe.epochs), why, "S2, P3 P6")
    why += f"; ours goes by images seen, {recipe.epochs * images:,} here: enough "
    why += "from pretrained weights" if tuned else "for small pictures"
    why += " with a rate that falls to zero and averaged weights" if recipe.ema else ""
    return Line("epochs", str(recipe.epochs), why, "S2, P3 P6; docs/LOG.md")


def _batch(recipe: Recipe, images: int) -> Line:
    advice = tier(images)
    if advice.batch in (None, recipe.batch):
        return Line("batch", str(recipe.batch), "S2's default; 64 to 128 pay on a GPU of 8 GB or more", "S2, P2")
    why = f"S2 has {advice.batch} here, 16 to 128 in all; our rate was found with {recipe.batch}"
    return Line("batch", str(recipe.batch), why, "S2, P2 P6; docs/LOG.md")


def _lr(recipe: Recipe, images: int) -> Line:
    value = f"{recipe.lr:g}, {recipe.optimizer}, {recipe.schedule}"
    value += f", head {recipe.head_lr:g} times" if recipe.head_lr != 1 else ""
    advice = tier(images)
    why = f"S2 has {advice.lr:g} here, 0.0005 to 0.005 in all, and does not say for which optimiser"
    if recipe.optimizer == "sgd":
        why += ": that is an adaptive one's scale, and SGD with momentum needs tens of times as much"
    elif recipe.optimizer == "adamw" and advice.lr and recipe.lr < advice.lr:
        why += "; the pretrained layers want a low rate, and the new head has the higher one"
    return Line("learning rate", value, why, "S2, P4 P6; docs/LOG.md")


def _augmentation(recipe: Recipe, images: int) -> Line:
    augment, advice = recipe.augment, tier(images)
    parts = [f"crops from {augment.scale[0]:.0%} of the area"]
    parts += ["mirroring"] if augment.flip else []
    parts += [augment.policy] if augment.policy != "none" else []
    parts += [f"erasing {augment.erase:.0%}"] if augment.erase else []
    parts += [f"mixup {recipe.mixup:g}"] if recipe.mixup else []
    why = f"S2 has {advice.augmentation} augmentation here"
    if augment.policy == "none":
        why += "; small pictures bear less" + ("" if augment.flip else ", and mirrored characters are other ones")
    else:
        why += "; without such a policy the validation loss was lowest in epoch 4 of 13"
    return Line("augmentation", ", ".join(parts), why, "S2, P6 P19; docs/LOG.md")


def _quantisation(chosen: Option) -> Line:
    params = cost(as_folded(chosen.spec)).params
    why = (
        f"S2 has it off in training and on for deployment; the file has {4 * params / 1e6:.1f} MB in float32, which is "
        f"what this version exports, and would have {params / 1e6:.1f} MB in int8"
    )
    return Line("quantisation", "not in training", why, "S2, P5")


def _time(recipe: Recipe, seconds: float) -> Line:
    value = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
    limited = "; --time ends it there" if recipe.time_limit_s else "; --time MINUTES shortens the schedule"
    return Line(
        "time", f"about {value}", f"from some timed steps on this machine as it is now{limited}", "measured here"
    )


def _classical(images: int, expected: Expectation | None) -> Line:
    why = f"with {images} images S2 says to consider classical machine learning still"
    if expected:
        band = expected.bands[0]
        why += f": {expected.of} is one, takes seconds, and reaches {band}"
    return Line("alternative", "a classical classifier", why, "S2, P6; measured here")
