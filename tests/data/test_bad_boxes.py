"""What becomes of boxes and files that are not right: counted, and kept, left out or refused by a clear rule."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from pocketvision.data.boxes import Mark, Marks, checked, fit
from pocketvision.data.check import check_dataset
from pocketvision.data.image import read_image
from pocketvision.data.sources import Dataset, load_split, open_dataset, save_split
from pocketvision.errors import DataError

from .boxed import (
    CAT,
    DOG,
    EXPECTED,
    SIZE,
    coco,
    coco_files,
    picture,
    said,
    voc,
    voc_in_splits,
    voc_lists,
    write,
    yolo_yaml,
)

ONLY = {"a.png": [CAT]}


def refused(data: Path, *parts: str) -> None:
    with pytest.raises(DataError) as error:
        open_dataset(data)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def kinds(dataset: Dataset) -> dict[str, int]:
    return dict(Counter(note.kind for note in dataset.notes))


BAD = [  # corners, what becomes of them, kind of the note
    ((-5, -5, 10, 10), (0, 0, 10, 10), "clipped"),
    ((-0.5, 0, 10, 30.4), (0, 0, 10, 30), None),
    ((40, 5, 50, 10), None, "outside"),
    ((-9, -9, 0, 0), None, "outside"),
    ((5, 5, 5, 10), None, "empty"),
    ((9, 9, 5, 12), None, "inverted"),
    ((math.nan, 1, 2, 3), None, "nan"),
    ((0, 0, math.inf, 3), None, "nan"),
    ((-math.inf, 0, 4, 3), None, "nan"),
]


@pytest.mark.parametrize(("corners", "expected", "kind"), BAD)
def test_boxes_that_are_not_right(corners: tuple, expected: tuple | None, kind: str | None):
    mark, said_kind = checked(Mark(corners, "cat"), SIZE)
    assert (mark.corners if mark else None, said_kind or None) == (expected, kind)


def test_bad_boxes_are_counted_and_listed(tmp_path: Path):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    data = coco(tmp_path / "train.json", {"a.png": [CAT, CAT], "b.png": [DOG]})
    for corners, _, _ in BAD[:6]:
        x1, y1, x2, y2 = corners
        entry = {"image_id": 0, "category_id": 10, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        data["annotations"].append(entry)
    data["annotations"] += [
        {"image_id": 0, "category_id": 10, "bbox": [math.nan, 0, 1, 1]},
        {"image_id": 0, "category_id": 10},
        {"image_id": 0, "category_id": 99, "bbox": [0, 0, 1, 1]},
        {"image_id": 7, "category_id": 10, "bbox": [0, 0, 1, 1]},
        {"image_id": [], "category_id": {}},
        {"image_id": 1, "category_id": 10, "bbox": [1, 2, 3, 4], "iscrowd": 1, "segmentation": {"counts": "x"}},
    ]
    write(tmp_path / "train.json", data)
    coco(tmp_path / "val.json", {"b.png": [DOG]})
    dataset = open_dataset(tmp_path)
    expected = {"clipped": 1, "outside": 2, "empty": 1, "inverted": 1, "nan": 2, "repeated": 1, "unknown": 3}
    assert kinds(dataset) == expected
    assert "1 box clipped at the edge of the image, 2 boxes dropped as outside the image, 1 box dropped as empty" in (
        dataset.description
    )
    assert "6 boxes (1 of them ignored)" in dataset.description
    assert dataset.train[1].boxes.ignored == (False, True)
    findings = [finding for finding in check_dataset(dataset) if finding.kind == "boxes"]
    assert len(findings) == len(expected)
    assert "box 3 (cat; -5, -5, 10, 10) clipped" in " ".join(finding.text for finding in findings)
    assert load_split(save_split(dataset, tmp_path / "split.json")) == dataset


def test_missing_and_duplicate_images(tmp_path: Path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / "images" / name)
    data = coco(tmp_path / "train.json", {"a.png": [CAT], "gone.png": [CAT], "b.png": []})
    data["images"].append({"id": 9, "file_name": "a.png", "width": 40, "height": 30})
    data["annotations"].append({"image_id": 9, "category_id": 11, "bbox": [20, 5, 20, 25]})
    write(tmp_path / "train.json", data)
    for check in (True, False):
        dataset = open_dataset(tmp_path, check=check)
        assert [(Path(s.image).name, s.reason) for s in dataset.skipped] == [("gone.png", "there is no such file")]
        assert kinds(dataset) == {"twice": 1}
        assert {k: v for s in said(dataset).values() for k, v in s.items()} == {"a.png": [CAT, DOG], "b.png": []}
    shutil.rmtree(tmp_path / "images")
    refused(tmp_path, "none of its 3 images can be read", "there is no such file", str(tmp_path))


def test_a_broken_xml_or_text_is_skipped_with_its_line(tmp_path: Path):
    voc_lists(tmp_path / "voc")
    picture(tmp_path / "voc/JPEGImages/e.png")
    (tmp_path / "voc/Annotations/e.xml").write_text("<annotation>\n<object><name>cat</nam>\n</annotation>")
    picture(tmp_path / "voc/JPEGImages/f.png")
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text("a\nb\ne\nf\n")
    dataset = open_dataset(tmp_path / "voc")
    broken, listed = dataset.skipped
    assert said(dataset) == EXPECTED
    assert broken.image.endswith("e.png")
    assert "e.xml: line 2: mismatched tag" in broken.reason
    assert listed.reason == "it is listed in train.txt but has no XML"

    yolo_yaml(tmp_path / "yolo")
    lines = ["0 0.5 0.5 0.1", "0 0.5 0.5 0.1 x", "0.5 0.5 0.5 0.1 0.1", "0 200 100 50 50"]
    for number, line in enumerate(lines):
        picture(tmp_path / f"yolo/images/train/e{number}.png")
        (tmp_path / f"yolo/labels/train/e{number}.txt").write_text(f"\n1 0.5 0.5 0.1 0.1\n{line}\n")
    dataset = open_dataset(tmp_path / "yolo")
    assert said(dataset) == EXPECTED
    reasons = [skipped.reason for skipped in dataset.skipped]
    assert all(f"e{number}.txt: line 3 " in reason for number, reason in enumerate(reasons))
    for reason, part in zip(reasons, ("4 numbers", "no number", "0.5, which", "shares of the sides"), strict=True):
        assert part in reason


def test_polygons_unknown_and_not_a_number_in_text(tmp_path: Path):
    yolo_yaml(tmp_path)
    text = "0 0.1 0.2 0.3 0.2 0.3 0.6\n7 0.5 0.5 0.1 0.1\n1 nan 0.5 0.1 0.1\n"
    (tmp_path / "labels/train/b.txt").write_text(text)
    dataset = open_dataset(tmp_path)
    assert said(dataset)["train"]["b.png"] == [("cat", (4, 6, 12, 18))]
    assert kinds(dataset) == {"unknown": 1, "nan": 1}


def test_difficult_ones_are_ignored(tmp_path: Path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
        voc(tmp_path / f"{name}.xml", [CAT], extra=f"<difficult>{int(name == 'a')}</difficult><pose>Left</pose>")
    dataset = open_dataset(tmp_path)
    assert {Path(item.image).stem: item.boxes.ignored for item in dataset.items if item.boxes} == {
        "a": (True,),
        "b": (False,),
    }
    assert "2 boxes (1 of them ignored)" in dataset.description


def test_images_without_xml_beside_are_skipped(tmp_path: Path):
    voc_in_splits(tmp_path)
    picture(tmp_path / "train/z.png")
    dataset = open_dataset(tmp_path)
    assert said(dataset) == EXPECTED
    assert [(Path(s.image).name, s.reason) for s in dataset.skipped] == [("z.png", "it has no XML")]


def test_an_unknown_class_is_named_with_the_nearest(tmp_path: Path):
    voc_lists(tmp_path)
    voc(tmp_path / "Annotations/c.xml", [("dogs", DOG[1])])
    refused(tmp_path, "c.png has a box of 'dogs'", "did you mean 'dog'?")


def test_supercategories_without_boxes_are_no_classes(tmp_path: Path):
    coco_files(tmp_path)
    path = tmp_path / "annotations/instances_train2017.json"
    data = json.loads(path.read_text())
    data["categories"] = [{"id": 0, "name": "pets", "supercategory": "none"}] + [
        entry | {"supercategory": "pets"} for entry in [*data["categories"], {"id": 30, "name": "emu"}]
    ]
    write(path, data)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog", "emu")
    assert any("'emu' (0)" in finding.text for finding in check_dataset(dataset))


@pytest.mark.parametrize(
    ("orientation", "stored"), [*((n, False) for n in range(1, 9)), *((n, True) for n in (1, 5, 6, 7, 8))]
)
def test_exif_turned_images(tmp_path: Path, orientation: int, stored: bool):
    """A white rectangle is found where the box says, whether it was drawn on the turned image or on the stored one.

    Where turning keeps the sides (2, 3, 4), the annotation's size cannot say which: it counts as shown.
    """
    image, exif = Image.new("RGB", (40, 30)), Image.Exif()
    image.paste("white", (4, 6, 12, 18))
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    pixels = read_image(tmp_path / "a.png")
    rows, columns = (pixels.max(axis=(axis, 2)).nonzero()[0] for axis in (1, 0))
    shown = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    size = (pixels.shape[1], pixels.shape[0])
    for split in ("train", "val"):
        box = (4.0, 6.0, 12.0, 18.0) if stored else shown
        coco(tmp_path / f"{split}.json", {"a.png": [("cat", box)]}, ["cat"], (40, 30) if stored else size)
    for check in (True, False):
        dataset = open_dataset(tmp_path, check=check)
        assert said(dataset)["train"] == {"a.png": [("cat", shown)]}
        assert dataset.train[0].boxes.size == size
        assert kinds(dataset) == ({"turned": 2} if stored and orientation >= 5 else {})


def test_other_sizes_in_the_annotation():
    marks = (Mark((10, 10, 20, 20), "cat"),)
    assert fit(Marks(marks, (80, 60)), SIZE, 1) == ((Mark((5, 5, 10, 10), "cat"),), "scaled")
    assert fit(Marks(marks, (30, 40)), SIZE, 1) == (marks, "")  # exchanged, but it fits as it is
    assert "for an image of 30 x 40 pixels, it has 40 x 30" in fit(
        Marks((Mark((1, 1, 9, 35), "cat"),), (30, 40)), SIZE, 1
    )
    assert "for an image of 50 x 20 pixels" in fit(Marks(marks, (50, 20)), SIZE, 1)
    assert fit(Marks(marks), SIZE, 6) == (marks, "")


def test_small_boxes_and_backgrounds_are_findings(tmp_path: Path):
    for name in "abcd":
        picture(tmp_path / f"{name}.png", (640, 480))
    small = ("cat", (100.0, 100.0, 110.0, 120.0))
    coco(tmp_path / "train.json", {"a.png": [CAT, small], "b.png": [], "c.png": [DOG]}, size=(640, 480))
    coco(tmp_path / "val.json", {"d.png": [CAT, DOG]}, size=(640, 480))
    findings = {finding.kind: finding for finding in check_dataset(open_dataset(tmp_path))}
    assert "2 training boxes (66.7%) have a side below 8 pixels at an input of 320 x 320" in findings["small"].text
    assert "1 of 3 training images have no boxes" in findings["background"].text
    assert findings["counts"].text == "2 classes; images: 3 train, 1 val; boxes: 3 train, 2 val"
    assert "fewer than 20 training boxes: 'cat' (2), 'dog' (1)" in findings["few"].text


@pytest.mark.parametrize("classes", [1, 90])
def test_any_number_of_classes(tmp_path: Path, classes: int):
    names = [f"class {number:02}" for number in range(classes)]
    images = {f"{n}.png": [(names[n % classes], (1, 1, 9, 9))] for n in range(max(10, classes))}
    for name in images:
        picture(tmp_path / name)
    coco(tmp_path / "train.json", images, names)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == tuple(names)
    assert len(dataset.val) == round(0.2 * len(images))
    check_dataset(dataset)


def test_nothing_to_train_on_is_one_clear_error(tmp_path: Path):
    coco(tmp_path / "none/train.json", {})
    refused(tmp_path / "none", "train.json: it lists no images")
    picture(tmp_path / "one/a.png")
    coco(tmp_path / "one/train.json", ONLY)
    refused(tmp_path / "one", "no images for validation")
    picture(tmp_path / "empty/a.png"), picture(tmp_path / "empty/b.png")
    coco(tmp_path / "empty/train.json", {"a.png": [("cat", (3, 3, 3, 9))], "b.png": []})
    refused(tmp_path / "empty", "no boxes to train on (1 box dropped as empty)")
    picture(tmp_path / "crowds/a.png"), picture(tmp_path / "crowds/b.png")
    data = coco(tmp_path / "crowds/train.json", {"a.png": [CAT], "b.png": [DOG]})
    for entry in data["annotations"]:
        entry["iscrowd"] = 1
    write(tmp_path / "crowds/train.json", data)
    refused(tmp_path / "crowds", "no boxes to train on (all are crowds or difficult ones, which are ignored)")
    for name in "ab":
        picture(tmp_path / f"broken/{name}.png")
        (tmp_path / f"broken/{name}.xml").write_text("<annotation>\n<object>")
    refused(tmp_path / "broken", "broken/a.xml: line 2: ", "broken/b.xml: line 2: ")
    coco(tmp_path / "both/train.json", ONLY), coco(tmp_path / "both/train_v2.json", ONLY)
    refused(tmp_path / "both", "both train.json and train_v2.json would be train")
    coco(tmp_path / "only/val.json", ONLY)
    refused(tmp_path / "only", "none for train")


def test_copies_of_one_image_cannot_be_divided(tmp_path: Path):
    names = [f"{number}.png" for number in range(12)]
    for name in names:
        shutil.copy(picture(tmp_path / "one.png"), tmp_path / name)
    (tmp_path / "one.png").unlink()
    coco(tmp_path / "all.json", {name: [CAT] for name in names})
    refused(tmp_path, "no images for validation: 12 of 12 images are copies or bursts, which are kept on one side")


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("train.json", '{"images": [], "annotations": [', "not JSON"),
        ("train.json", '{"images": {}, "annotations": [], "categories": []}', "no list of images"),
        (
            "train.json",
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            "entry 0 of images has no file_name",
        ),
        (
            "train.json",
            json.dumps({"images": [{"id": 7, "file_name": n} for n in "ab"], "annotations": [], "categories": []}),
            "two images have the id 7",
        ),
        ("data.yaml", "names: [a, b\ntrain: x", "not YAML"),
        ("data.yaml", "names: 3\ntrain: x", "no names of classes"),
        ("data.yaml", "names: [a]\nnc: 2\ntrain: x", "nc is 2, but there are 1 names"),
        ("data.yaml", "names: [a]\ntrain: x", "train: there is no x; correct the path"),
        ("data.yaml", "names: [a, a]\ntrain: x", "two classes have the same name"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, text: str, part: str):
    (tmp_path / name).write_text(text)
    refused(tmp_path, part, str(tmp_path / name))
    refused(tmp_path / name, part)
