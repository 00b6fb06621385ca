"""The learning rate against torch's schedulers, and its ends."""

import math
import warnings
from itertools import pairwise

import pytest
import torch

from pocketvision.training.recipe import Recipe
from pocketvision.training.schedule import learning_rate


def torch_rates(scheduler_of, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler, rates = scheduler_of(optimizer), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants optimizer.step() before
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    return rates


def rates(recipe: Recipe, steps_per_epoch: int, steps: int) -> list[float]:
    return [learning_rate(step, recipe, steps_per_epoch, steps) for step in range(steps)]


def test_cosine_equals_torch():
    recipe = Recipe(epochs=5, lr=0.3, warmup_epochs=0, final_lr=0.1)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=35, eta_min=0.03), 35)
    assert rates(recipe, 7, 35) == pytest.approx(expected, rel=1e-9)


def test_exponential_staircase_equals_torch():
    recipe = Recipe(epochs=6, lr=0.3, warmup_epochs=0, schedule="exponential", decay=0.5, decay_epochs=2)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=8, gamma=0.5), 24)
    assert rates(recipe, 4, 24) == pytest.approx(expected, rel=1e-9)


def test_exponential_smooth():
    recipe = Recipe(lr=0.3, warmup_epochs=0, schedule="exponential", decay=0.25, decay_epochs=2, staircase=False)
    assert learning_rate(4, recipe, 4) == pytest.approx(0.15)
    assert learning_rate(8, recipe, 4) == pytest.approx(0.075)


@pytest.mark.parametrize("schedule", ["cosine", "exponential", "constant"])
def test_warm_up_is_a_straight_line_that_meets_the_schedule(schedule):
    recipe = Recipe(epochs=10, lr=0.3, warmup_epochs=1.5, schedule=schedule)
    values = rates(recipe, 4, 40)
    assert values[:7] == pytest.approx([0.3 * (i + 1) / 7 for i in range(7)])
    assert all(a >= b for a, b in pairwise(values[6:]))


def test_cosine_ends_near_zero_wherever_the_plan_ends():
    recipe = Recipe(epochs=10, lr=0.3, warmup_epochs=3)
    for steps in (1, 2, 3, 10, 37):
        values = rates(recipe, 7, steps)
        assert all(0 < value <= 0.3 for value in values)
        assert steps < 10 or values[-1] < 0.3 * (math.pi / steps) ** 2 * 2.5


def test_long_warm_up_is_cut_to_half_of_the_run():
    recipe = Recipe(epochs=2, lr=0.3, warmup_epochs=50)
    values = rates(recipe, 10, 20)
    assert values.index(max(values)) == 10
