"""Data sets: where the images are, what their labels are, and which of them train and which validate."""

import hashlib
import json
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np

from .. import files
from ..errors import DataError, nearest
from ..spec.heads import TaskName
from . import samples, scenes
from .boxes import Boxes, Note
from .bursts import bursts_of
from .detection import find_boxes, fit_boxes, words
from .duplicates import Looks
from .image import Glimpse, glimpse, shown_size
from .layouts import SPLITS, Found, Record, read_csv, read_folders
from .mask_layouts import EXPECTED, find_masks, of_masks, unmatched
from .masks import Mask
from .segmentation import fit_masks, mask_words

_VAL_SHARE = 0.2
_THREADS = min(16, 2 * (os.cpu_count() or 1))
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Item:
    """An image (a file's path, or ``sample:digits/N``), and the index of its class, the boxes in it or its mask.

    ``label`` is -1 where ``boxes`` or ``mask`` say what is in the image.
    """

    image: str
    label: int
    boxes: Boxes | None = None
    mask: Mask | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that is left out, and why."""

    image: str
    reason: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images for training, validation and test; ``description`` says what was found and how it was split.

    ``notes``: on boxes or masks that were changed or left out. ``looks``: how the images look at a glance, where they
    were checked when the data set was opened. ``areas``: of masks that were looked at, by image, how many pixels
    each class has and at last how many are void, int64 [classes + 1].
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    description: str = ""
    task: TaskName = "classify"
    notes: tuple[Note, ...] = ()
    looks: Looks | None = field(default=None, compare=False, repr=False)
    areas: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def items(self) -> tuple[Item, ...]:
        """All images: of train, val and test, in this order."""
        return *self.train, *self.val, *self.test


def open_dataset(data: str | Path, *, seed: int = 0, check: bool = True, task: TaskName | None = None) -> Dataset:
    """A data set of images with classes, boxes or masks from a folder, a file, ``sample:digits`` or
    ``sample:digit-scenes``.

    Boxes: a folder with COCO's JSON, VOC's XML or YOLO's text, or a COCO or YOLO (data.yaml) file itself (``coco``,
    ``voc``, ``yolo``); where there are such annotations they count, and class folders do not. Masks
    (``mask_layouts``) count after boxes and before class folders. ``task`` asks for one of these. Class folders:
    ``root/CLASS/...`` or ``root/{train,val,test}/CLASS/...`` (also validation, valid). CSV: a column of image paths
    (relative to the file, or absolute), one of labels, and if wanted one of splits.

    Where nothing is marked for validation, a stratified 20% of train is, chosen by the hash of (seed, path within the
    data set): the same on every machine and in every order of files. ``check`` decodes every image (masks are looked
    at anyway); unreadable ones are skipped and listed, and images of one burst (``bursts``) stay on one side of a split
    that is drawn.

    Raises DataError with the path and the fix for anything that is not such a data set.
    """
    if str(data).startswith(samples.PREFIX):
        return _sample(str(data), task)
    path = Path(os.path.abspath(Path(data).expanduser()))
    if not path.exists():
        raise DataError(f"{path}: there is no such folder or file; check the path")
    try:
        found = _find(path, task)
    except PermissionError as error:
        raise DataError(f"{error.filename}: the permission to read it is missing; change it (chmod)") from error
    return _dataset(found, seed, check)


def _find(path: Path, task: TaskName | None) -> Found:
    """What lies there: boxes before masks before classes, or what ``task`` asks for."""
    boxes = find_boxes(path) if task in ("detect", None) else None
    masks = find_masks(path) if task in ("segment", None) else None
    if boxes and masks:
        return replace(boxes, layout=f"{boxes.layout} ({masks.layout} too, which networks for segmentation use)")
    if found := boxes or masks:
        return found
    if task == "detect":
        raise DataError(f"{path}: no boxes in it; expected are COCO's JSON, VOC's XML or YOLO's text")
    if task != "classify" and (why := unmatched(path)):
        raise DataError(f"{path}: {why}")
    if task == "segment":
        raise DataError(f"{path}: no masks in it; {EXPECTED}")
    found = read_folders(path) if path.is_dir() else read_csv(path)
    if path.is_dir() and of_masks(found.classes):
        raise DataError(f"{path}: has images and masks, no class folders; use it to segment, or sort images by class")
    return found


def save_split(dataset: Dataset, path: str | Path) -> Path:
    """Write everything that a Dataset says to a JSON file."""
    return files.write_text(path, split_text(dataset))


def split_text(dataset: Dataset) -> str:
    """Everything that a Dataset says, as JSON."""
    data: dict[str, object] = {name: getattr(dataset, name) for name in ("name", "task", "classes", "description")}
    lists: dict[str, list] = {split: [_item_data(item) for item in getattr(dataset, split)] for split in SPLITS}
    lists["skipped"] = [[skipped.image, skipped.reason] for skipped in dataset.skipped]
    lists["notes"] = [astuple(note) for note in dataset.notes]
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in data.items()]
    for name, entries in lists.items():
        rows = ",".join(f"\n  {json.dumps(entry)}" for entry in entries)  # a line for each image
        lines.append(f" {json.dumps(name)}: [{rows}]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _item_data(item: Item) -> list[object]:
    what = item.boxes or item.mask
    return [item.image, item.label] if what is None else [item.image, item.label, astuple(what)]


def load_split(path: str | Path) -> Dataset:
    """The Dataset that ``save_split`` wrote. Raises DataError for anything else."""
    try:
        return parse_split(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; a run's folder holds one as split.json") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: not a split that pocketvision wrote ({reason}); start a new run instead") from None


def parse_split(text: str) -> Dataset:
    """The inverse of ``split_text``. Raises ValueError, KeyError or TypeError for anything else."""
    data = json.loads(text)
    task: TaskName = data.get("task", "classify")
    if task not in get_args(TaskName):
        raise ValueError(f"the task {task!r} is unknown")
    read = {"classify": _item, "detect": _boxed_item, "segment": _masked_item}[task]
    train, val, test = (tuple(read(*entry) for entry in data[split]) for split in SPLITS)
    classes = tuple(str(name) for name in data["classes"])
    for item in (*train, *val, *test):
        if item.mask and len(item.mask.values) != len(classes):
            raise ValueError("a mask's values are not as many as the classes")
        labels = item.boxes.labels if item.boxes else () if item.mask else (item.label,)
        if any(not 0 <= label < len(classes) for label in labels):
            raise ValueError("a label without a class")
    skipped = tuple(Skipped(str(image), str(reason)) for image, reason in data["skipped"])
    notes = tuple(Note(*map(str, note)) for note in data.get("notes", ()))
    return Dataset(str(data["name"]), classes, train, val, test, skipped, str(data["description"]), task, notes)


def _item(image: object, label: object) -> Item:
    return Item(str(image), int(label))  # type: ignore[call-overload]


def _boxed_item(image: object, _: object, boxes: list) -> Item:
    (width, height), corners, labels, ignored = boxes
    places = tuple((float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in corners)
    if not len(places) == len(labels) == len(ignored):
        raise ValueError("boxes, labels and ignored are not equally many")
    return Item(
        str(image), -1, Boxes((int(width), int(height)), places, tuple(map(int, labels)), tuple(map(bool, ignored)))
    )


def _masked_item(image: object, _: object, mask: list) -> Item:
    file, values, (width, height), colours, turn = mask
    size = int(width), int(height)
    return Item(str(image), -1, mask=Mask(str(file), tuple(map(int, values)), size, bool(colours), int(turn)))


def _sample(name: str, task: TaskName | None) -> Dataset:
    samples.check_sample(name)
    classes, what = samples.DIGIT_CLASSES, "scenes of scikit-learn's scanned digits"
    tasks: tuple[TaskName, ...] = ("detect", "segment") if name == samples.SCENES else ("classify",)
    task = task or tasks[0]
    if task not in tasks:
        raise DataError(f"{name}: has nothing for the task {task!r}; valid: {', '.join(map(repr, tasks))}")
    if task == "classify":
        what, labels = "scikit-learn's scanned digits", samples.digit_labels()
        train, val = (tuple(Item(f"{name}/{n}", labels[n]) for n in numbers) for numbers in samples.digit_split())
    elif task == "detect":
        items = tuple(Item(f"{name}/{number}", -1, boxes) for number, boxes in enumerate(scenes.scene_boxes()))
        train, val = items[: scenes.TRAIN], items[scenes.TRAIN :]
    else:
        classes = (samples.BACKGROUND, *classes)
        names = (f"{name}/{number}" for number in range(scenes.TRAIN + scenes.VAL))
        size, values = (scenes.SIDE, scenes.SIDE), tuple(range(len(classes)))
        items = tuple(Item(name, -1, mask=Mask(name, values, size)) for name in names)
        train, val = items[: scenes.TRAIN], items[scenes.TRAIN :]
    description = f"{what}: {len(classes)} classes, {len(train)} train, {len(val)} val (a fixed split)"
    description += _said_of_boxes((*train, *val), ())
    return Dataset(name.removeprefix(samples.PREFIX), classes, train, val, (), (), description, task)


def _dataset(found: Found, seed: int, check: bool) -> Dataset:
    skipped, looks, areas = [Skipped(image, reason) for image, reason in found.skipped], None, {}
    records = found.records
    if check:
        records, unreadable, looks = _readable(records)
        skipped += unreadable
    if found.task != "classify":
        found, areas = _fitted(found, records, looks, skipped)
        records = found.records
    skipped.sort(key=lambda item: (item.image, item.reason))
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for record in sorted(records, key=lambda record: (record.key, record.image)):
        splits[record.split].append(record)
    if found.task == "classify":
        _check_classes(found, splits, skipped)
    how, kept_together = "", 0
    if "val" not in found.splits:
        all_bursts = bursts_of(looks) if looks else {}
        bursts = {r.image: all_bursts[r.image] for r in splits["train"] if r.image in all_bursts}
        splits["train"], splits["val"] = _cut(splits["train"], seed, bursts)
        several = [count for count in Counter(bursts.values()).values() if count > 1]
        kept_together = sum(several)
        kept = f"; {len(several)} bursts or copies kept on one side" if several else ""
        of = "each class" if found.task == "classify" else "the images"
        how = f" (val: {_VAL_SHARE:.0%} of {of}, drawn with seed {seed}{kept})"
    if not splits["val"] and kept_together:
        raise DataError(
            f"{found.path}: no images for validation: {kept_together} of {len(splits['train'])} images are copies or "
            "bursts, which are kept on one side; add other images, or a split for validation of your own"
        )
    if not splits["val"]:
        enough = "several per class" if found.task == "classify" else "several"
        raise DataError(f"{found.path}: no images for validation; add some, or {enough} to draw them from")
    labels = {name: index for index, name in enumerate(found.classes)} if found.task == "classify" else {}
    train, val, test = (
        tuple(Item(r.image, labels.get(r.label, -1), r.boxes, r.mask) for r in splits[split]) for split in SPLITS
    )
    description = f"{found.layout}: {len(found.classes)} classes, {len(train)} train, {len(val)} val"
    description += (f", {len(test)} test" if test else "") + how
    description += _said_of_boxes((*train, *val, *test), found.notes) + _said_of_masks(found)
    name = found.path.name if found.path.is_dir() else found.path.stem
    return Dataset(
        name, found.classes, train, val, test, tuple(skipped), f"{description}, {len(skipped)} skipped",
        found.task, found.notes, looks, areas,
    )  # fmt: skip


def _fitted(
    found: Found, records: tuple[Record, ...], looks: Looks | None, skipped: list[Skipped]
) -> tuple[Found, dict[str, np.ndarray]]:
    """What was found, of ``records`` those whose boxes or masks fit their images, and the areas of masks; other images
    are added to ``skipped``."""
    sizes, areas = looks.shapes if looks else None, dict[str, np.ndarray]()
    if sizes is None:
        records, unreadable, sizes = _measured(records)
        skipped += unreadable
    if not records:
        what = f"{found.layout}: none of its {len(found.records)} images can be read"
        raise DataError(f"{found.path}: {what}, for example {skipped[-1].image}: {skipped[-1].reason}")
    if found.task == "detect":
        records, unfit, notes = fit_boxes(found, records, sizes)
        found = replace(found, records=records, notes=notes)
    else:
        found, unfit, areas = fit_masks(found, records, sizes)
    skipped += [Skipped(image, reason) for image, reason in unfit]
    return found, areas


def _readable(records: tuple[Record, ...]) -> tuple[tuple[Record, ...], list[Skipped], Looks]:
    with ThreadPoolExecutor(_THREADS) as threads:  # Pillow decodes outside Python's global lock
        glimpses = list(threads.map(lambda record: glimpse(record.image), records))
    checked = list(zip(records, glimpses, strict=True))
    good = [(record, look) for record, look in checked if isinstance(look, Glimpse)]
    skipped = [Skipped(record.image, look) for record, look in checked if isinstance(look, str)]
    looks = Looks.of((record.image for record, _ in good), [look for _, look in good])
    return tuple(record for record, _ in good), skipped, looks


def _measured(records: tuple[Record, ...]) -> tuple[tuple[Record, ...], list[Skipped], dict[str, tuple[int, int]]]:
    """Records whose images have a header, and their sizes by image."""
    with ThreadPoolExecutor(_THREADS) as threads:
        sizes = list(threads.map(lambda record: shown_size(record.image), records))
    measured = {r.image: size for r, size in zip(records, sizes, strict=True) if not isinstance(size, str)}
    skipped = [Skipped(r.image, size) for r, size in zip(records, sizes, strict=True) if isinstance(size, str)]
    return tuple(record for record in records if record.image in measured), skipped, measured


def _said_of_boxes(items: tuple[Item, ...], notes: tuple[Note, ...]) -> str:
    counts = [len(item.boxes.labels) for item in items if item.boxes]
    if not counts:
        return ""
    ignored = sum(sum(item.boxes.ignored) for item in items if item.boxes)
    parts = [f", {sum(counts)} boxes"]
    parts += [f" ({ignored} of them ignored)"] * (ignored > 0)
    empty = counts.count(0)
    parts += [f", {empty} {'image' if empty == 1 else 'images'} without boxes"] * (empty > 0)
    return "".join(parts) + (f", {said}" if (said := words(notes)) else "")


def _said_of_masks(found: Found) -> str:
    if not found.legend:
        return ""
    said = mask_words(found.notes)
    return f", {found.legend.source}" + (f", {said}" if said else "")


def _check_classes(found: Found, splits: dict[str, list[Record]], skipped: list[Skipped]) -> None:
    if len(found.classes) < 2:
        names = f", {found.classes[0]!r}" if found.classes else ""
        raise DataError(
            f"{found.path}: a classifier needs 2 classes, this has {len(found.classes)}{names}; "
            "give the folder that holds the class folders, or add a class"
        )
    present = {split: {record.label for record in records} for split, records in splits.items()}
    if empty := [name for name in found.classes if name not in present["train"]]:
        meant = {record.image for record in found.records if record.split == "train" and record.label in empty}
        first = next((item for item in skipped if item.image in meant), None)
        why = f" (for example {first.image}: {first.reason})" if first else ""
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


def _cut(records: list[Record], seed: int, bursts: dict[str, int]) -> tuple[list[Record], list[Record]]:
    """Records of train and of val: those with the smallest hashes, so few change sides when images are added.

    A burst goes where its smallest hash says, as long as no class then has more for validation than it should.
    """
    groups: dict[object, list[tuple[bytes, Record]]] = defaultdict(list)
    for record in records:
        digest = hashlib.sha256(f"{seed}/{record.key}".encode(errors="surrogateescape")).digest()
        groups[bursts.get(record.image, record.image)].append((digest, record))
    sizes = Counter(record.label for record in records)
    room = Counter({label: max(1, round(n * _VAL_SHARE)) if n > 1 else 0 for label, n in sizes.items()})
    val: set[str] = set()
    for members in sorted(groups.values(), key=lambda members: min(digest for digest, _ in members)):
        wanted = Counter(record.label for _, record in members)
        if wanted <= room:
            room -= wanted
            val.update(record.image for _, record in members)
    return [record for record in records if record.image not in val], [r for r in records if r.image in val]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
