"""Detection sets: which format lies there, and its boxes fitted to the images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import DataError, nearest
from .boxes import Boxes, Mark, Note, checked, fit
from .coco import find_coco, read_coco
from .image import orientation
from .layouts import Found, Record, images_below, subfolders
from .voc import find_voc, read_voc
from .yolo import find_yolo, read_yolo

_FEW = 5  # images whose rarest class is one, from which that class has a share of its own in a split that is drawn
_WORDS = {
    "clipped": "clipped at the edge of the image",
    "outside": "dropped as outside the image",
    "empty": "dropped as empty",
    "inverted": "dropped as inverted",
    "nan": "dropped as not a number",
    "repeated": "dropped as a repetition",
    "unknown": "dropped without a known image or class",
    "scaled": "scaled to the image's size",
    "turned": "turned as EXIF turns the image",
    "twice": "listed twice",
}
IMAGE_KINDS = ("scaled", "turned", "twice")


def find_boxes(path: Path) -> Found | None:
    """The detection set in a folder or of a file, None where there is none. Raises DataError for a damaged one.

    COCO's JSON counts before VOC's XML, and that before YOLO's text; annotations count before class folders. What is
    there and does not count, the layout says.
    """
    if not path.is_dir():
        reader = {".json": _read_json, ".yaml": read_yolo, ".yml": read_yolo}.get(path.suffix.lower())
        return reader(path) if reader else None
    (coco, predicted), voc, yolo = find_coco(path), find_voc(path), None
    if coco:
        found, others = read_coco(path, coco), ["VOC XML"] * bool(voc)
    elif voc:
        found, others = read_voc(path, voc), []
    elif yolo := find_yolo(path):
        found, others = read_yolo(yolo), []
    else:
        return None
    others += [f"{file.relative_to(path).as_posix()}, which holds predictions," for file in predicted]
    used = {record.image for record in found.records} | {image for image, _ in found.skipped}
    others += [f"images in {name}" for name, folder in subfolders(path).items() if _unused(folder, used)]
    return replace(found, layout=found.layout + (f" ({', '.join(others)} not used)" if others else ""))


def _read_json(path: Path) -> Found:
    return read_coco(path.parent, {"train": path})


def _unused(folder: Path, used: set[str]) -> bool:
    """Whether a folder has images, but none that a data set uses."""
    images = list(images_below(folder, set()))
    return bool(images) and used.isdisjoint(images)


def fit_boxes(
    found: Found, records: tuple[Record, ...], sizes: Mapping[str, tuple[int, int]]
) -> tuple[tuple[Record, ...], list[tuple[str, str]], tuple[Note, ...]]:
    """Records with ``boxes`` within their images, whose ``sizes`` (width, height) are known; images with annotations
    that do not fit, each with the reason; and what happened to boxes.

    The ``label`` of a record becomes its rarest class, for a split that is drawn. Raises DataError for a class that
    train does not have.
    """
    labels = {name: index for index, name in enumerate(found.classes)}
    fitted, unfit, notes = list[Record](), list[tuple[str, str]](), list(found.notes)
    for record in records:
        assert record.marks is not None
        size = sizes[record.image]
        turned = record.marks.size is not None and record.marks.size != size
        result = fit(record.marks, size, orientation(record.image) if turned else 1)
        if isinstance(result, str):
            unfit.append((record.image, result))
            continue
        marks, how = result
        if how and marks:
            width, height = record.marks.size or size
            notes.append(Note(record.image, how, f"boxes {_WORDS[how]}, from {width} x {height} pixels"))
        boxes = dict[Mark, None]()
        for number, mark in enumerate(marks, 1):
            if mark.label not in labels:
                hint = nearest(mark.label, found.classes)
                raise DataError(
                    f"{found.path}: {record.image} has a box of {mark.label!r}, a class that train has not ({hint}); "
                    "rename it, or add images of it to train"
                )
            kept, kind = checked(mark, size)
            if kept in boxes:
                kept, kind = None, "repeated"
            if kept:
                boxes[kept] = None
            if kind:
                corners = ", ".join(f"{value:g}" for value in mark.corners)
                notes.append(Note(record.image, kind, f"box {number} ({mark.label}; {corners}) {_WORDS[kind]}"))
        corners = tuple(box.corners for box in boxes)
        numbers = tuple(labels[box.label] for box in boxes)
        fitted.append(replace(record, boxes=Boxes(size, corners, numbers, tuple(box.ignored for box in boxes))))
    of_train = [record.boxes for record in fitted if record.boxes and record.split == "train"]
    if not any(boxes.counted for boxes in of_train):
        all_ignored = "all are crowds or difficult ones, which are ignored" if any(b.labels for b in of_train) else ""
        what = all_ignored or words(notes) or (unfit[0][1] if unfit else "none is listed")
        raise DataError(f"{found.path}: {found.layout}: no boxes to train on ({what}); mend the annotations")
    present = [frozenset(record.boxes.labels) if record.boxes else frozenset() for record in fitted]
    labelled = tuple(replace(r, label=label) for r, label in zip(fitted, grouped(present), strict=True))
    return labelled, unfit, tuple(notes)


def words(notes: Sequence[Note]) -> str:
    """How many boxes and images of each kind, in one clause."""
    counts = Counter(note.kind for note in notes)
    parts = []
    for kind, text in _WORDS.items():
        if count := counts[kind]:
            thing = "image" if kind in IMAGE_KINDS else "box"
            plural = {"image": "images", "box": "boxes"}[thing] if count > 1 else thing
            parts.append(f"{count} {plural} {text}")
    return ", ".join(parts)


def grouped(present: Sequence[frozenset[int]]) -> list[str]:
    """For each image its rarest class, of those ``present`` in it; those of too few images, and none, share one ""."""
    counts = Counter(label for labels in present for label in labels)
    rarest = [min(labels, key=lambda label: (counts[label], label)) if labels else -1 for labels in present]
    sizes = Counter(rarest)
    return [str(label) if sizes[label] >= _FEW else "" for label in rarest]
