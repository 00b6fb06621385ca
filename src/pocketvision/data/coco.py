"""COCO's JSON: images, categories and annotations with ``bbox`` (x, y, width, height)."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .boxes import Mark, Marks, Note
from .layouts import SPLITS, Found, Record, label_name, normal, split_of, subfolders

_FOLDERS = {"annotations", "annotation", "coco", "labels"}
_IMAGE_FOLDERS = ("", "images", "data", "JPEGImages")
_EXPECTED = 'expected is a JSON object with the lists "images", "annotations" and "categories"'


def find_coco(root: Path) -> tuple[dict[str, Path], list[Path]]:
    """The COCO files of a folder by split: in it, or in its folders annotations, coco, labels and those of splits; and
    files of the same form that are no truth, because their annotations have scores: predictions.

    A file's split is in its name (train.json, instances_val2017.json) or its folder's (valid/_annotations.coco.json);
    a single file without one is train. Raises DataError for several files of one split.
    """
    folders = [root, *(path for name, path in subfolders(root).items() if name.lower() in _FOLDERS or split_of(name))]
    found, predicted = dict[str, list[Path]](), list[Path]()
    for path in (path for folder in folders for path in sorted(folder.glob("*.json"))):
        if path.name.startswith(("captions", "panoptic", "stuff", "image_info", ".")) or not _is_coco(path):
            continue
        if _is_predicted(path):
            predicted.append(path)
        else:
            split = split_of(path.stem) or (split_of(path.parent.name) if path.parent != root else None)
            found.setdefault(split or "", []).append(path)
    whole = found.pop("", [])
    if not found:
        found = {"train": whole} if whole else {}
    chosen = {}
    for split in SPLITS:
        paths = found.get(split, [])
        instances = [path for path in paths if path.name.startswith("instances")] or paths
        if len(instances) > 1:
            names = " and ".join(str(path.relative_to(root)) for path in instances[:2])
            raise DataError(f"{root}: both {names} would be {split}; keep one of them, or give one file as the data")
        if instances:
            chosen[split] = instances[0]
    if chosen and "train" not in chosen:
        raise DataError(f"{root}: COCO files for {', '.join(chosen)}, but none for train; name one train.json")
    return chosen, predicted


def read_coco(root: Path, paths: dict[str, Path]) -> Found:
    """The images and boxes of COCO files, one for each split, below the folder ``root``.

    Classes are the categories of train in the order of their ids, without those that are only others' supercategory
    and have no boxes. Crowds are ignored boxes; segmentations are not read. Raises DataError for anything else.
    """
    records, notes = list[Record](), list[Note]()
    classes: tuple[str, ...] = ()
    for split, path in paths.items():
        data = _parsed(path)
        categories = {entry["id"]: label_name(str(entry["name"]), str(path)) for entry in data["categories"]}
        found = list(_records(data, path, split, root, categories, notes))
        if split == "train":
            used = {mark.label for record in found for mark in _marks(record).boxes}
            above = {entry.get("supercategory") for entry in data["categories"] if entry.get("supercategory")}
            above -= {str(entry["name"]) for entry in data["categories"] if entry.get("supercategory") == entry["name"]}
            order = sorted(categories, key=lambda number: (isinstance(number, str), number))
            names = [
                categories[number] for number in order if categories[number] in used or categories[number] not in above
            ]
            classes = tuple(dict.fromkeys(names))
        records += found
    where = {path.parent.relative_to(root).as_posix() for path in paths.values()} - {"."}
    names = ", ".join(path.name if len(where) == 1 else path.relative_to(root).as_posix() for path in paths.values())
    layout = f"COCO JSON in {where.pop()} ({names})" if len(where) == 1 and len(paths) > 1 else f"COCO JSON ({names})"
    if not records:
        raise DataError(f"{next(iter(paths.values()))}: it lists no images; {_EXPECTED}")
    return Found(root, layout, classes, tuple(paths), tuple(records), (), tuple(notes), "detect")


def _marks(record: Record) -> Marks:
    assert record.marks is not None
    return record.marks


def _is_coco(path: Path) -> bool:
    """Whether a JSON file speaks of images and annotations; cheaper than to parse it, and true of damaged ones."""
    if not path.is_file():
        return False
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: it cannot be read ({error.strerror})") from None
    return b'"images"' in text and (b'"annotations"' in text or b'"categories"' in text)


def _is_predicted(path: Path) -> bool:
    """Whether a COCO file is what ``predict --out`` writes, which lists what it skipped, or has scores as that does."""
    text = path.read_bytes()
    if b'"score"' not in text and b'"skipped"' not in text:
        return False
    try:
        data = _parsed(path)
    except DataError:
        return False  # a damaged file is said when it is read
    return "skipped" in data or any("score" in entry for entry in data["annotations"])


def _parsed(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); export it again") from None
    except OSError as error:
        raise DataError(f"{path}: it cannot be read ({error.strerror})") from None
    for name, fields in (("images", ("id", "file_name")), ("categories", ("id", "name")), ("annotations", ())):
        entries = data.get(name) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{path}: no list of {name} in it; {_EXPECTED}")
        for number, entry in enumerate(entries):
            if missing := [field for field in fields if not isinstance(entry.get(field), int | str)]:
                raise DataError(f"{path}: entry {number} of {name} has no {missing[0]}; {_EXPECTED}")
    return data


def _records(
    data: dict[str, Any], path: Path, split: str, root: Path, categories: dict[Any, str], notes: list[Note]
) -> Iterator[Record]:
    boxes: dict[Any, list[Mark]] = {entry["id"]: [] for entry in data["images"]}
    if len(boxes) < len(data["images"]):
        names = Counter(entry["id"] for entry in data["images"])
        raise DataError(f"{path}: two images have the id {names.most_common(1)[0][0]!r}; give each its own")
    lost = list[tuple[str, Any]]()
    for number, entry in enumerate(data["annotations"]):
        what = f"annotation {entry.get('id', number)}"
        image, category = entry.get("image_id"), entry.get("category_id")
        if not isinstance(image, int | str) or image not in boxes:
            notes.append(Note(str(path), "unknown", f"{what} is of image {image!r}, which is not listed"))
        elif not isinstance(category, int | str) or category not in categories:
            lost.append((f"{what} has the category {category!r}, which is not listed", image))
        else:
            boxes[image].append(Mark(_corners(entry.get("bbox")), categories[category], bool(entry.get("iscrowd"))))
    place = _Places(path, root, split)
    merged: dict[str, Record] = {}
    files = {}
    for entry in data["images"]:
        name = str(entry["file_name"]).replace("\\", "/")
        image = files[entry["id"]] = place.of(name)
        width, height = (entry.get(side) for side in ("width", "height"))
        said = (
            (width, height) if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0 else None
        )
        marks = Marks(tuple(boxes[entry["id"]]), said)
        if other := merged.get(image):
            notes.append(Note(image, "twice", f"{path.name} lists it twice; the boxes of both entries count"))
            merged[image] = replace(other, marks=replace(marks, boxes=_marks(other).boxes + marks.boxes))
        else:
            merged[image] = Record(image, "", split, normal(name), marks)
    notes += [Note(files[image], "unknown", text) for text, image in lost]
    yield from merged.values()


def _corners(box: Any) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of x, y, width, height; not numbers where there is no box."""
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError):
        return math.nan, math.nan, math.nan, math.nan
    return x, y, x + width, y + height


class _Places:
    """Where the images of a JSON file lie: in its folder, images, data or the split's folder there, or above."""

    def __init__(self, path: Path, root: Path, split: str) -> None:
        bases = dict.fromkeys((path.parent, root, path.parent.parent))
        near = [base / name for base in bases for name in _IMAGE_FOLDERS if (base / name).is_dir()]
        splits = [sub for base in near for name, sub in subfolders(base).items() if split_of(name) == split]
        below = [folder / "images" for folder in splits if (folder / "images").is_dir()]
        self.folders = [os.path.abspath(folder) for folder in (*near, *splits, *below)]

    def of(self, name: str) -> str:
        """The path of an image; where there is none, the first that it could have."""
        for wanted in dict.fromkeys((name, name.rpartition("/")[2])):
            for index, folder in enumerate(self.folders):
                if os.path.isfile(path := os.path.join(folder, wanted)):
                    self.folders.insert(0, self.folders.pop(index))  # the others will be there too
                    return os.path.normpath(path)
        return os.path.normpath(os.path.join(self.folders[0], name))
