"""TrainOptions: which recipe comes out of names, files and settings."""

from dataclasses import replace
from pathlib import Path

import pytest

from pocketvision import TrainOptions
from pocketvision.errors import ConfigurationError
from pocketvision.training.recipe import Recipe
from pocketvision.training.recipes import (
    PUBLISHED,
    PUBLISHED_DETECTION,
    PUBLISHED_SEGMENTATION,
    finetune,
    finetune_detector,
    finetune_segmentation,
    mobilenet_v3,
    scratch,
    scratch_detector,
    scratch_segmentation,
    torchvision_ssdlite,
)


def recipe(**options: object) -> Recipe:
    return TrainOptions(**options).recipe_for(1000, 10, pretrained=True)  # type: ignore[arg-type]


def test_names():
    assert recipe() == recipe(recipe="finetune") == finetune(1000, 10)
    assert recipe(recipe="scratch") == scratch(1000, 10)
    assert TrainOptions().recipe_for(1000, 10, pretrained=False) == scratch(1000, 10)
    for name, function in PUBLISHED.items():
        assert recipe(recipe=name) == function()


def test_detection_has_recipes_of_its_own():
    def detection(name: str, pretrained: bool = True) -> Recipe:
        return TrainOptions(recipe=name).recipe_for(300, 3, pretrained=pretrained, task="detect")

    assert detection("auto") == detection("finetune") == finetune_detector(300, 3)
    assert detection("auto", pretrained=False) == detection("scratch") == scratch_detector(300, 3)
    for name, function in PUBLISHED_DETECTION.items():
        assert detection(name) == function()
        TrainOptions(recipe=name).check()
        with pytest.raises(ConfigurationError, match="is for detection, the data has one class"):
            recipe(recipe=name)
    with pytest.raises(ConfigurationError, match="is for classification, the data has boxes; valid: auto, finetune"):
        detection("mobileone")


def test_segmentation_has_recipes_of_its_own():
    def segmentation(name: str, pretrained: bool = True) -> Recipe:
        return TrainOptions(recipe=name).recipe_for(300, 3, pretrained=pretrained, task="segment")

    assert segmentation("auto") == segmentation("finetune") == finetune_segmentation(300, 3)
    assert segmentation("auto", pretrained=False) == segmentation("scratch") == scratch_segmentation(300, 3)
    for name, function in PUBLISHED_SEGMENTATION.items():
        assert segmentation(name) == function()
        TrainOptions(recipe=name).check()
        with pytest.raises(ConfigurationError, match="is for segmentation, the data has one class"):
            recipe(recipe=name)
    with pytest.raises(ConfigurationError, match="is for detection, the data has masks; valid: auto, finetune"):
        segmentation("mobileone_ssdlite")


def test_a_published_learning_rate_follows_the_batch_unless_it_is_given():
    assert recipe(recipe="mobilenet_v3", batch=64).lr == pytest.approx(mobilenet_v3().lr / 64)
    assert recipe(recipe="mobilenet_v3", batch=64, lr=0.5).lr == 0.5
    ssdlite = TrainOptions(recipe="torchvision_ssdlite", batch=24).recipe_for(300, 3, pretrained=True, task="detect")
    assert ssdlite.lr == pytest.approx(torchvision_ssdlite().lr / 8)
    assert recipe(batch=64).lr == finetune(1000, 10).lr
    assert recipe(recipe="mobilenet_v3", settings=("batch=64",)).lr == pytest.approx(mobilenet_v3().lr / 64)
    assert recipe(recipe="mobilenet_v3", settings=("batch=64", "lr=5e-1")).lr == 0.5


def test_seeds(tmp_path: Path):
    (path := tmp_path / "own.yaml").write_text("seed: 5")
    for options, seed in (
        ({}, 0),
        ({"seed": 3}, 3),
        ({"settings": ("seed=7",)}, 7),
        ({"recipe": str(path)}, 5),
        ({"recipe": Recipe(seed=9)}, 9),
        ({"recipe": Recipe(seed=9), "seed": 0}, 0),
    ):
        assert recipe(**options).seed == TrainOptions(**options).run_seed == seed


def test_a_file_and_an_object(tmp_path: Path):
    wanted = replace(scratch(10, 2), lr=0.123, milestones=(2.0, 3.0), schedule="milestones")
    (path := tmp_path / "own.yaml").write_text(wanted.to_yaml())
    assert recipe(recipe=str(path)) == recipe(recipe=wanted) == wanted
    assert recipe(recipe=str(path), seed=3, epochs=4) == replace(wanted, seed=3, epochs=4)


def test_settings(tmp_path: Path):
    settings = ("ema=null", "drop_path=0.2", "augment.policy=randaugment", "progressive=[[0, 0.7, 0.5], [0.5, 1, 1]]")
    changed = recipe(settings=settings)
    assert (changed.ema, changed.drop_path, changed.augment.policy) == (None, 0.2, "randaugment")
    assert changed.progressive == ((0, 0.7, 0.5), (0.5, 1, 1))
    assert recipe(settings=("epochs=3",), epochs=5).epochs == 5
    assert recipe(teachers=(tmp_path / "run",)).teachers == (str(tmp_path / "run"),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "mobilenetv3"}, "did you mean 'mobilenet_v3'"),
        ({"settings": ("emma=0.9",)}, "did you mean 'ema'?"),
        ({"settings": ("augment.polcy=none",)}, "did you mean 'policy'?"),
        ({"settings": ("augment.policy=cutmix",)}, "cutmix"),
        ({"settings": ("ema",)}, "must be FIELD=VALUE"),
        ({"settings": ("ema.decay=0.9",)}, "must be FIELD=VALUE"),
        ({"settings": ("ema=high",)}, "ema='high' must be float"),
        ({"settings": ("ema=[",)}, "ema='[' must be float"),
    ],
)
def test_wrong_words(options: dict, message: str):
    with pytest.raises(ConfigurationError) as error:
        recipe(**options)
    assert message in str(error.value)


def test_a_file_that_is_no_recipe(tmp_path: Path):
    (path := tmp_path / "own.yaml").write_text("epochen: 3")
    with pytest.raises(ConfigurationError, match=r"own\.yaml: a recipe has no field 'epochen'; did you mean 'epochs'"):
        recipe(recipe=str(path))
