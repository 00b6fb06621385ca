"""Segmentation sets are found in every layout, and their masks are read as what they mean."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketvision.data.masks import VOID, Mask, read_mask
from pocketvision.data.scenes import scene
from pocketvision.data.sources import Dataset, load_split, open_dataset, save_split
from pocketvision.errors import DataError

from .boxed import coco, picture, yolo_folders
from .masked import NAMES, make, said, save, values, voc

LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "in splits": make,
    "splits within": lambda root: make(root, "images/{split}", "labels/{split}"),
    "annotations": lambda root: make(root, "imgs/{split}", "annotations/{split}", end="_mask"),
    "beside": lambda root: make(root, "{split}", "{split}annot"),
    "carvana": lambda root: make(root, "{split}", "{split}_masks", end="_mask"),
    "CamVid": lambda root: make(root, "{split}", "{split}_labels", end="_L"),
    "VOC": voc,
    "palette": lambda root: make(root, mode="P"),
}


def same(one: dict[str, dict[str, np.ndarray]]) -> None:
    """The masks are those that ``make`` wrote."""
    assert {split: sorted(masks) for split, masks in one.items()} == {s: sorted(names) for s, names in NAMES.items()}
    for masks in one.values():
        for name, mask in masks.items():
            assert np.array_equal(mask, values(name))
            assert mask.dtype == np.uint8


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path):
    dataset = open_dataset(LAYOUTS[layout](tmp_path))
    assert dataset.task == "segment"
    assert dataset.classes == ("0", "1", "2")
    same(said(dataset))
    assert all(item.label == -1 and item.mask and item.mask.size == (40, 30) for item in dataset.items)
    assert "3 classes, 3 train, 2 val, 1 test, classes named by their values, 0 skipped" in dataset.description
    assert not dataset.notes
    for item in dataset.items:
        assert item.mask
        counts = np.bincount(read_mask(item.mask).ravel(), minlength=256)
        assert dataset.areas[item.image].tolist() == [*counts[:3], counts[255]]


def test_flat_folders_draw_their_validation(tmp_path: Path):
    for number in range(20):
        picture(tmp_path / f"images/{number:02}.png")
        save(tmp_path / f"masks/{number:02}.png", values(str(number)))
    dataset = open_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val)) == (16, 4)
    assert (
        "masks in masks: 3 classes, 16 train, 4 val (val: 20% of the images, drawn with seed 0)" in dataset.description
    )
    assert open_dataset(tmp_path, check=False) == dataset
    assert open_dataset(tmp_path, seed=1).val != dataset.val


def test_a_split_without_masks_is_not_used(tmp_path: Path):
    make(tmp_path)
    for mask in (tmp_path / "test/masks").iterdir():
        mask.unlink()
    (tmp_path / "test/masks").rmdir()
    dataset = open_dataset(tmp_path)
    assert (
        "masks in train/masks, val/masks (test without masks not used): 3 classes, 3 train, 2 val,"
        in dataset.description
    )


def test_names_within_folders_and_cityscapes(tmp_path: Path):
    for split in ("train", "val"):
        for city in ("ulm", "jena"):
            picture(tmp_path / f"leftImg8bit/{split}/{city}/1_leftImg8bit.png")
            for kind in ("labelIds", "labelTrainIds", "instanceIds"):
                mask = values(city if kind == "labelTrainIds" else kind)
                save(tmp_path / f"gtFine/{split}/{city}/1_gtFine_{kind}.png", mask)
            save(tmp_path / f"gtFine/{split}/{city}/1_gtFine_color.png", values(city), "RGB")
    dataset = open_dataset(tmp_path)
    for item in dataset.train:
        assert item.mask
        assert np.array_equal(read_mask(item.mask), values(Path(item.image).parent.name))
    assert (len(dataset.train), len(dataset.val), dataset.notes, dataset.skipped) == (2, 2, (), ())


def test_a_name_with_an_end_of_masks(tmp_path: Path):
    """x_l.png is the mask of x_l.png, and only where there is none that of x.png."""
    for name in ("x", "x_l", "y", "z"):
        picture(tmp_path / f"images/{name}.png")
        save(tmp_path / f"masks/{name.replace('y', 'y_l')}.png", values(name))
    dataset = open_dataset(tmp_path, check=False)
    for name, mask in {**said(dataset)["train"], **said(dataset)["val"]}.items():
        assert np.array_equal(mask, values(name))
    assert len(dataset.items) == 4


CLASS_FILES = {
    "classes.txt": "sky\n road \ncar\n",
    "labels.txt": "sky\nroad\ncar\nvoid\n",
    "class_names.txt": "__ignore__\nsky\nroad\ncar\n",
    "classes.json": json.dumps({"classes": ["sky", "road", "car"], "ignore_index": 255}),
}


@pytest.mark.parametrize("name", CLASS_FILES)
def test_class_files(name: str, tmp_path: Path):
    make(tmp_path)
    (tmp_path / name).write_text(CLASS_FILES[name])
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("sky", "road", "car")
    assert f"classes by {name}" in dataset.description
    same(said(dataset))
    assert not dataset.notes


@pytest.mark.parametrize(
    "text", [{"0": "sky", "2": "car"}, {"sky": 0, "car": 2}, {"classes": {"sky": 0, "car": 2, "void": 1}}]
)
def test_class_files_that_name_values(text: object, tmp_path: Path):
    make(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps(text))
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("sky", "car")
    table = np.full(256, VOID)
    table[[0, 2]] = 0, 1
    for name, mask in said(dataset)["train"].items():
        assert np.array_equal(mask, table[values(name)])
    unlisted = [note for note in dataset.notes if note.kind == "unlisted"]
    assert len(unlisted) == (0 if "void" in str(text) else 6)


COLOURS = {
    "class_dict.csv": "name,r,g,b\nsky,0,0,0\nroad,128,0,0\ncar, 0, 128, 0\nVoid,255,255,255\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nsky:0,0,0::\nroad:128,0,0::\ncar:0,128,0::\nignore:255,255,255\n",
}


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
@pytest.mark.parametrize("name", COLOURS)
def test_colours(name: str, mode: str, tmp_path: Path):
    """Masks in colours, with a palette of these, or with the numbers of the file's lines."""
    make(tmp_path, mode=mode)
    (tmp_path / "train" / name).write_text(COLOURS[name])
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("sky", "road", "car")
    same(said(dataset))
    assert not dataset.notes


def test_black_and_white_by_a_class_file(tmp_path: Path):
    make(tmp_path)
    for path in tmp_path.rglob("masks/*.png"):
        save(path, (values(path.stem) == 1).astype(np.uint8) * 255)
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nground,0,0,0\nroad,255,255,255\n")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("ground", "road")
    for name, mask in said(dataset)["train"].items():
        assert np.array_equal(mask, values(name) == 1)


@pytest.mark.parametrize(("text", "classes"), [("", ("background", "foreground")), ("land\nsea\n", ("land", "sea"))])
def test_binary_masks(text: str, classes: tuple[str, str], tmp_path: Path):
    make(tmp_path)
    for path in tmp_path.rglob("masks/*.png"):
        save(path, (values(path.stem) == 1).astype(np.uint8) * 255)
    if text:
        (tmp_path / "classes.txt").write_text(text)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == classes
    assert "classes: 0, and 255 as the foreground" in dataset.description
    for name, mask in said(dataset)["train"].items():
        assert np.array_equal(mask, values(name) == 1)


def test_one_bit(tmp_path: Path):
    make(tmp_path)
    for path in tmp_path.rglob("masks/*.png"):
        Image.fromarray(values(path.stem) == 1).save(path)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("0", "1")
    assert np.array_equal(said(dataset)["train"]["a"], values("a") == 1)


def test_sixteen_bits_and_grey_saved_as_colours(tmp_path: Path):
    make(tmp_path)
    for path in tmp_path.rglob("masks/*.png"):
        mask = values(path.stem)
        if path.stem in "ad":
            Image.fromarray(np.where(mask == 2, 1000, mask.astype(np.uint16))).save(path)
        else:
            Image.fromarray(np.repeat(mask[..., None] % 255, 3, 2)).save(path)
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("0", "1", "2", "1000")
    assert np.array_equal(said(dataset)["train"]["a"], np.where(values("a") == 2, 3, values("a")))
    assert np.array_equal(said(dataset)["train"]["b"], values("b") % 255)


@pytest.mark.parametrize("given", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_names_its_classes(given: str, tmp_path: Path):
    voc(tmp_path / "VOCdevkit/VOC2012")
    dataset = open_dataset(tmp_path / given)
    assert len(dataset.classes) == 21
    assert dataset.classes[:2] == ("background", "aeroplane")
    assert dataset.classes[-1] == "tvmonitor"
    same(said(dataset))


def test_boxes_masks_and_classes_beside_each_other(tmp_path: Path):
    make(tmp_path)
    coco(tmp_path / "train.json", {"train/images/a.png": [("cat", (1, 1, 9, 9))]})
    coco(tmp_path / "val.json", {"val/images/d.png": [("cat", (1, 1, 9, 9))]})
    found = open_dataset(tmp_path)
    assert found.task == "detect"
    assert "masks in train/masks, val/masks, test/masks too" in found.description
    assert open_dataset(tmp_path, task="detect").train == found.train
    masks = open_dataset(tmp_path, task="segment")
    assert masks.task == "segment"
    same(said(masks))
    with pytest.raises(DataError, match="has images and masks, no class folders; use it to segment"):
        open_dataset(tmp_path, task="classify")
    for name in ("train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "val/dog/4.png"):
        picture(tmp_path / name)
    assert open_dataset(tmp_path, task="classify").classes == ("cat", "dog", "images", "masks")


def test_what_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(DataError, match="no boxes in it; expected are COCO's JSON"):
        open_dataset(make(tmp_path / "masks"), task="detect")
    yolo_folders(tmp_path / "yolo")
    with pytest.raises(DataError, match="no masks in it; expected are images and masks of the same names"):
        open_dataset(tmp_path / "yolo", task="segment")
    with pytest.raises(DataError, match="sample:digits: has nothing for the task 'segment'; valid: 'classify'"):
        open_dataset("sample:digits", task="segment")


def test_split_is_written_and_read(tmp_path: Path):
    dataset = open_dataset(make(tmp_path))
    picture(tmp_path / "train/images/alone.png")
    assert load_split(save_split(dataset, tmp_path / "split.json")) == dataset
    dataset = open_dataset(tmp_path)
    assert len(dataset.skipped) == 1
    assert load_split(save_split(dataset, tmp_path / "split.json")) == dataset
    text = (tmp_path / "split.json").read_text()
    for wrong in (
        text.replace('"segment"', '"detect"'),
        text.replace("[0, 1, 2]", "[0, 1]"),
        text.replace('"segment"', '"x"'),
    ):
        (tmp_path / "split.json").write_text(wrong)
        with pytest.raises(DataError, match="not a split that pocketvision wrote"):
            load_split(tmp_path / "split.json")


def test_sample():
    dataset: Dataset = open_dataset("sample:digit-scenes", task="segment")
    assert dataset.classes == ("background", *"0123456789")
    assert (len(dataset.train), len(dataset.val), dataset.task) == (600, 150, "segment")
    for item in (dataset.train[3], dataset.val[7]):
        assert item.mask
        image, boxes, mask = scene(int(item.image.rpartition("/")[2]))
        found = read_mask(item.mask)
        assert np.array_equal(found > 0, mask > 0)
        for number, label in enumerate(boxes.labels):
            assert (found[mask == number + 1] == label + 1).all()
        assert found.shape == image.shape[:2]
    with pytest.raises(DataError, match="no such sample; valid: sample:digit-scenes/0"):
        read_mask(Mask("sample:digit-scenes/750", (0, 1), (160, 160)))


def test_camvid(shared: Path):
    dataset = open_dataset(shared / "data/camvid11", check=False)
    assert (len(dataset.train), len(dataset.val), len(dataset.classes)) == (367, 101, 11)
    assert dataset.skipped == () and dataset.notes == ()
    assert (
        "masks in train/masks, val/masks: 11 classes, 367 train, 101 val, classes by classes.json"
        in dataset.description
    )
    total = sum(dataset.areas[item.image] for item in dataset.train)
    assert total.sum() == 367 * 480 * 360
    mask = dataset.train[0].mask
    assert mask
    assert np.array_equal(read_mask(mask), np.asarray(Image.open(mask.file)))


@pytest.mark.parametrize("layout", ["{split}/images,{split}/masks", "images,masks", "{split},{split}annot"])
def test_masks_of_other_names_are_no_classes(layout: str, tmp_path: Path):
    images, masks = layout.split(",")
    make(tmp_path, images, masks, end="_of_someone")
    for task in (None, "segment"):
        with pytest.raises(DataError, match=r"of an image; for example \w\.png beside \w_of_someone\.png; exp"):
            open_dataset(tmp_path, task=task)


def test_an_empty_folder_of_masks(tmp_path: Path):
    for mask in make(tmp_path).rglob("masks/*"):
        mask.unlink()
    with pytest.raises(DataError, match="no mask in train/masks has the name of an image, it is empty; expected"):
        open_dataset(tmp_path)
