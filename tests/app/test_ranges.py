"""S2's ranges: each end is inside, what lies beyond is warned of with the range and what follows."""

import pytest

from pocketvision.app.options import TrainOptions
from pocketvision.app.ranges import RANGES, outside, tier, warnings
from pocketvision.errors import ConfigurationError
from pocketvision.training.recipe import Recipe

ADAMW = Recipe(epochs=12, batch=32, optimizer="adamw", lr=5e-4)
SGD = Recipe(epochs=28, batch=32, optimizer="sgd", lr=0.05)


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_are_inside_and_beyond_them_the_range_is_said(name: str):
    bounds = RANGES[name]
    assert outside(name, bounds.low) == ""
    assert f"below the usual {bounds}" in outside(name, 0.9 * bounds.low)
    if bounds.high is not None:
        assert outside(name, bounds.high) == ""
        assert f"above the usual {bounds}" in outside(name, 1.1 * bounds.high)


def test_the_recipes_own_values_are_never_warned_of():
    assert warnings(TrainOptions(epochs=5), Recipe(epochs=5), 1000) == ()
    assert warnings(TrainOptions(), SGD, 1000) == ()


def test_each_value_outside_is_named_with_the_recipes_own():
    found = warnings(TrainOptions(epochs=3, batch=8, imgsz=320, lr=0.1), ADAMW, 96)
    assert [text.partition("=")[0] for text in found] == ["images", "epochs", "batch", "imgsz", "lr"]
    assert "the usual 10 to 100 (S2, P3)" in found[1]
    assert "own value is 12" in found[1]
    assert "S2 does not say for which optimiser" in found[4]


def test_a_rate_for_sgd_is_not_judged_by_a_range_for_adamw():
    assert warnings(TrainOptions(lr=0.02), SGD, 1000) == ()
    (text,) = warnings(TrainOptions(lr=1e-3), SGD, 1000)
    assert "which suits this recipe's sgd" in text
    assert "0.0005 to 0.005" in text


def test_a_small_input_of_small_pictures_is_fine():
    assert warnings(TrainOptions(imgsz=32), SGD, 1000) == ()


def test_tiers_by_the_number_of_images():
    assert [tier(images).name for images in (50, 200, 499, 500, 2000, 5000)] == [
        "tiny",
        "tiny",
        "tiny",
        "small",
        "medium",
        "large",
    ]


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigurationError, match="valid: images"):
        outside("epoch", 3)
