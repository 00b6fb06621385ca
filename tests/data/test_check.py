"""The dataset doctor finds what was put in, and nothing where nothing is wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pocketvision.data.check import Finding, check_dataset, class_counts, refuse_leaks
from pocketvision.data.sources import Dataset, Item, open_dataset
from pocketvision.errors import DataError


def make(root: Path, counts: dict[str, int]) -> Path:
    colour = 0
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            colour += 1
            Image.new("RGB", (4, 4), (colour % 256, colour // 256, 9)).save(root / folder / f"{number:03}.bmp")
    return root


def problems(dataset: Dataset) -> list[Finding]:
    first, *others = check_dataset(dataset)
    assert first.severity == "info"
    return others


def test_clothing10(shared: Path):
    dataset = open_dataset(shared / "data/clothing10", check=False)
    assert check_dataset(dataset) == (Finding("info", "counts", "10 classes; images: 1969 train, 341 val"),)
    counts = class_counts(dataset)
    assert sum(counts["train"].values()) == 1969
    assert sum(counts["val"].values()) == 341
    assert counts["test"] == dict.fromkeys(dataset.classes, 0)


def test_nothing_wrong_with_the_digits():
    assert problems(open_dataset("sample:digits")) == []


def test_duplicates_across_splits(tmp_path: Path):
    root = make(tmp_path, {"train/a": 30, "train/b": 30, "val/a": 10, "val/b": 10, "test/a": 4})
    shutil.copy(root / "train/a/003.bmp", root / "val/a/copy 1.bmp")
    shutil.copy(root / "train/a/003.bmp", root / "val/a/copy 2.bmp")
    shutil.copy(root / "train/b/004.bmp", root / "test/a/copy 3.bmp")
    shutil.copy(root / "train/b/005.bmp", root / "train/b/copy 4.bmp")
    val, test, contradicting, repeated = problems(open_dataset(root))
    assert (val.severity, test.severity, contradicting.severity, repeated.severity) == (
        "error",
        "error",
        "error",
        "info",
    )
    assert "2 of the val images (9.1%) are also in train" in val.text
    assert "(2 as the same file)" in val.text
    original = str(root / "train/a/003.bmp")
    assert val.groups == tuple((original, str(root / f"val/a/copy {number}.bmp")) for number in (1, 2))
    assert "1 of the test images (20.0%)" in test.text
    assert "1 picture occurs with two different labels" in contradicting.text
    assert set(contradicting.groups[0]) == set(test.groups[0])
    assert repeated.groups == (tuple(str(root / f"train/b/{name}.bmp") for name in ("005", "copy 4")),)


def test_equal_sizes_are_no_duplicates(tmp_path: Path):
    root = make(tmp_path, {"train/a": 30, "train/b": 30, "val/a": 10, "val/b": 10})
    assert len({path.stat().st_size for path in root.rglob("*.bmp")}) == 1
    assert problems(open_dataset(root)) == []


def test_class_sizes(tmp_path: Path):
    root = make(tmp_path, {"train/a": 210, "train/b": 20, "train/c": 19, "val/a": 3, "val/b": 3})
    few, unequal, absent = problems(open_dataset(root))
    assert "fewer than 20 training images: 'c' (19)" in few.text
    assert "'a' has 210 training images, 'c' 19" in unequal.text
    assert "no validation images" in absent.text
    assert absent.text.endswith("'c'")
    assert {few.severity, unequal.severity, absent.severity} == {"warning"}


def test_skipped_images_are_told(tmp_path: Path):
    root = make(tmp_path, {"a": 40, "b": 40})
    (root / "a/broken.jpg").write_bytes(b"")
    (finding,) = problems(open_dataset(root))
    assert finding.severity == "warning"
    assert "1 skipped" in finding.text
    assert "empty" in finding.text
    assert finding.groups == ((str(root / "a/broken.jpg"),),)


def test_files_that_vanish_meanwhile(tmp_path: Path):
    items = tuple(Item(str(tmp_path / f"{number}.jpg"), number % 2) for number in range(80))
    dataset = Dataset("gone", ("a", "b"), items[:60], items[60:], (), ())
    assert problems(dataset) == []


def photos(root: Path, counts: dict[str, int]) -> Path:
    """Different pictures, smooth as photos are."""
    rng = np.random.default_rng(0)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            blobs = Image.fromarray(rng.integers(0, 256, (9, 12, 3)).astype(np.uint8))
            blobs.resize((160, 120), Image.Resampling.BICUBIC).save(
                root / folder / f"{chr(97 + number)}.jpg", quality=90
            )
    return root


def test_near_duplicates_across_splits_and_classes(tmp_path: Path):
    root = photos(tmp_path, {"train/ä b": 22, "train/猫": 22, "val/ä b": 10, "val/猫": 10})
    picture = Image.open(root / "train/ä b/a.jpg")
    picture.save(root / "val/ä b/again ü.jpg", quality=40)
    ImageOps.mirror(Image.open(root / "train/ä b/b.jpg")).save(root / "val/ä b/mirror.jpg")
    shutil.copy(root / "train/ä b/c.jpg", root / "val/ä b/file.jpg")
    Image.open(root / "train/猫/d.jpg").resize((80, 60)).save(root / "train/猫/small.png")
    picture.resize((300, 225)).save(root / "train/猫/wrong.webp")
    dataset = open_dataset(root)
    leak, contradiction, repeated = problems(dataset)
    assert "3 of the val images (13.0%) are also in train (1 as the same file, 2 encoded again" in leak.text
    assert {Path(val).name: Path(train).name for train, val in leak.groups} == {
        "again ü.jpg": "a.jpg",
        "mirror.jpg": "b.jpg",
        "file.jpg": "c.jpg",
    }
    assert [Path(image).name for image in contradiction.groups[0]] == ["a.jpg", "wrong.webp", "again ü.jpg"]
    assert [tuple(Path(image).name for image in group) for group in repeated.groups] == [("d.jpg", "small.png")]
    with pytest.raises(DataError, match=r"3 of the val images.*for example .*a\.jpg and .*remove one.*--allow-leak"):
        refuse_leaks(dataset, [leak])


def test_a_leak_of_next_to_nothing_is_only_told(tmp_path: Path):
    root = make(tmp_path, {"train/a": 30, "train/b": 30, "val/a": 200, "val/b": 10})
    shutil.copy(root / "train/a/003.bmp", root / "val/a/copy.bmp")
    dataset = open_dataset(root)
    (finding,) = problems(dataset)
    assert (finding.severity, finding.kind) == ("warning", "leak")
    refuse_leaks(dataset, [finding])


def test_tiny_images(tmp_path: Path):
    root = photos(tmp_path, {"a": 30, "b": 30})
    Image.open(root / "a/a.jpg").crop((0, 0, 40, 20)).save(root / "a/icon.png")
    (finding,) = problems(open_dataset(root))
    assert (finding.kind, finding.groups) == ("tiny", ((str(root / "a/icon.png"),),))
    assert finding.text == "1 tiny image: the short side is below 30 pixels, half of all have 120"
