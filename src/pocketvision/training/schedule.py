"""Learning rate and weight decay as pure functions of the step."""

import math

import numpy as np

from .recipe import Recipe

NOISY = (0.42, 0.9)  # the part of a run whose learning rate has noise, as timm's recipe for MobileNetV3 has it


def learning_rate(step: int, recipe: Recipe, steps_per_epoch: int, steps: int | None = None) -> float:
    """The learning rate of step ``step`` (from 0) of a run of ``steps`` (default: the recipe's epochs).

    Warm-up: linear, from lr / (warm-up steps + 1) in the first step to just below lr in its last
    (arXiv:1706.02677 §2.2). A warm-up as long as the run, or longer, is cut to half of the run.
    After it, counted from its end: "cosine" (arXiv:1608.03983 eq. 5, one period), reaching final_lr x lr one step after
    the last; "exponential": lr x decay ^ (epochs / decay_epochs), the exponent rounded down with ``staircase``,
    as TensorFlow's ExponentialDecay does; "polynomial": lr x (1 - progress) ^ power; "constant". "milestones"
    multiplies by decay at epochs counted from the start. Noise, where there is some, is drawn from (seed, epoch).
    """
    steps = recipe.epochs * steps_per_epoch if steps is None else steps
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), steps // 2)
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    progress = _progress(step - warmup, steps - warmup)
    match recipe.schedule:
        case "cosine":
            factor = _cosine(progress, recipe.final_lr)
        case "exponential":
            periods = (step - warmup) / (recipe.decay_epochs * steps_per_epoch)
            factor = recipe.decay ** (math.floor(periods) if recipe.staircase else periods)
        case "milestones":
            factor = recipe.decay ** sum(step >= epoch * steps_per_epoch for epoch in recipe.milestones)
        case "polynomial":
            factor = (1 - progress) ** recipe.power
        case "constant":
            factor = 1.0
    noisy = recipe.lr_noise > 0 and NOISY[0] <= _progress(step, steps) < NOISY[1]
    return recipe.lr * factor * (1 + (_noise(recipe, step // steps_per_epoch) if noisy else 0))


def weight_decay(step: int, recipe: Recipe, steps: int) -> float:
    """The weight decay of step ``step`` of ``steps``: annealed from the first to the last on a cosine (S3 §4)."""
    if recipe.final_weight_decay is None:
        return recipe.weight_decay
    share = _cosine(_progress(step, steps), 0.0)
    return recipe.final_weight_decay + (recipe.weight_decay - recipe.final_weight_decay) * share


def _progress(step: int, steps: int) -> float:
    return min(1.0, step / max(1, steps))


def _cosine(progress: float, final: float) -> float:
    """From 1 to ``final`` along half a cosine."""
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def _noise(recipe: Recipe, epoch: int) -> float:
    """A normal number within ``recipe.lr_noise`` of 0, the same for all steps of an epoch."""
    draw = np.random.default_rng([recipe.seed, epoch])
    while abs(noise := draw.normal()) >= recipe.lr_noise:
        pass
    return float(noise)
