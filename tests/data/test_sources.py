"""Data sets are found, split the same way everywhere, and refused with the path and the fix."""

import json
import os
import random
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from pocketvision.data import layouts
from pocketvision.data.sources import Dataset, Item, load_split, open_dataset, save_split
from pocketvision.errors import DataError


def make(root: Path, counts: dict[str, int], suffix: str = "png") -> Path:
    """A folder with ``counts[folder]`` little images in each folder."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (number, 9, 9)).save(root / folder / f"{number:02}.{suffix}")
    return root


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def relative(items: tuple[Item, ...], root: Path) -> list[str]:
    return [Path(item.image).relative_to(root).as_posix() for item in items]


def refused(data: Path | str, *parts: str) -> None:
    with pytest.raises(DataError) as error:
        open_dataset(data)
    for part in parts:
        assert part in str(error.value)
    assert str(data) in str(error.value)


def test_clothing10(shared: Path):
    dataset = open_dataset(shared / "data/clothing10")
    names = ("dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt")
    assert dataset.classes == names
    assert (len(dataset.train), len(dataset.val), len(dataset.test), len(dataset.skipped)) == (1969, 341, 0, 0)
    assert dataset.name == "clothing10"
    assert dataset.description == "class folders in train, val: 10 classes, 1969 train, 341 val, 0 skipped"
    assert all(f"/val/{names[item.label]}/" in item.image for item in dataset.val)


def test_class_folders_are_split_by_class(tmp_path: Path):
    root = make(tmp_path / "pets", {"cat": 20, "dog/puppies": 5, "dog": 5, "emu": 2, "fox": 1})
    dataset = open_dataset(root, seed=3)
    assert dataset.classes == ("cat", "dog", "emu", "fox")
    counts = [
        [sum(item.label == label for item in split) for label in range(4)] for split in (dataset.train, dataset.val)
    ]
    assert counts == [[16, 8, 1, 1], [4, 2, 1, 0]]
    assert sorted(relative(dataset.train + dataset.val, root))[20:25] == [f"dog/{n:02}.png" for n in range(5)]
    assert dataset.description.startswith("class folders: 4 classes, 26 train, 7 val (val: 20% of each class")
    assert not dataset.test


def test_split_depends_on_the_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counts = {"cat": 30, "dog": 30}
    first, second = make(tmp_path / "a/pets", counts), tmp_path / "b/pets"
    shutil.copytree(first, second)
    expected = [relative(part, first) for part in (open_dataset(first).train, open_dataset(first).val)]
    assert expected[0] == sorted(expected[0])
    entries = layouts.entries
    monkeypatch.setattr(layouts, "entries", lambda folder: random.sample(found := entries(folder), len(found)))
    monkeypatch.chdir(tmp_path)
    again = open_dataset("b/pets")
    assert [relative(part, second) for part in (again.train, again.val)] == expected
    assert relative(open_dataset(first, seed=1).val, first) != expected[1]


def test_few_images_change_sides_when_some_are_added(tmp_path: Path):
    root = make(tmp_path, {"cat": 50, "dog": 50})
    before = set(relative(open_dataset(root).val, root))
    make(root, {"cat": 55})
    after = set(relative(open_dataset(root).val, root))
    assert len(before - after) <= 2


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders_are_used_as_they_are(tmp_path: Path, val: str):
    root = make(tmp_path, {"train/cat": 3, "train/dog": 3, f"{val}/cat": 2, f"{val}/dog": 1, "test/dog": 4})
    dataset = open_dataset(root)
    assert relative(dataset.val, root) == [f"{val}/cat/00.png", f"{val}/cat/01.png", f"{val}/dog/00.png"]
    assert (len(dataset.train), len(dataset.test)) == (6, 4)
    assert [item.label for item in dataset.test] == [1] * 4


def test_val_is_cut_from_train_where_only_test_is_marked(tmp_path: Path):
    dataset = open_dataset(make(tmp_path, {"train/cat": 10, "train/dog": 10, "test/cat": 5, "test/dog": 5}))
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (16, 4, 10)
    assert all("/train/" in item.image for item in dataset.val)


def test_test_without_labels_is_ignored_and_said(tmp_path: Path):
    root = make(tmp_path, {"train/cat": 5, "train/dog": 5, "test": 5, "unlabeled": 2})
    dataset = open_dataset(root)
    assert not dataset.test
    assert "(test has no class folders and is ignored) (unlabeled ignored)" in dataset.description


def test_a_class_may_be_called_train(tmp_path: Path):
    assert open_dataset(make(tmp_path, {"bus": 5, "car": 5, "train": 5})).classes == ("bus", "car", "train")


def test_what_is_no_image_is_ignored_and_broken_ones_are_listed(tmp_path: Path):
    root = make(tmp_path, {"cat": 10, "dog": 10, ".hidden": 3, "cat/.thumbs": 3})
    for name in ("notes.txt", "cat/.DS_Store", "cat/Thumbs.db", "dog/labels.json", "cat/._00.jpg"):
        (root / name).write_text("x")
    whole = (root / "cat/00.png").read_bytes()
    broken = {
        "cat/cut.png": (whole[: len(whole) // 2], "damaged"),
        "dog/empty.jpg": (b"", "empty"),
        "dog/text.JPG": (b"hello", "not an image"),
        "loose.png": (whole, "no label"),
    }
    for name, (content, _) in broken.items():
        (root / name).write_bytes(content)
    (root / "dog/link.png").symlink_to(root / "absent.png")
    dataset = open_dataset(root)
    assert len(dataset.train + dataset.val) == 20
    reasons = {Path(skipped.image).relative_to(root).as_posix(): skipped.reason for skipped in dataset.skipped}
    assert sorted(reasons) == sorted([*broken, "dog/link.png"])
    assert all(part in reasons[name] for name, (_, part) in broken.items())
    assert dataset.description.endswith("5 skipped")
    assert len(open_dataset(root, check=False).skipped) == 1


def test_unicode_names(tmp_path: Path):
    decomposed = unicodedata.normalize("NFD", "Bär")
    root = make(tmp_path, {decomposed: 5, "猫 🐈": 5})
    Image.new("RGB", (4, 4)).save(root / "猫 🐈" / "größer é.png")
    dataset = open_dataset(root)
    assert dataset.classes == ("Bär", "猫 🐈")
    assert len(dataset.train + dataset.val) == 11
    path = save_split(dataset, tmp_path / "split.json")
    assert load_split(path) == dataset


def test_names_that_are_not_utf8(tmp_path: Path):
    root = make(tmp_path, {"cat": 5, "dog": 5})
    try:
        shutil.copy(root / "cat/00.png", os.fsencode(root) + b"/cat/\xff.png")
    except OSError:
        pytest.skip("this file system takes no such name")
    dataset = open_dataset(root)
    assert len(dataset.train + dataset.val) == 11
    assert load_split(save_split(dataset, tmp_path / "split.json")) == dataset


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (b"d\xffg", (r"d\udcffg", "not UTF-8")),
        (b"d\nog", (r"d\nog", "control character")),
        (b"d\tog", (r"d\tog", "control character")),
        ("d\u2028og".encode(), (r"d\u2028og", "control character")),
    ],
)
@pytest.mark.parametrize("split", ["", "train/", "val/"])
def test_class_names_that_no_file_could_hold(tmp_path: Path, split: str, name: bytes, parts: tuple[str, ...]):
    make(tmp_path, {f"{folder}{name}": 5 for folder in (["train/", "val/"] if split else [""]) for name in ("a", "b")})
    try:
        os.rename(os.fsencode(tmp_path / f"{split}b"), os.fsencode(tmp_path) + b"/" + split.encode() + name)
    except OSError:
        pytest.skip("this file system takes no such name")
    refused(tmp_path, *parts, "rename it")


def test_class_names_with_joined_emoji(tmp_path: Path):
    assert open_dataset(make(tmp_path, {"👩‍🔬": 5, "猫": 5})).classes == ("猫", "👩‍🔬")


def test_link_loops_end_and_bring_in_no_other_class(tmp_path: Path):
    root = make(tmp_path / "root", {"cat": 5, "dog": 5})
    elsewhere = make(tmp_path / "elsewhere", {"emu": 3})
    (root / "cat/self").symlink_to(root / "cat")
    (root / "cat/up").symlink_to(root)
    (root / "dog/loop").symlink_to("loop")
    (root / "emu").symlink_to(elsewhere / "emu")
    dataset = open_dataset(root)
    assert dataset.classes == ("cat", "dog", "emu")
    assert [len({i.image for i in dataset.train + dataset.val if i.label == n}) for n in range(3)] == [5, 5, 3]
    assert not dataset.skipped


def test_csv(tmp_path: Path):
    root = make(tmp_path, {"images": 6})
    absolute = root / "images/05.png"
    lines = [
        "Filename;Label;Split",
        "images/00.png;cat;train",
        "images\\01.png;dog;train",
        '"images/02.png";"cat";validation',
        "images/03.png;dog;val",
        "images/04.png;dog;test",
        f"{absolute};dog;",
        "images/absent.png;dog;train",
        "images/00.png;cat;train",
        "images/04.png;;train",
        "",
    ]
    path = root / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    dataset = open_dataset(path)
    assert dataset.classes == ("cat", "dog")
    assert [Path(item.image).stem for item in dataset.train] == ["05", "00", "01"]
    assert str(absolute) == dataset.train[0].image
    assert [item.label for item in dataset.val] == [0, 1]
    assert [item.label for item in dataset.test] == [1]
    assert [skipped.reason for skipped in dataset.skipped] == [
        "line 9 lists it again",
        "line 10 has no label",
        "there is no such file",
    ]
    assert dataset.name == "labels"


def test_csv_without_splits_is_cut(tmp_path: Path):
    make(tmp_path, {"images": 20})
    rows = "\n".join(f"images/{n:02}.png\t{'ab'[n % 2]}" for n in range(20))
    dataset = open_dataset(write_csv(tmp_path / "l.tsv", f"image\tclass\n{rows}\n"))
    assert (len(dataset.train), len(dataset.val)) == (16, 4)
    assert dataset.description.startswith("CSV: 2 classes")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no column of images among none"),
        ("a,b\n1,2\n", "no column of images among 'a', 'b'"),
        ("image,b\n1,2\n", "no column of labels among 'image', 'b'"),
        ("image,label\n", "needs 2 classes, this has 0"),
        ("image,label\n1.png,cat\n", "needs 2 classes, this has 1, 'cat'"),
        ("image,label\n1.png,cat\n2.png,dog\n", "there is no such file"),
        ("image,label,split\n1.png,cat,trian\n", "line 2 has the split 'trian'; did you mean 'train'?"),
        (
            'image,label\n1.png,"c\na\tt"\n',
            r"control character (line break, tab, ...) in its class name, 'c\na\tt'; rename",
        ),
        ("image,label\n1.png,cat\n1.png,dog\n", "line 3 calls 1.png 'dog', an earlier one 'cat'"),
    ],
)
def test_csv_errors(tmp_path: Path, text: str, part: str):
    refused(write_csv(tmp_path / "labels.csv", text), part)


def test_files_that_are_no_csv(tmp_path: Path):
    (tmp_path / "data.zip").write_bytes(b"PK")
    refused(tmp_path / "data.zip", "not a CSV", "unpack")
    (tmp_path / "latin.csv").write_bytes("image,label\nä.png,Bär\n".encode("latin-1"))
    refused(tmp_path / "latin.csv", "not UTF-8", "save it")


def test_folder_errors(tmp_path: Path):
    refused(tmp_path / "absent", "no such folder or file", "check the path")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no images in it", "FOLDER/cat/1.jpg")
    refused(make(tmp_path / "flat", {".": 3}), "no class folders", "FOLDER/cat/1.jpg")
    refused(make(tmp_path / "flat train", {"train": 3, "val": 3}), "no class folders", "FOLDER/cat/1.jpg")
    refused(make(tmp_path / "one", {"cat": 3}), "needs 2 classes, this has 1, 'cat'", "add a class")
    refused(
        make(tmp_path / "hollow", {"cat": 3, "dog": 3, "emu": 0}), "no readable images", "'emu'", "remove the class"
    )
    refused(make(tmp_path / "extra", {"train/a": 3, "train/b": 3, "val/a": 1, "val/c": 1}), "val has 'c'", "rename")
    refused(make(tmp_path / "no train", {"val/a": 3, "test/a": 3}), "no train folder")
    refused(make(tmp_path / "no val", {"train/a": 3, "train/b": 3, "val": 0}), "val holds no readable images")
    refused(make(tmp_path / "single", {"a": 1, "b": 1}), "no images for validation")
    twice = make(tmp_path / "twice", {"train/a": 3, "train/b": 3, "val/a": 1, "valid/a": 1})
    refused(twice, "both val and valid", "keep one")
    broken = make(tmp_path / "broken", {"cat": 3, "dog": 1})
    (broken / "dog/00.png").write_bytes(b"x")
    refused(broken, "no readable images", "'dog'", "00.png", "not an image")
    elsewhere = make(tmp_path / "elsewhere", {"cat": 3, "dog": 3, "emu": 0})
    (elsewhere / "cat/01.png").write_bytes(b"x")
    refused(elsewhere, "in 'emu'; add images or remove the class")  # the broken file of another class is not its cause
    two = make(tmp_path / "two", {"cat": 3, "dog": 1})
    for name in ("cat/01.png", "dog/00.png"):
        (two / name).write_bytes(b"x")
    refused(two, "in 'dog' (for example", "dog/00.png: ")


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(folder: str | Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(layouts, "entries", denied)  # root may read everything, so chmod would prove nothing
    refused(tmp_path, "permission")


def test_digits():
    dataset = open_dataset("sample:digits", seed=7)
    assert dataset == open_dataset("sample:digits")
    assert dataset.classes == tuple("0123456789")
    assert len(dataset.train) + len(dataset.val) == 1797
    assert abs(len(dataset.val) - 359) <= 2
    refused("sample:digit", "did you mean 'sample:digits'?")


def test_split_file(tmp_path: Path):
    dataset = open_dataset(make(tmp_path / "data", {"train/cat": 4, "train/dog": 4, "test/cat": 2}))
    dataset = Dataset(*(getattr(dataset, name) for name in Dataset.__slots__))
    path = save_split(dataset, tmp_path / "run/split.json")
    assert load_split(path) == dataset
    with pytest.raises(DataError, match="no such file"):
        load_split(tmp_path / "absent.json")
    data = json.loads(path.read_text())
    for damage in ({"train": [["a.jpg", 2]]}, {"classes": None}, {"val": [["a.jpg"]]}):
        path.write_text(json.dumps(data | damage))
        with pytest.raises(DataError, match="not a split"):
            load_split(path)
    path.write_text("{")
    with pytest.raises(DataError, match=str(path)):
        load_split(path)
