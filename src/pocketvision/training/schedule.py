"""The learning rate as a pure function of the step."""

import math

from .recipe import Recipe


def learning_rate(step: int, recipe: Recipe, steps_per_epoch: int, steps: int | None = None) -> float:
    """The learning rate of step ``step`` (from 0) of a run of ``steps`` (default: the recipe's epochs).

    Warm-up: linear, from lr / (warm-up steps + 1) in the first step to just below lr in its last
    (arXiv:1706.02677 §2.2). A warm-up as long as the run, or longer, is cut to half of the run.
    After it, counted from its end: "cosine" (arXiv:1608.03983 eq. 5, one period), reaching final_lr x lr one step after
    the last; "exponential": lr x decay ^ (epochs / decay_epochs), the exponent rounded down with
    ``staircase``, as TensorFlow's ExponentialDecay does; "constant".
    """
    steps = recipe.epochs * steps_per_epoch if steps is None else steps
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), steps // 2)
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    match recipe.schedule:
        case "cosine":
            progress = min(1.0, (step - warmup) / max(1, steps - warmup))
            return recipe.lr * (recipe.final_lr + (1 - recipe.final_lr) * (1 + math.cos(math.pi * progress)) / 2)
        case "exponential":
            periods = (step - warmup) / (recipe.decay_epochs * steps_per_epoch)
            return recipe.lr * recipe.decay ** (math.floor(periods) if recipe.staircase else periods)
        case "constant":
            return recipe.lr
