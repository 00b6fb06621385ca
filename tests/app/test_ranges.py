"""S2's ranges: each end is inside, what lies beyond is warned of with the range and what follows."""

from pathlib import Path

import pytest

from pocketvision.app.options import TrainOptions
from pocketvision.app.ranges import RANGES, outside, tier, warnings
from pocketvision.errors import ConfigurationError
from pocketvision.training.recipe import Recipe


def found(images: int, *, pretrained: bool, **changes: object) -> tuple[str, ...]:
    """The warnings of a run with some options, for 10 classes."""
    options = TrainOptions(**changes)  # type: ignore[arg-type]
    recipe = options.recipe_for(images, 10, pretrained=pretrained)
    return warnings(options, recipe, images, 10, pretrained=pretrained)


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_are_inside_and_beyond_them_the_range_is_said(name: str):
    bounds = RANGES[name]
    assert outside(name, bounds.low) == ""
    assert f"below the usual {bounds}" in outside(name, 0.9 * bounds.low)
    if bounds.high is not None:
        assert outside(name, bounds.high) == ""
        assert f"above the usual {bounds}" in outside(name, 1.1 * bounds.high)


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("images", [200, 1000, 5000])
def test_the_recipes_own_values_are_never_warned_of(images: int, pretrained: bool):
    assert found(images, pretrained=pretrained) == ()


def test_each_value_outside_is_named_with_the_recipes_own():
    texts = found(96, pretrained=True, epochs=3, batch=8, imgsz=320, lr=0.1, minutes=0.5)
    assert [text.partition("=")[0] for text in texts] == ["images", "epochs", "batch", "lr", "imgsz", "minutes"]
    assert "the usual 10 to 100 (S2, P3)" in texts[1]
    assert "the recipe's own value is" in texts[1]
    assert "S2 does not say for which optimiser" in texts[3]


def test_a_value_that_was_set_by_its_field_counts_too():
    (text,) = found(1000, pretrained=True, settings=("batch=512",))
    assert text.startswith("batch=512 is above")


def test_a_rate_for_sgd_is_not_judged_by_a_range_for_adamw():
    assert found(1000, pretrained=False, lr=0.02) == ()
    (text,) = found(1000, pretrained=False, lr=1e-3)
    assert "which suits this recipe's sgd" in text
    assert "0.0005 to 0.005" in text


def test_a_paper_is_not_warned_of():
    assert found(1000, pretrained=False, recipe="mobilenet_v2") == ()


def test_a_rate_that_was_scaled_to_the_batch_is_the_recipes_own():
    assert found(1000, pretrained=False, recipe="mobilenet_v3", batch=64) == ()
    (text,) = found(1000, pretrained=False, recipe="mobilenet_v3", batch=64, lr=0.1)
    assert "the recipe's own value is 0.0015625" in text


def test_a_papers_batch_that_leaves_one_step_an_epoch():
    (text,) = found(1438, pretrained=False, recipe="mobilenet_v3")
    assert text.startswith("batch=4096 leaves 1 step an epoch of 1438 images: --batch 359 has 5")
    assert found(4 * 4096, pretrained=False, recipe="mobilenet_v3") == (found(4 * 4096, pretrained=False))


def test_of_a_file_and_an_object_every_value_is_the_users(tmp_path: Path):
    recipe = Recipe(epochs=1, batch=2, lr=5.0)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    for given in (recipe, str(path)):
        texts = found(1000, pretrained=False, recipe=given)
        assert [text.partition("=")[0] for text in texts] == ["epochs", "batch", "lr"]
    own = TrainOptions().recipe_for(1000, 10, pretrained=False)
    assert found(1000, pretrained=False, recipe=own) == ()


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "rmsprop_tf", "adamw"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_a_rate_for_another_optimiser_is_judged_by_that(optimizer: str, pretrained: bool):
    (text,) = found(1000, pretrained=pretrained, settings=(f"optimizer={optimizer}", "lr=5"))
    assert text.startswith("lr=5 is above")


def test_a_small_input_of_small_pictures_is_fine():
    assert found(1000, pretrained=False, imgsz=32) == ()


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
