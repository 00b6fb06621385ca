"""The commands on masks: train, resume, evaluate, build, and what they refuse."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pocketvision.app.cli import app
from pocketvision.app.network import natural_size
from pocketvision.data.sources import load_split, open_dataset
from pocketvision.errors import PocketvisionError
from pocketvision.exporting.artifact import Artifact
from pocketvision.spec.heads import DeepLabV3Head, LRASPPHead
from pocketvision.training.checkpoint import SPLIT, load_model

from .test_commands import documented

ROWS = Path(__file__).with_name("tiny32.json")  # a backbone of five rows with output stride 32
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
WIDTH, HEIGHT, LEAST, MOST = 120, 80, 24, 60


def answer(*words: object) -> dict:
    """The one JSON object that a command prints; in this process, which has everything imported."""
    done = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def failure(*words: object) -> str:
    """What a command's error says."""
    with pytest.raises(PocketvisionError) as error:
        CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    return str(error.value)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and masks of red and blue squares on noise; what surrounds each square by two pixels is void."""
    root, rng = tmp_path_factory.mktemp("masks") / "squares", np.random.default_rng(0)
    for split, count in (("train", 64), ("val", 16)):
        for number in range(count):
            pixels = rng.integers(90, 160, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            for label, name in enumerate(COLOURS, 1):
                if label - 1 == number % 2 or number % 3 == 0:
                    side = int(rng.integers(LEAST, MOST))
                    x, y = int(rng.integers(2, WIDTH - side - 2)), int(rng.integers(2, HEIGHT - side - 2))
                    pixels[y : y + side, x : x + side] = COLOURS[name]
                    mask[y - 2 : y + side + 2, x - 2 : x + side + 2] = 255
                    mask[y : y + side, x : x + side] = label
            for folder, array in (("images", pixels), ("masks", mask)):
                path = root / split / folder / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    (root / "classes.json").write_text(json.dumps(["noise", *COLOURS]))
    return root


OPTIONS = ("--model", ROWS, "--weights", "none", "--imgsz", 64)
SHORT = (*OPTIONS, "--epochs", 1, "--batch", 16)


@pytest.fixture(scope="module")
def run(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    project = tmp_path_factory.mktemp("runs")
    return answer("train", squares, *OPTIONS, "--epochs", 12, "--batch", 8, "--lr", 0.01, "--project", project)


def test_a_segmenter_learns(run: dict):
    folder = Path(run["run"])
    assert (run["metric"], folder.parent.name) == ("miou", "segment")
    assert run["value"] > 0.6  # background everywhere: 0.28
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert float(rows[-1]["val_pixel_accuracy"]) > 0.85
    assert load_split(folder / SPLIT).task == "segment"
    spec = load_model(folder).spec
    assert isinstance(spec.head, LRASPPHead) and spec.labels == ("noise", "red", "blue")


@pytest.mark.parametrize(
    ("size", "natural"), [((160, 160), 160), ((480, 360), 416), ((4000, 3000), 512), ((120, 80), 128)], ids=str
)
def test_the_natural_size_is_a_square_as_large_as_the_image(squares: Path, size: tuple[int, int], natural: int):
    data = open_dataset(squares)
    items = tuple(replace(item, mask=replace(item.mask, size=size)) for item in data.train if item.mask)
    assert natural_size(replace(data, train=items)) == natural


def test_a_finished_run_is_resumed_as_what_it_is(run: dict):
    assert answer("train", "--resume", run["run"])["value"] == run["value"]


def test_the_file_finds_what_the_run_found(run: dict, squares: Path):
    result = answer("evaluate", run["run"], squares)
    assert (result["metric"], result["n"], result["runtime"]) == ("miou", 16, "onnxruntime")
    assert result["value"] == pytest.approx(run["value"], abs=0.002)
    assert [row["class"] for row in result["classes"]] == ["noise", *COLOURS]
    assert set(result) - documented("evaluate") == {"miou", "pixel_accuracy", "worst"}


def test_a_run_at_another_size_and_at_several_scales(run: dict, squares: Path):
    larger = answer("evaluate", run["run"], squares, "--imgsz", 96)
    file = answer("export", run["run"], "--imgsz", 96)["artifact"]
    assert Path(file).name == "best-96.onnx"
    assert answer("evaluate", file, squares)["confusion"] == larger["confusion"]
    several = answer("evaluate", run["run"], squares, "--multi-scale")
    assert 0.3 < larger["value"] != run["value"]
    assert several["runtime"].startswith("torch") and several["value"] > 0.5
    assert several["confusion"] != answer("evaluate", run["run"], squares)["confusion"]
    assert "whose input size is fixed" in failure("evaluate", file, squares, "--imgsz", 64)
    assert "--multi-scale is for runs" in failure("evaluate", file, squares, "--multi-scale")


def test_classes_in_another_order_and_fewer_of_them(run: dict, squares: Path, tmp_path: Path):
    for kind in ("images", "masks"):
        (tmp_path / "data" / "val" / kind).mkdir(parents=True)
        (tmp_path / "data" / "train" / kind).mkdir(parents=True)
        for split, numbers in (("train", range(2)), ("val", range(4))):
            for number in numbers:
                picture = Image.open(squares / "val" / kind / f"{2 * number}.png")
                if kind == "masks":
                    values = np.array(picture)
                    picture = Image.fromarray(np.choose(values.clip(0, 3), [1, 0, 255, 255]).astype(np.uint8))
                picture.save(tmp_path / "data" / split / kind / f"{number}.png")
    (tmp_path / "data" / "classes.json").write_text(json.dumps(["red", "noise"]))
    result = answer("evaluate", run["run"], tmp_path / "data", "--split", "all")
    rows = {row["class"]: row for row in result["classes"]}
    assert rows["red"]["recall"] > 0.5 < rows["noise"]["recall"] and rows["blue"]["share"] == 0
    (tmp_path / "data" / "classes.json").write_text(json.dumps(["red", "noises"]))
    said = failure("evaluate", run["run"], tmp_path / "data", "--split", "all")
    assert "class 'noises' is none of the 3 classes" in said and "'noise'" in said


def test_build_of_masks(squares: Path, tmp_path: Path):
    options = ("--epochs", 3, "--batch", 8, "--max-ms", 50, "--project", tmp_path)
    built = answer("build", squares, *OPTIONS, *options, "--output-stride", 8)
    assert set(built) == documented("build")
    assert (built["task"], built["metric"], built["met"]) == ("segmentation", "miou", True)
    assert "mIoU" in Path(built["report"]).read_text()
    assert max(load_model(built["run"]).spec.backbone.strides()) == 8


def test_a_student_of_another_head(run: dict, squares: Path, tmp_path: Path):
    options = (*SHORT, "--head", "raspp", "--teacher", run["run"], "--project", tmp_path)
    student = answer("train", squares, *options)
    head = load_model(Path(student["run"])).spec.head
    assert isinstance(head, DeepLabV3Head) and not head.rates


def test_of_boxes_and_masks_the_head_decides(run: dict, squares: Path, tmp_path: Path):
    mixed = tmp_path / "mixed"
    shutil.copytree(squares, mixed)
    for split, count in (("train", 64), ("val", 16)):
        images = [
            {"id": n, "file_name": f"{split}/images/{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(count)
        ]
        boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [2, 2, 30, 30]} for n in range(count)]
        data = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "square"}]}
        (mixed / f"{split}.json").write_text(json.dumps(data))
    assert "mixed is to detect" in failure("train", mixed, *OPTIONS, "--output-stride", 8)
    assert "mixed is to segment" in failure("train", mixed, *OPTIONS, "--head", "fcn", "--set", "mixup=0.2")
    result = answer("evaluate", run["run"], mixed)
    assert (result["metric"], result["n"]) == ("miou", 16)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--head", "classifier"), "squares has masks; nearest valid: head=lraspp"),
        (("--head", "ssdlite"), "squares has masks; nearest valid: head=lraspp"),
        (("--set", "mixup=0.2"), "mixup is for classification, squares is to segment; nearest valid: mixup=0"),
        (("--set", "augment.mosaic=0.2"), "augment.mosaic is for detection, squares is to segment"),
        (("--recipe", "mobileone"), "is for classification, the data has masks; valid: auto, finetune"),
        (("--output-stride", 12), "output_stride=12; valid: 8, 16, 32"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_is_not_for_masks_is_refused(squares: Path, tmp_path: Path, words: tuple[str, ...], said: str):
    assert said in failure("train", squares, *OPTIONS, *words, "--project", tmp_path)
    assert not list(tmp_path.iterdir())  # no empty run folder


def test_heads_and_strides_for_masks_need_masks(digits: Path, tmp_path: Path):
    options = (*OPTIONS, "--project", tmp_path)
    assert "no masks in it" in failure("train", digits, *options, "--head", "fcn")
    assert "output_stride=8 is for segmentation, digits is to classify" in failure(
        "train", digits, *options, "--output-stride", 8
    )
    assert "output_stride=8 is for segmentation, head=ssdlite" in failure(
        "build", digits, *options, "--output-stride", 8, "--head", "ssdlite"
    )


def test_a_segmenter_is_not_evaluated_on_classes(run: dict, digits: Path):
    said = failure("evaluate", run["run"], digits)
    assert "no masks in it" in said and "is made to segment" in said


def test_advice_is_for_classifiers_and_says_so(run: dict, squares: Path):
    assert "squares is to segment; advice is for classification so far: use train or build" in failure(
        "advise", squares
    )
    assert "is a run to segment" in failure("advise", run["run"])


@pytest.mark.parametrize("outputs", ["classes", "logits"])
def test_each_form_is_what_was_trained(run: dict, tmp_path: Path, outputs: str):
    """On the run's own validation images, most of whose pixels are no ties."""
    exported = answer("export", run["run"], "--outputs", outputs, "--out", tmp_path / f"{outputs}.onnx")
    parity = exported["parity"]
    assert (parity["n"], parity["agreement"]) == (16, 1) and parity["ties"] < 0.02
    assert parity["max_error"] is None if outputs == "classes" else parity["max_error"] < 1e-5
    assert Artifact.load(exported["artifact"]).form == outputs


def test_outputs_of_another_task_are_refused(run: dict, tmp_path: Path):
    said = failure("export", run["run"], "--outputs", "dense", "--out", tmp_path / "x.onnx")
    assert "LRASPPHead cannot be exported as 'dense'; valid: classes, logits" in said
    assert not list(tmp_path.iterdir())
