"""The commands on boxes: train, resume, evaluate, build, and what they refuse."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pocketvision.app.network import with_head
from pocketvision.data.sources import load_split
from pocketvision.nn.model import build, stand_in
from pocketvision.tasks.detection import found_in
from pocketvision.training.checkpoint import SPLIT, load_model
from pocketvision.training.recipe import from_yaml
from pocketvision.zoo import model_spec

from .conftest import ROWS as CLASSIFIER
from .test_commands import answer, documented, failure

ROWS = Path(__file__).with_name("tiny32.json")  # a backbone of five rows with output stride 32
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
SIDE, LEAST, MOST = 96, 24, 56


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO files of pictures with one or two squares, red and blue ones, on noise."""
    root, rng = tmp_path_factory.mktemp("boxes") / "squares", np.random.default_rng(0)
    for split, count in (("train", 96), ("val", 24)):
        images, annotations = list[dict](), list[dict]()
        for number in range(count):
            pixels = rng.integers(90, 160, (SIDE, SIDE, 3)).astype(np.uint8)
            for label, name in enumerate(COLOURS):
                if label == number % 2 or number % 3 == 0:
                    side = int(rng.integers(LEAST, MOST))
                    x, y = (int(start) for start in rng.integers(0, SIDE - side, 2))
                    pixels[y : y + side, x : x + side] = COLOURS[name]
                    box = {"id": len(annotations), "image_id": number, "category_id": label, "bbox": [x, y, side, side]}
                    annotations.append(box)
            images.append({"id": number, "file_name": f"{split}{number}.png", "width": SIDE, "height": SIDE})
            path = root / split / images[-1]["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        categories = [{"id": label, "name": name} for label, name in enumerate(COLOURS)]
        data = {"images": images, "annotations": annotations, "categories": categories}
        (root / split / "_annotations.coco.json").write_text(json.dumps(data))
    return root


OPTIONS = ("--model", ROWS, "--weights", "none", "--imgsz", SIDE)


@pytest.fixture(scope="module")
def run(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    project = tmp_path_factory.mktemp("runs")
    return answer("train", squares, *OPTIONS, "--epochs", 25, "--batch", 8, "--lr", 0.003, "--project", project)


def test_a_detector_learns(run: dict):
    folder = Path(run["run"])
    assert (run["metric"], folder.parent.name) == ("map", "detect")
    assert run["value"] > 0.3
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert len(rows) == 25
    assert float(rows[-1]["val_ap50"]) > float(rows[-1]["val_map"]) > float(rows[0]["val_map"])
    assert load_split(folder / SPLIT).task == "detect"
    assert from_yaml((folder / "args.yaml").read_text()).epochs == 25


def test_a_finished_run_is_resumed_as_what_it_is(run: dict):
    assert answer("train", "--resume", run["run"])["value"] == run["value"]


def test_the_file_finds_what_the_run_found(run: dict, squares: Path):
    result = answer("evaluate", run["run"], squares)
    assert result["metric"] == "map"
    assert result["value"] == pytest.approx(run["value"], abs=0.005)
    assert {row["class"] for row in result["classes"]} == set(COLOURS)


def test_faster_rcnn_goes_the_whole_way(squares: Path, tmp_path: Path):
    options = (*OPTIONS, "--head", "faster_rcnn", "--epochs", 1, "--batch", 8, "--time", 0.1, "--project", tmp_path)
    run = answer("train", squares, *options)["run"]
    result = answer("evaluate", run, squares)
    assert (result["runtime"], result["metric"], result["n"]) == ("onnxruntime", "map", 24)


def test_an_untrained_detector_takes_as_long_as_a_trained_one():
    """Were its scores taken as they are, all anchors would come to the selection."""
    spec = with_head(model_spec(str(ROWS)), "ssdlite", 20, SIDE)
    pixels = torch.rand(1, 3, SIDE, SIDE)
    assert len(found_in(build(spec).eval()(pixels))[0].scores) > 100
    assert len(found_in(stand_in(spec)(pixels))[0].scores) == 0


def test_build_of_boxes(squares: Path, tmp_path: Path):
    options = ("--epochs", 8, "--batch", 8, "--max-ms", 50, "--project", tmp_path)
    built = answer("build", squares, *OPTIONS, *options)
    assert set(built) == documented("build")
    assert (built["task"], built["metric"], built["met"]) == ("detection", "map", True)
    assert "mAP" in Path(built["report"]).read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--head", "classifier"), "squares has boxes; nearest valid: head=ssdlite"),
        (("--set", "mixup=0.2"), "mixup is for classification"),
        (("--set", "head_first=true"), "head_first is for classification"),
        (
            ("--set", "label_smoothing=0.1", "--set", "augment.jitter=0.4"),
            "nearest valid: label_smoothing=0.0, augment",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_not_for_boxes_is_refused(squares: Path, tmp_path: Path, words: tuple[str, ...], said: str):
    assert said in failure("train", squares, *OPTIONS, *words, "--project", tmp_path)
    assert not list(tmp_path.iterdir())  # no empty run folder


def test_a_detectors_head_needs_boxes(digits: Path, tmp_path: Path):
    options = ("--model", CLASSIFIER, "--weights", "none", "--head", "ssdlite", "--project", tmp_path)
    message = failure("train", digits, *options)
    assert "digits has one class an image, no boxes; nearest valid: head=classifier" in message


def test_a_student_has_its_teachers_anchors(run: dict, squares: Path, tmp_path: Path):
    """Its own, fitted to half of the boxes, would be others."""
    data = tmp_path / "squares"
    shutil.copytree(squares, data)
    path = data / "train" / "_annotations.coco.json"
    truth = json.loads(path.read_text())
    path.write_text(json.dumps(truth | {"annotations": truth["annotations"][::2]}))
    options = (*OPTIONS, "--epochs", 1, "--batch", 8, "--lr", 0.001, "--teacher", run["run"], "--project", tmp_path)
    student = answer("train", data, *options)
    specs = [load_model(Path(folder)).spec.head for folder in (student["run"], run["run"])]
    assert specs[0].anchors == specs[1].anchors
    said = failure("train", data, *options, "--imgsz", 128)
    assert "the teacher tiny32 has an input of 96 px, the student 128 px; train with --imgsz 96" in said
    assert len(list((tmp_path / "detect").iterdir())) == 1  # no other run folder


def test_validation_images_need_boxes(squares: Path, tmp_path: Path):
    data = tmp_path / "squares"
    shutil.copytree(squares, data)
    path = data / "val" / "_annotations.coco.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    said = failure("train", data, *OPTIONS, "--project", tmp_path / "runs")
    assert "squares: its 24 validation images have no boxes that count" in said
    assert not (tmp_path / "runs").exists()


def test_a_detector_is_not_evaluated_on_classes(run: dict, digits: Path):
    said = failure("evaluate", run["run"], digits)
    assert "digits: no boxes in it" in said and "is made to detect)" in said


def test_a_backbone_without_stride_32_is_refused(squares: Path, tmp_path: Path):
    options = ("--model", CLASSIFIER, "--weights", "none", "--imgsz", SIDE, "--project", tmp_path)
    assert "output strides 16 and 32" in failure("train", squares, *options)
