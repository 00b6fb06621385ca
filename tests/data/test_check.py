"""The dataset doctor finds what was put in, and nothing where nothing is wrong."""

import shutil
from pathlib import Path

from PIL import Image

from pocketvision.data.check import Finding, check_dataset, class_counts
from pocketvision.data.sources import Dataset, Item, open_dataset


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
    assert check_dataset(dataset) == (Finding("info", "10 classes; images: 1969 train, 341 val"),)
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
    names = ("train/a/003.bmp", "val/a/copy 1.bmp", "val/a/copy 2.bmp")
    assert val.images == tuple(str(root / name) for name in names)
    assert "1 of the test images (20.0%)" in test.text
    assert "1 images occur with two different labels" in contradicting.text
    assert contradicting.images == test.images
    assert repeated.images == tuple(str(root / f"train/b/{name}.bmp") for name in ("005", "copy 4"))


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
    assert finding.images == (str(root / "a/broken.jpg"),)


def test_files_that_vanish_meanwhile(tmp_path: Path):
    items = tuple(Item(str(tmp_path / f"{number}.jpg"), number % 2) for number in range(80))
    dataset = Dataset("gone", ("a", "b"), items[:60], items[60:], (), ())
    assert problems(dataset) == []
