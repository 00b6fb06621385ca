"""Data sets: where the images are, what their labels are, and which of them train and which validate."""

import hashlib
import json
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import files
from ..errors import DataError, nearest
from . import samples
from .image import why_unreadable
from .layouts import SPLITS, Found, Record, read_csv, read_folders

_VAL_SHARE = 0.2
_THREADS = min(16, 2 * (os.cpu_count() or 1))
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Item:
    """An image (a file's path, or ``sample:digits/N``) and the index of its class."""

    image: str
    label: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that is left out, and why."""

    image: str
    reason: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images for training, validation and test; ``description`` says what was found and how it was split."""

    name: str
    classes: tuple[str, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    description: str = ""


def open_dataset(data: str | Path, *, seed: int = 0, check: bool = True) -> Dataset:
    """A classification data set from class folders, a CSV or ``sample:digits``.

    Class folders: ``root/CLASS/...`` or ``root/{train,val,test}/CLASS/...`` (also validation, valid). CSV: a column
    of image paths (relative to the file, or absolute), one of labels, and if wanted one of splits. Where
    nothing is marked for validation, a stratified 20% of train is, chosen by the hash of (seed, path within the
    data set): the same on every machine and in every order of files. ``check`` decodes every image; unreadable
    ones are skipped and listed.

    Raises DataError with the path and the fix for anything that is not such a data set.
    """
    if str(data).startswith(samples.PREFIX):
        return _digits(str(data))
    path = Path(os.path.abspath(Path(data).expanduser()))
    if not path.exists():
        raise DataError(f"{path}: there is no such folder or file; check the path")
    try:
        found = read_folders(path) if path.is_dir() else read_csv(path)
    except PermissionError as error:
        raise DataError(f"{error.filename}: the permission to read it is missing; change it (chmod)") from error
    return _dataset(found, seed, check)


def save_split(dataset: Dataset, path: str | Path) -> Path:
    """Write everything that a Dataset says to a JSON file."""
    data = asdict(dataset)
    for split in SPLITS:
        data[split] = [[item.image, item.label] for item in getattr(dataset, split)]
    data["skipped"] = [[skipped.image, skipped.reason] for skipped in dataset.skipped]
    return files.write_text(path, json.dumps(data, indent=1) + "\n")


def load_split(path: str | Path) -> Dataset:
    """The Dataset that ``save_split`` wrote. Raises DataError for anything else."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        items = {split: tuple(Item(str(image), int(label)) for image, label in data[split]) for split in SPLITS}
        classes = tuple(str(name) for name in data["classes"])
        if any(not 0 <= item.label < len(classes) for split in items.values() for item in split):
            raise ValueError("a label without a class")
        skipped = tuple(Skipped(str(image), str(reason)) for image, reason in data["skipped"])
        return Dataset(str(data["name"]), classes, **items, skipped=skipped, description=str(data["description"]))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; a run's folder holds one as split.json") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: not a split that pocketvision wrote ({reason}); start a new run instead") from None


def _digits(name: str) -> Dataset:
    samples.check_sample(name)
    labels = samples.digit_labels()
    train, val = (
        tuple(Item(f"{name}/{number}", labels[number]) for number in numbers) for numbers in samples.digit_split()
    )
    description = f"scikit-learn's scanned digits: 10 classes, {len(train)} train, {len(val)} val (a fixed split)"
    return Dataset("digits", samples.DIGIT_CLASSES, train, val, (), (), description)


def _dataset(found: Found, seed: int, check: bool) -> Dataset:
    skipped = [Skipped(image, reason) for image, reason in found.skipped]
    records = found.records
    if check:
        records, unreadable = _readable(records)
        skipped += unreadable
    skipped.sort(key=lambda item: (item.image, item.reason))
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for record in sorted(records, key=lambda record: (record.key, record.image)):
        splits[record.split].append(record)
    _check_classes(found, splits, skipped)
    how = ""
    if "val" not in found.splits:
        splits["train"], splits["val"] = _cut(splits["train"], seed)
        how = f" (val: {_VAL_SHARE:.0%} of each class, drawn with seed {seed})"
    if not splits["val"]:
        raise DataError(f"{found.path}: no images for validation; add some, or several per class to draw them from")
    labels = {name: index for index, name in enumerate(found.classes)}
    train, val, test = (tuple(Item(record.image, labels[record.label]) for record in splits[split]) for split in SPLITS)
    description = f"{found.layout}: {len(found.classes)} classes, {len(train)} train, {len(val)} val"
    description += (f", {len(test)} test" if test else "") + how + f", {len(skipped)} skipped"
    name = found.path.name if found.path.is_dir() else found.path.stem
    return Dataset(name, found.classes, train, val, test, tuple(skipped), description)


def _readable(records: tuple[Record, ...]) -> tuple[tuple[Record, ...], list[Skipped]]:
    with ThreadPoolExecutor(_THREADS) as threads:  # Pillow decodes outside Python's global lock
        reasons = list(threads.map(lambda record: why_unreadable(record.image), records))
    checked = list(zip(records, reasons, strict=True))
    good = tuple(record for record, reason in checked if reason is None)
    return good, [Skipped(record.image, reason) for record, reason in checked if reason is not None]


def _check_classes(found: Found, splits: dict[str, list[Record]], skipped: list[Skipped]) -> None:
    if len(found.classes) < 2:
        names = f", {found.classes[0]!r}" if found.classes else ""
        raise DataError(
            f"{found.path}: a classifier needs 2 classes, this has {len(found.classes)}{names}; "
            "give the folder that holds the class folders, or add a class"
        )
    present = {split: {record.label for record in records} for split, records in splits.items()}
    if empty := [name for name in found.classes if name not in present["train"]]:
        why = f" (for example {skipped[0].image}: {skipped[0].reason})" if skipped else ""
        raise DataError(
            f"{found.path}: no readable images to train on in {_listed(empty)}{why}; add images or remove the class"
        )
    for split in ("val", "test"):
        if unknown := sorted(present[split] - set(found.classes)):
            hint = nearest(unknown[0], found.classes)
            raise DataError(
                f"{found.path}: {split} has {_listed(unknown)}, which train has not ({hint}); "
                "rename or remove them, or add images of them to train"
            )
        if split in found.splits and not present[split]:
            raise DataError(f"{found.path}: {split} holds no readable images; add class folders to it, or remove it")


def _cut(records: list[Record], seed: int) -> tuple[list[Record], list[Record]]:
    """A class's records with the smallest hashes go to val: few change sides when images are added."""
    by_class: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_class[record.label].append(record)
    val: set[str] = set()
    for members in by_class.values():
        members.sort(
            key=lambda record: hashlib.sha256(f"{seed}/{record.key}".encode(errors="surrogateescape")).digest()
        )
        count = max(1, round(len(members) * _VAL_SHARE)) if len(members) > 1 else 0
        val.update(record.image for record in members[:count])
    return [record for record in records if record.image not in val], [r for r in records if r.image in val]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
