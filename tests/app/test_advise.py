"""`pocketvision advise` on images and on runs: its values are those that a training has."""

import csv
import shutil
from pathlib import Path

import pytest

from pocketvision import TrainOptions, advise
from pocketvision.app.advise import Advice, RunAdvice, _command, _settings, _start, timed
from pocketvision.app.build import Budget
from pocketvision.app.choose import Option
from pocketvision.app.explain import explained
from pocketvision.app.remedies import diagnose_run
from pocketvision.data.sources import Dataset
from pocketvision.data.transforms import Augment
from pocketvision.spec.transform import with_classes, with_size
from pocketvision.training.recipe import Recipe
from pocketvision.training.recipes import scratch
from pocketvision.zoo import model_spec
from pocketvision.zoo.catalogue import CATALOGUE, same_weights

from .conftest import ROWS, call
from .test_commands import answer, documented, failure

OPTIONS = ("--model", ROWS, "--weights", "none", "--imgsz", 32)


def test_the_values_are_those_of_a_run(digits: Path, run: Path):
    import yaml

    result = answer("advise", digits, *OPTIONS, "--epochs", 12, "--batch", 16)
    assert set(result) | set(answer("advise", run)) == documented("advise")
    values = {line["what"]: line["value"] for line in result["advice"]}
    recipe = yaml.safe_load((run / "args.yaml").read_text())
    assert values["epochs"] == str(recipe["epochs"])
    assert values["batch"] == str(recipe["batch"])
    assert values["learning rate"].startswith(f"{recipe['lr']:g}, {recipe['optimizer']}")
    assert values["input"] == "32 px"
    assert values["model"].endswith("tiny.json") or values["model"] == "tiny"
    assert [text.partition("=")[0] for text in result["warnings"]] == ["images"]
    assert all(line["why"] and line["source"] for line in result["advice"])


def test_a_newcomer_can_read_it(digits: Path):
    done = call("advise", digits, *OPTIONS)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    assert "96 training and 24 validation images, 3 classes" in lines[0]
    for word in ("alternative", "expected top-1", "next: pocketvision build"):
        assert word in done.stdout


def test_of_a_run_its_promise_is_told(run: Path):
    advice = advise(run)
    assert isinstance(advice, RunAdvice)
    assert {remedy.kind for remedy in advice.remedies} <= {"still improving"}  # 72 steps, on 96 images
    assert advice.expected is not None
    assert "a healthy run" in str(RunAdvice(run, (), None))


@pytest.fixture
def bad(run: Path, tmp_path: Path) -> Path:
    """A copy of the run whose curves say that nothing was learned."""
    bad = tmp_path / "bad"
    shutil.copytree(run, bad)
    with open(bad / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {"train_loss": "1.0986", "val_top1": "0.3333", "val_loss": "1.0986"}
    with open(bad / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return bad


def test_of_a_bad_run_the_remedy_comes_from_its_curve(bad: Path):
    nothing, low = answer("advise", bad)["remedies"]
    assert (nothing["kind"], low["kind"]) == ("not learning", "low")
    assert "support-vector machine on pixels promised" in low["seen"]
    assert "weights" not in low["cause"] + low["fix"]  # it saw 32 pixels, for which there are none


@pytest.mark.parametrize(
    ("changed", "to", "words"),
    [
        ("bn_momentum: 0.1", "bn_momentum: 0.01", "momentum 0.01, cannot follow in 72 steps"),
        ("epochs: 12", "epochs: 40", "--resume"),
    ],
)
def test_a_run_is_read_with_its_recipe(bad: Path, changed: str, to: str, words: str):
    text = (bad / "args.yaml").read_text()
    assert f"\n{changed}\n" in f"\n{text}"
    (bad / "args.yaml").write_text(text.replace(changed, to))
    assert words in " ".join(map(str, diagnose_run(bad)))


def test_a_run_without_a_finished_epoch(run: Path, tmp_path: Path):
    begun = tmp_path / "begun"
    shutil.copytree(run, begun)
    (begun / "results.csv").unlink()
    assert f"no epoch is finished, so nothing can be said of it; go on with `pocketvision train --resume {begun}`" in (
        failure("advise", begun)
    )
    shutil.rmtree(begun / "state")
    assert "start a new run" in failure("advise", begun)


def test_a_run_is_compared_with_weights_only_where_they_are_its_own(monkeypatch: pytest.MonkeyPatch):
    entry = next(entry for entry in CATALOGUE if entry.spec().backbone.name == "mobilenet_v3_small")
    monkeypatch.setattr("pocketvision.app.advise.available", lambda spec: entry)
    labels = ("a", "b", "c")
    for width, size, start in ((1.0, 224, "imagenet"), (0.5, 224, "none"), (1.0, 64, "none")):
        own = with_classes(with_size(model_spec("mobilenet_v3_small", width=width), size, ratio=1.0), labels)
        spec, weights = _start(own, labels)
        assert weights == start
        assert spec.preprocessing.size == size
        assert same_weights(spec, own)
        assert spec.head.classes == 3


def test_the_command_is_the_build_that_was_explained():
    option = Option("mobilenet_v3_small", with_size(model_spec("mobilenet_v3_small"), 224, ratio=1.0))
    options = TrainOptions(recipe="mobilenet_v2", settings=("ema=0.99",), teachers=("t",), lr=5e-5, seed=3, workers=2)
    command = _command(
        "photos", option, options, Budget(5, runtime="torch", threads=4), _settings(options, Recipe(), Recipe())
    )
    for words in ("--max-ms 5", "--runtime torch", "--threads 4", "--seed 3", "--workers 2", "--recipe mobilenet_v2"):
        assert f" {words}" in command
    assert command.endswith(" --set ema=0.99 --set lr=5.0e-05 --teacher t")


def test_a_recipe_object_is_said_by_its_fields():
    recipe = Recipe(epochs=7, lr=5e-5, milestones=(1.0, 2.0), ema=None, augment=Augment(flip=0.0, erase=0.25))
    settings = _settings(TrainOptions(recipe=recipe), recipe, scratch(1000, 10))
    assert "augment.erase=0.25" in settings
    assert TrainOptions(recipe="scratch", settings=tuple(settings)).recipe_for(1000, 10, pretrained=False) == recipe


@pytest.mark.parametrize(("images", "words"), [(150, "tiny"), (3000, "EfficientNet-B0"), (20_000, "a larger network")])
def test_s2_advice_goes_by_the_number_of_images(images: int, words: str):
    option = Option("mobilenet_v3_small", with_size(model_spec("mobilenet_v3_small"), 224, ratio=1.0), 1.0, 6.0, 0.8)
    for pretrained in (True, False):
        recipe = TrainOptions().recipe_for(images, 10, pretrained=pretrained)
        weights = "imagenet" if pretrained else "none"
        lines = explained(option, 3, weights, recipe, images, 100.0, None)
        assert words in " ".join(line.why for line in lines)
        assert ("alternative" in [line.what for line in lines]) == (images < 500)


def test_the_time_is_of_the_order_that_training_takes(dataset: Dataset, run: Path):
    option = Option("tiny", model_spec(str(ROWS), classes=3, imgsz=32))
    recipe = TrainOptions(epochs=12, batch=16).recipe_for(96, 3, pretrained=False)
    with open(run / "results.csv", newline="") as file:
        took = float(list(csv.DictReader(file))[-1]["seconds"])
    assert took / 10 < timed(option, recipe, dataset) < took * 10


def test_what_is_neither_data_nor_a_run(tmp_path: Path):
    assert "absent" in failure("advise", tmp_path / "absent")


def test_it_is_python_too(digits: Path):
    options = TrainOptions(weights="none", imgsz=32)
    advice = advise(digits, model=str(ROWS), options=options)
    assert isinstance(advice, Advice)
    assert advice.command.startswith("pocketvision build ")
