"""Detection sets open in every format and say what they are."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketvision.data.check import class_counts
from pocketvision.data.sources import load_split, open_dataset, save_split

from . import boxed
from .boxed import CAT, DOG, EXPECTED, SIZE, coco, coco_files, picture, said, yolo_yaml

COCO_FILES = "instances_train2017.json, instances_val2017.json, instances_test2017.json"
SPLIT_FILES = "train/_annotations.coco.json, valid/_annotations.coco.json, test/_annotations.coco.json"
LAYOUTS = [
    (boxed.coco_files, f"COCO JSON in annotations ({COCO_FILES})"),
    (boxed.coco_in_splits, f"COCO JSON ({SPLIT_FILES})"),
    (boxed.coco_2017, f"COCO JSON in annotations ({COCO_FILES})"),
    (boxed.voc_lists, "VOC XML in Annotations (split by train.txt, val.txt, test.txt)"),
    (boxed.voc_devkit, "VOC XML in VOCdevkit/VOC2007/Annotations (split by train.txt, val.txt, test.txt)"),
    (boxed.voc_in_splits, "VOC XML in test, train, val"),
    (boxed.yolo_yaml, "YOLO text (data.yaml)"),
    (boxed.yolo_roboflow, "YOLO text (data.yaml)"),
    (boxed.yolo_lists, "YOLO text (data.yaml)"),
    (boxed.yolo_folders, "YOLO text"),
]


@pytest.mark.parametrize(("make", "layout"), LAYOUTS, ids=[make.__name__ for make, _ in LAYOUTS])
def test_every_layout_gives_the_same(tmp_path: Path, make: Callable[[Path], None], layout: str):
    root = tmp_path / "pets"
    make(root)
    dataset = open_dataset(root)
    assert said(dataset) == EXPECTED
    assert (dataset.name, dataset.task, dataset.classes) == ("pets", "detect", ("cat", "dog"))
    counts = "2 classes, 2 train, 1 val, 1 test, 4 boxes, 1 image without boxes, 0 skipped"
    assert dataset.description == f"{layout}: {counts}"
    assert all(item.label == -1 and item.boxes and item.boxes.size == SIZE for item in dataset.items)
    assert load_split(save_split(dataset, tmp_path / "split.json")) == dataset
    unchecked = open_dataset(root, check=False)
    assert (unchecked, unchecked.looks) == (dataset, None)


def test_a_file_is_a_data_set_too(tmp_path: Path):
    coco_files(tmp_path / "coco")
    alone = open_dataset(tmp_path / "coco/annotations/instances_train2017.json")
    assert alone.description.startswith("COCO JSON (instances_train2017.json): 2 classes, 1 train, 1 val (val: 20%")
    yolo_yaml(tmp_path / "yolo")
    assert said(open_dataset(tmp_path / "yolo/data.yaml")) == EXPECTED


def test_bccd_is_the_same_in_both_formats(shared: Path):
    folder = shared / "data/bccd"
    dataset = open_dataset(folder)
    layout = "COCO JSON in coco (train.json, val.json, test.json) (VOC XML not used)"
    assert dataset.description == f"{layout}: 3 classes, 205 train, 87 val, 72 test, 4886 boxes, 0 skipped"
    assert dataset.classes == ("RBC", "WBC", "Platelets")
    assert sum((Counter(counts) for counts in class_counts(dataset).values()), Counter()) == {
        "RBC": 4153, "WBC": 372, "Platelets": 361,
    }  # fmt: skip
    xml = open_dataset(folder / "voc")
    assert xml.description.startswith(
        "VOC XML (split by train.txt, val.txt, test.txt): 3 classes, 205 train, 87 val, 72"
    )
    as_sets = [{s: {n: sorted(b) for n, b in i.items()} for s, i in said(d).items()} for d in (dataset, xml)]
    assert as_sets[0] == as_sets[1]


def test_annotations_count_before_class_folders(tmp_path: Path):
    for name in ("cat/1.png", "dog/2.png", "images/a.png", "images/b.png"):
        picture(tmp_path / name)
    coco(tmp_path / "labels.json", {"a.png": [CAT], "b.png": [DOG]})
    assert "(labels.json) (images in cat, images in dog not used): 2 classes" in open_dataset(tmp_path).description
    (tmp_path / "labels.json").write_text('{"names": ["cat", "dog"]}')
    shutil.rmtree(tmp_path / "images")
    for name in ("cat/3.png", "dog/4.png"):
        picture(tmp_path / name)
    assert open_dataset(tmp_path).task == "classify"


@pytest.mark.parametrize("found", [1, 0], ids=["boxes", "nothing"])
def test_predictions_are_not_the_truth(tmp_path: Path, found: int):
    """What ``predict --out`` writes into the folder of the images, beside their YOLO labels."""
    boxed.yolo_folders(tmp_path)
    data = coco(tmp_path / "predictions.json", {"images/train/a.png": [DOG], "images/train/b.png": []})
    boxed.write(
        tmp_path / "predictions.json",
        data | {"annotations": [entry | {"score": 0.5} for entry in data["annotations"]][:found], "skipped": []},
    )
    dataset = open_dataset(tmp_path)
    assert said(dataset) == EXPECTED
    assert "YOLO text (predictions.json, which holds predictions, not used)" in dataset.description


def test_val_is_drawn_by_hash_with_bursts_together(tmp_path: Path):
    images = {f"{n:02}.png": [("dog", (1, 1, 9, 9))] if n % 10 == 0 else [CAT, CAT] for n in range(60)}
    for name in images:
        picture(tmp_path / "images" / name)
    shutil.copy(tmp_path / "images/05.png", tmp_path / "images/copy.png")
    coco(tmp_path / "all.json", images | {"copy.png": [CAT]})
    dataset = open_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val)) == (49, 12)
    assert class_counts(dataset)["val"]["dog"] == 1  # a fifth of the images of the rare class too
    assert "(val: 20% of the images, drawn with seed 0; 1 bursts or copies kept on one side)" in dataset.description
    sides = said(dataset)
    assert any({"05.png", "copy.png"} <= set(sides[split]) for split in ("train", "val"))
    assert open_dataset(tmp_path) == dataset
    assert said(open_dataset(tmp_path, seed=1)) != sides
