"""Recipe: JSON and YAML and back, and errors that say what would be valid."""

from dataclasses import replace

import pytest

from pocketvision.data.transforms import Augment
from pocketvision.errors import ConfigurationError
from pocketvision.training import recipes
from pocketvision.training.recipe import Recipe, from_dict, from_yaml
from pocketvision.training.recipes import PUBLISHED, finetune, mobileone, scratch, torchvision_v3


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        finetune(2000, 10),
        scratch(1438, 10),
        *(recipe() for recipe in PUBLISHED.values()),
        recipes.finetune_detector(205, 3),
        recipes.scratch_detector(205, 3),
        *(recipe() for recipe in recipes.PUBLISHED_DETECTION.values()),
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
        ("milestones: 3", "milestones=3 must be a list"),
        ("milestones: [3, x]", "milestones[1]='x' must be float"),
        ("milestones: [9, 3]", "must be rising epochs"),
        ("progressive: [[0.1, 1, 1]]", "the stages start at [0.1]; valid: 0, then rising below 1"),
        ("progressive: [[0, 1, 1], [0.5, 2, 1]]", "train_scale=2 is out of range"),
        ("progressive: [[0, 1]]", "must be a list of 3 values"),
        ("teachers: run", "teachers='run' must be a list"),
        ("freeze: 5\nhead_lr: 0", "leave nothing to train"),
        ("freeze: 6", "nearest valid: freeze=5"),
        ("optimizer: sdg", "did you mean 'sgd'?"),
        ("device: gpu", "device='gpu' is unknown"),
        ("- 3", "must be fields and values"),
        ("a: b: c", "the recipe is not YAML: line 1: mapping values are not allowed here"),
    ],
)
def test_wrong_values_name_valid_ones(text: str, message: str):
    with pytest.raises(ConfigurationError) as error:
        from_yaml(text)
    assert message in str(error.value)


def test_published_numbers():
    """FACTS T1 to T4, T13, T14, T21 to T23."""
    for recipe, optimizer, lr, batch, epochs, decay in (
        (recipes.mobilenet_v2(), "rmsprop_tf", 0.045, 96, 300, 4e-5),
        (recipes.mobilenet_v3(), "rmsprop_tf", 0.1, 4096, 600, 1e-5),
        (recipes.torchvision_v3(), "rmsprop", 0.064, 1024, 600, 1e-5),
        (recipes.mobileone(), "sgd", 0.1, 256, 300, 1e-4),
        (recipes.mobileone_ssdlite(), "sgd", 0.05, 192, 200, 1e-4),
        (recipes.torchvision_ssdlite(), "sgd", 0.15, 192, 660, 4e-5),
        (recipes.mobileone_segmentation(), "adamw", 1e-4, 32, 50, 0.01),
        (recipes.torchvision_segmentation(), "sgd", 0.01, 32, 30, 1e-6),
    ):
        assert (recipe.optimizer, recipe.lr, recipe.batch, recipe.epochs) == (optimizer, lr, batch, epochs)
        assert recipe.weight_decay == decay
    assert torchvision_v3().rms_eps ** 0.5 == pytest.approx(0.0316, abs=1e-4)
    assert recipes.mobileone_ssdlite().warmup_epochs * 118_287 / 192 == pytest.approx(4500)


def test_mobileone_grows():
    """S3 Tab. 15: 160 pixels to epoch 38, 192 to 113, then 224; strength .3, .6, 1."""
    for epoch, size, strength in ((0, 160, 0.3), (38, 160, 0.3), (39, 192, 0.6), (113, 192, 0.6), (114, 224, 1.0)):
        recipe = mobileone("large")
        scale, augment = recipe.stage(epoch / recipe.epochs)
        assert (recipe.train_size(224, scale), augment.strength, augment.policy) == (size, strength, "autoaugment")
    assert mobileone("small").augment.policy == "none"


def test_numbers_as_everybody_writes_them():
    for text in ("1e-3", "1.0e-3", "1E-03", ".001", "0.001"):
        assert from_yaml(f"lr: {text}").lr == 0.001
    assert from_yaml("lr: 1e+2\nbatch: 64").lr == 100
