"""Recipe: JSON and YAML and back, and errors that say what would be valid."""

from dataclasses import replace

import pytest

from pocketvision.data.transforms import Augment
from pocketvision.errors import ConfigurationError
from pocketvision.training.recipe import Recipe, from_dict, from_yaml
from pocketvision.training.recipes import finetune, scratch


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        finetune(2000, 10),
        scratch(1438, 10),
        Recipe(ema=0.99, dropout=0, amp=True, time_limit_s=60, augment=Augment(scale=(0.5, 1), policy="randaugment")),
    ],
)
def test_there_and_back(recipe: Recipe):
    assert from_dict(recipe.to_dict()) == recipe
    assert from_yaml(recipe.to_yaml()) == recipe


def test_small_data_gets_more_epochs():
    sizes = (2, 500, 5_000, 1_000_000)
    for recipe in (finetune, scratch):
        epochs = [recipe(images, 10).epochs for images in sizes]
        assert epochs == sorted(epochs, reverse=True) and epochs[0] > epochs[-1] > 0


def test_absent_fields_have_defaults():
    assert from_yaml("epochs: 3\n") == replace(Recipe(), epochs=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "no field 'epoch'; did you mean 'epochs'?"),
        ("augment: {flips: 0.5}", "augment has no field 'flips'; did you mean 'flip'?"),
        ("augment: {flip: many}", "wrong type"),
        ("augment: 3", "augment must be fields and values"),
        ("epochs: 0", "epochs=0 is out of range: at least 1, at most 100000; nearest valid: epochs=1"),
        ("batch: 1", "nearest valid: batch=2"),
        ("lr: 0", "lr=0 is out of range: above 0"),
        ("lr: .nan", "lr=nan must be float"),
        ("lr: fast", "lr='fast' must be float; nearest valid: lr=0.01"),
        ("epochs: 2.5", "epochs=2.5 must be int"),
        ("epochs: true", "epochs=True must be int"),
        ("nesterov: 1", "nesterov=1 must be bool"),
        ("momentum: 1", "nearest valid: momentum=0.9999"),
        ("momentum: 0", "nearest valid: nesterov=False"),
        ("ema: 1", "nearest valid: ema=0.999999"),
        ("optimizer: sdg", "did you mean 'sgd'?"),
        ("device: gpu", "device='gpu' is unknown"),
        ("- 3", "must be fields and values"),
        ("a: b: c", "not YAML"),
    ],
)
def test_wrong_values_name_valid_ones(text: str, message: str):
    with pytest.raises(ConfigurationError) as error:
        from_yaml(text)
    assert message in str(error.value)
