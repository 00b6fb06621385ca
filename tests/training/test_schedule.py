"""The learning rate against torch's schedulers, and its ends."""

import math
import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from pocketvision.training.recipe import Recipe
from pocketvision.training.schedule import learning_rate, weight_decay


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


def test_milestones_and_polynomial_equal_torch():
    milestones = Recipe(epochs=6, lr=0.3, warmup_epochs=0, schedule="milestones", milestones=(2, 5), decay=0.1)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [8, 20], gamma=0.1), 24)
    assert rates(milestones, 4, 24) == pytest.approx(expected, rel=1e-9)
    polynomial = Recipe(epochs=6, lr=0.3, warmup_epochs=0, schedule="polynomial", power=0.9)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 24, power=0.9), 24)
    assert rates(polynomial, 4, 24) == pytest.approx(expected, rel=1e-9)


def test_noise_is_bounded_constant_within_an_epoch_and_only_in_the_middle():
    plain = Recipe(epochs=100, schedule="constant", warmup_epochs=0)
    noisy = replace(plain, lr_noise=0.67)
    factors = [learning_rate(step, noisy, 2) / learning_rate(step, plain, 2) for step in range(200)]
    assert all(first == second for first, second in zip(factors[::2], factors[1::2], strict=True))
    middle = factors[84:180]
    assert set(factors[:84] + factors[180:]) == {1.0}
    assert 0.33 < min(middle) < 0.7 and 1.3 < max(middle) < 1.67 and len(set(middle)) == 48
    assert factors != [learning_rate(step, replace(noisy, seed=1), 2) / 0.01 for step in range(200)]


def test_weight_decay_follows_the_cosine():
    recipe = Recipe(weight_decay=1e-4, final_weight_decay=1e-5)
    assert weight_decay(0, recipe, 10) == pytest.approx(1e-4)
    assert weight_decay(5, recipe, 10) == pytest.approx(5.5e-5)
    assert weight_decay(10, recipe, 10) == pytest.approx(1e-5)
    assert weight_decay(5, Recipe(weight_decay=1e-4), 10) == 1e-4
