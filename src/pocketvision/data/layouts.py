"""Where a folder or a CSV keeps its images and labels: found by looking, not yet checked."""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, nearest
from ..spec.heads import TaskName
from .boxes import Boxes, Marks, Note
from .image import SUFFIXES
from .masks import Legend, Mask

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_COLUMNS = {
    "image": ("image", "image_path", "path", "file", "filename", "file_name", "filepath", "file_path", "img"),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "subset", "set", "partition"),
}
_EXPECTED = (
    "expected are class folders, FOLDER/cat/1.jpg, FOLDER/dog/2.jpg, or the same below FOLDER/train and FOLDER/val"
)


@dataclass(frozen=True, slots=True)
class Record:
    """One image with its label, or with the ``marks`` that annotate it and, once they are fitted to it, its ``boxes``;
    or with the file of its mask, and its ``mask`` once that was looked at.

    ``key`` is its path within the data set, which does not depend on where that lies.
    """

    image: str
    label: str
    split: str
    key: str
    marks: Marks | None = None
    boxes: Boxes | None = None
    mask_file: str = ""
    mask: Mask | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A data set as it lies there. ``skipped``: images without a label, each with the reason; ``notes``: on boxes or
    masks; ``legend``: which values in masks mean its classes, where a file says so."""

    path: Path
    layout: str
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    records: tuple[Record, ...]
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[Note, ...] = ()
    task: TaskName = "classify"
    legend: Legend | None = None


def read_folders(root: Path) -> Found:
    """Class folders below ``root``, or below its train, val and test folders. Raises DataError for other layouts."""
    folders = subfolders(root)
    splits = _split_folders(root, folders)
    if not splits:
        return _found(root, {"train": root}, "class folders")
    layout = f"class folders in {', '.join(folder.name for folder in splits.values())}"
    if "test" in splits and not _class_folders(splits["test"]):
        layout += f" ({splits.pop('test').name} has no class folders and is ignored)"
    ignored = [name for name, folder in folders.items() if folder not in splits.values() and _has_images(folder)]
    others = [name for name in ignored if name.lower() not in SPLIT_NAMES]
    return _found(root, splits, layout + (f" ({', '.join(others)} ignored)" if others else ""))


def read_csv(path: Path) -> Found:
    """A CSV (comma, semicolon or tab) with a column of images, one of labels, and perhaps one of splits.

    Raises DataError for another file, missing columns, an unknown split, or one image with two labels.
    """
    if path.suffix.lower() not in {".csv", ".tsv"}:
        raise DataError(f"{path}: a file, but not a CSV; give a folder of class folders or a .csv (unpack archives)")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        header, _, _ = text.partition("\n")
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
        columns = _columns(path, list(rows.fieldnames or ()))
        lines = [(rows.line_num, *((row.get(column) or "").strip() for column in columns)) for row in rows]
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save it as a CSV in UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV ({error}); save it as one") from None
    records: dict[str, Record] = {}
    skipped: list[tuple[str, str]] = []
    for line, name, label, split in lines:
        image = os.path.abspath(path.parent / name.replace("\\", "/"))
        if not name or not label:
            skipped.append((image if name else str(path), f"line {line} has no {'label' if name else 'image'}"))
        elif (other := records.get(image)) is None:
            known = label_name(label, f"{path}: line {line}")
            records[image] = Record(image, known, _split(path, line, split), normal(Path(name).as_posix()))
        elif other.label == normal(label):
            skipped.append((image, f"line {line} lists it again"))
        else:
            raise DataError(f"{path}: line {line} calls {name} {label!r}, an earlier one {other.label!r}; keep one")
    classes = sorted({record.label for record in records.values() if record.split == "train"})
    splits = tuple(split for split in SPLITS if any(record.split == split for record in records.values()))
    return Found(path, "CSV", tuple(classes), splits, tuple(records.values()), tuple(skipped))


def _columns(path: Path, header: list[str]) -> list[str]:
    """The names, in this file, of the columns of images, labels and splits ("" where there is no split)."""
    lower = {str(name).strip().lower(): name for name in reversed(header)}
    columns = [next((lower[name] for name in names if name in lower), "") for names in _COLUMNS.values()]
    for wanted, column in zip(_COLUMNS, columns, strict=True):
        if not column and wanted != "split":
            raise DataError(
                f"{path}: no column of {wanted}s among {', '.join(map(repr, header)) or 'none'}; "
                "name one column 'image' (path) and one 'label' in the first line"
            )
    return columns


def _split(path: Path, line: int, name: str) -> str:
    split = SPLIT_NAMES.get(name.lower() or "train")
    if split is None:
        raise DataError(f"{path}: line {line} has the split {name!r}; {nearest(name, SPLITS)}")
    return split


def _found(root: Path, splits: dict[str, Path], layout: str) -> Found:
    records: list[Record] = []
    skipped: list[tuple[str, str]] = []
    for split, folder in splits.items():
        for name, class_folder in subfolders(folder).items():
            label = label_name(name, f"the folder {str(class_folder)!r}")
            for image in images_below(class_folder, {root, folder}):
                key = normal(Path(image).relative_to(root).as_posix())
                records.append(Record(image, label, split, key))
        reason = "it lies beside the class folders, so it has no label"
        skipped += [(entry.path, reason) for entry in entries(folder) if is_image(entry)]
    if not records:
        if skipped:
            raise DataError(f"{splits['train']}: has images, but no class folders with images; {_EXPECTED}")
        raise DataError(f"{splits['train']}: no images in it; {_EXPECTED}")
    classes = sorted(normal(name) for name in subfolders(splits["train"]))
    return Found(root, layout, tuple(classes), tuple(splits), tuple(records), tuple(skipped))


def _split_folders(root: Path, folders: dict[str, Path]) -> dict[str, Path]:
    """The folders of train, val and test; none when these names are not meant as splits (a class may be a train)."""
    splits: dict[str, Path] = {}
    for name, folder in folders.items():
        split = SPLIT_NAMES.get(name.lower())
        if split in splits:
            raise DataError(f"{root}: both {splits[split].name} and {name} would be {split}; keep one of them")
        if split:
            splits[split] = folder
    if all(name.lower() in SPLIT_NAMES for name, folder in folders.items() if _has_images(folder)):
        if splits and "train" not in splits:
            raise DataError(f"{root}: has {', '.join(splits)}, but no train folder; {_EXPECTED}")
        return _ordered(splits)
    return _ordered(splits) if "train" in splits and _class_folders(splits["train"]) else {}


def _ordered(splits: dict[str, Path]) -> dict[str, Path]:
    return {split: splits[split] for split in SPLITS if split in splits}


def _class_folders(folder: Path) -> list[str]:
    return [name for name, subfolder in subfolders(folder).items() if _has_images(subfolder)]


def _has_images(folder: Path) -> bool:
    return next(images_below(folder, set()), None) is not None


def images_below(folder: Path, above: set[Path]) -> Iterator[str]:
    """Image files below ``folder``, in a fixed order; each real folder once, those ``above`` never (link loops)."""
    seen = {_identity(path) for path in above}
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        if _identity(here) in seen:
            continue
        seen.add(_identity(here))
        for entry in entries(here):
            if is_image(entry):
                yield entry.path
            elif os.path.isdir(entry.path):
                waiting.append(entry.path)


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder by name, without hidden things."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def split_of(name: str) -> str | None:
    """The split that the name of a file or folder speaks of: instances_train2017 is train."""
    words = [SPLIT_NAMES.get(word) for word in re.findall("[a-z]+", name.lower().replace("trainval", "train"))]
    return next(filter(None, words), None)


def subfolders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by name, without hidden ones."""
    return {entry.name: Path(entry.path) for entry in entries(folder) if os.path.isdir(entry.path)}


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether something in a folder is called like an image."""
    return os.path.splitext(entry.name)[1].lower() in SUFFIXES and not os.path.isdir(entry.path)


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def label_name(name: str, where: str) -> str:
    """A class name that every file and terminal can hold. ``where``: what has it, for the error message."""
    kinds = {unicodedata.category(character) for character in name}
    if "Cs" in kinds:  # how Python spells bytes that are not UTF-8
        raise DataError(f"{where} has a class name that is not UTF-8, {name!r}; rename it")
    if kinds & {"Cc", "Zl", "Zp"}:
        raise DataError(
            f"{where} has a control character (line break, tab, ...) in its class name, {name!r}; rename it"
        )
    return normal(name)


def normal(name: str) -> str:
    """One spelling of names that look the same: macOS writes an accented letter as two characters."""
    return unicodedata.normalize("NFC", name)
