"""YOLO's text: for each image a file of lines ``class x y width height``, and ``data.yaml`` with names and folders."""

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .boxes import Mark, Marks, Note
from .layouts import SPLIT_NAMES, SPLITS, Found, Record, images_below, label_name, normal, split_of, subfolders

_NAMES = ("classes.txt", "obj.names", "labels.txt")
_FARTHEST = 2  # shares of a side: what is beyond is no share, but pixels
_EXPECTED = "expected are `names:` (a list of classes) and `train:` (a folder of images, images/train)"


class _Broken(Exception):
    """A file of boxes that cannot be read; the text says where and why."""


def find_yolo(root: Path) -> Path | None:
    """The YAML file of a data set; ``root`` itself where there is none but images and labels lie as YOLO has them.

    Raises DataError for several such files.
    """
    files = [
        path for path in sorted(root.iterdir()) if path.suffix.lower() in {".yaml", ".yml"} and _names_images(path)
    ]
    if len(files) > 1:
        both = " and ".join(path.name for path in files[:2])
        raise DataError(f"{root}: {both} both describe a data set; give one of them as the data")
    if files:
        return files[0]
    folders = subfolders(root)
    for pair in [folders, *(subfolders(folder) for name, folder in folders.items() if split_of(name))]:
        lower = {name.lower(): folder for name, folder in pair.items()}
        if {"images", "labels"} <= lower.keys() and not any(images_below(lower["labels"], set())):  # those are masks
            return root
    return None


def read_yolo(path: Path) -> Found:
    """The images and boxes that a YAML file describes, or those in images and labels of a folder.

    The boxes of images/x.jpg are in labels/x.txt, or beside it; an image without such a file has no boxes. A line with
    more than two points is an outline, whose box counts. Raises DataError for what is no such data set.
    """
    root = path if path.is_dir() else path.parent
    names, places = _found_folders(root) if path.is_dir() else _described(path)
    records, skipped, notes = list[Record](), list[tuple[str, str]](), list[Note]()
    for split, images in places.items():
        for image in dict.fromkeys(images):
            labels = _labels_file(image)
            try:
                marks = tuple(_marks(image, labels, names, notes)) if labels else ()
            except _Broken as error:
                skipped.append((image, f"its labels are broken: {labels}: {error}"))
                continue
            key = normal(os.path.relpath(image, root).replace(os.sep, "/"))
            records.append(Record(image, "", split, key, Marks(marks, None, shares=True)))
    if not records:
        why = (
            f"all {len(skipped)} are broken, for example {skipped[0][0]}: {skipped[0][1]}" if skipped else "none found"
        )
        raise DataError(f"{path}: no images with YOLO labels ({why}); {_EXPECTED}")
    if names is None:
        used = {mark.label for r in records if r.split == "train" and r.marks for mark in r.marks.boxes}
        names = {int(name): name for name in used}
    layout = "YOLO text" + ("" if path.is_dir() else f" ({path.name})")
    classes = tuple(name for _, name in sorted(names.items()))
    return Found(root, layout, classes, tuple(places), tuple(records), tuple(skipped), tuple(notes), "detect")


def _names_images(path: Path) -> bool:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return all(any(line.startswith(key) for line in lines) for key in ("names:", "train:"))


def _described(path: Path) -> tuple[dict[int, str], dict[str, list[str]]]:
    """Class names by number and the images of each split, as a YAML file says."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not YAML ({reason}); {_EXPECTED}") from None
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(isinstance(number, int) for number in names):
        raise DataError(f"{path}: no names of classes in it; {_EXPECTED}")
    if not data.get("train"):
        raise DataError(f"{path}: no folder of training images in it; {_EXPECTED}")
    if isinstance(data.get("nc"), int) and data["nc"] != len(names):
        raise DataError(f"{path}: nc is {data['nc']}, but there are {len(names)} names; correct one of them")
    classes = {number: label_name(str(name), str(path)) for number, name in names.items()}
    if len(set(classes.values())) < len(classes):
        raise DataError(f"{path}: two classes have the same name; rename one")
    bases = dict.fromkeys((path.parent / str(data.get("path") or ""), path.parent))
    places = dict[str, list[str]]()
    for name, value in data.items():
        split = SPLIT_NAMES.get(str(name).lower())
        if split and value:
            try:
                listed = [_listed(path, list(bases), str(v)) for v in (value if isinstance(value, list) else [value])]
                places[split] = [image for images in listed for image in images]
            except FileNotFoundError:
                if split != "test":  # exporters name one even where there is none
                    fix = "correct the path" + (
                        ", or remove the line and some of train is taken" if split == "val" else ""
                    )
                    raise DataError(f"{path}: {name}: there is no {value}; {fix}") from None
    return classes, {split: places[split] for split in SPLITS if split in places}


def _listed(path: Path, bases: list[Path], value: str) -> list[str]:
    """The images in a folder, or in a text file that lists them. Raises FileNotFoundError."""
    value = value.replace("\\", "/")
    tries = [base / name for name in (value, value.removeprefix("../")) for base in bases]
    place = next((place for place in tries if place.exists()), None)
    if place is None:
        raise FileNotFoundError
    if place.is_dir():
        return list(images_below(Path(os.path.abspath(place)), set()))
    if place.suffix.lower() != ".txt":
        raise DataError(f"{path}: {value} is neither a folder nor a text file that lists images")
    lines = [line.strip().replace("\\", "/") for line in place.read_text(encoding="utf-8").splitlines()]
    found = []
    for line in filter(None, lines):
        tries = [base / line for base in (place.parent, *bases)]
        found.append(os.path.abspath(next((image for image in tries if image.exists()), tries[0])))
    return found


def _found_folders(root: Path) -> tuple[dict[int, str] | None, dict[str, list[str]]]:
    """Class names by number, None where no file has them, and the images of each split, without a YAML file."""
    places = dict[str, list[str]]()
    images = root / "images"
    by_split = (
        {split: folder for name, folder in subfolders(images).items() if (split := split_of(name))}
        if images.is_dir()
        else {}
    )
    by_split |= {
        split: f / "images"
        for name, f in subfolders(root).items()
        if (split := split_of(name)) and (f / "images").is_dir()
    }
    for split, folder in by_split.items() if "train" in by_split else [("train", images)]:
        places[split] = list(images_below(folder, set())) if folder.is_dir() else []
    files = (
        folder / name for folder in (root, root / "labels", root / "train", root / "train/labels") for name in _NAMES
    )
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None, {split: places[split] for split in SPLITS if split in places}
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    names = {number: label_name(name, str(file)) for number, name in enumerate(filter(None, lines))}
    return names, {split: places[split] for split in SPLITS if split in places}


def _labels_file(image: str) -> Path | None:
    """Where an image's boxes are: images/a/x.jpg has labels/a/x.txt, or x.txt beside it; None: it has none."""
    path = Path(image).with_suffix(".txt")
    parts = list(path.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index].lower() == "images":
            other = Path(*parts[:index], "labels", *parts[index + 1 :])
            if other.is_file():
                return other
            break
    return path if path.is_file() else None


def _marks(image: str, labels: Path, names: dict[int, str] | None, notes: list[Note]) -> Iterator[Mark]:
    """The boxes of one file, in shares of the sides. Raises _Broken."""
    try:
        lines = labels.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise _Broken(f"it cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise _Broken("it is not text") from None
    for number, line in enumerate(lines, 1):
        values = _values(line, number)
        if not values:
            continue
        category, x, y, width, height, *_ = values
        if names is not None and category not in names:
            notes.append(Note(image, "unknown", f"line {number} has the class {category:g}, which has no name"))
            continue
        label = names[int(category)] if names is not None else str(int(category))
        if len(values) > 5:
            xs, ys = values[1::2], values[2::2]
            yield Mark((min(xs), min(ys), max(xs), max(ys)), label)
        else:
            yield Mark((x - width / 2, y - height / 2, x + width / 2, y + height / 2), label)


def _values(line: str, number: int) -> list[float]:
    """The numbers of a line, at least five; none where it is empty. Raises _Broken."""
    try:
        values = [float(value) for value in line.split()]
    except ValueError:
        raise _Broken(f"line {number} has something that is no number: {line[:60]!r}") from None
    if values and (len(values) < 5 or len(values) % 2 == 0):
        raise _Broken(f"line {number} has {len(values)} numbers; expected are 5: class x y width height")
    if values and not values[0].is_integer():
        raise _Broken(f"line {number} has the class {values[0]:g}, which is no whole number")
    if any(abs(value) > _FARTHEST for value in values[1:]):
        raise _Broken(f"line {number} is not in shares of the sides, 0 to 1")
    return values
