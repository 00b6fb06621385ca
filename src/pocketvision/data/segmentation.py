"""Segmentation sets: what the masks hold, fitted to their images."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from .boxes import Note
from .detection import grouped
from .image import orientation
from .layouts import Found, Record
from .mask_classes import shown_colour
from .masks import IN_COLOURS, VOID, Legend, Mask, Seen, look_at_mask

THREADS = min(16, 2 * (os.cpu_count() or 1))
_TRIED = 20  # masks that tell whether values are colours
_SHOWN = 8  # values or colours that a message lists
_SMOOTHED, _MANY = 0.9, 16  # share of 0 and 255 and number of other values, from where these are smoothed edges
_FOREGROUND, _FULL = ("background", "foreground"), 255
_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_WORDS = {
    "alone": "{} without an image",
    "unlisted": "{} with values that no class has (void)",
    "turned": "{} turned as EXIF turns the image",
}


def fit_masks(
    found: Found, records: Sequence[Record], sizes: Mapping[str, tuple[int, int]]
) -> tuple[Found, list[tuple[str, str]], dict[str, np.ndarray]]:
    """What was found with those of ``records`` whose masks fit their images, of ``sizes`` (width, height); images whose
    masks cannot be used, each with the reason; and by image how many pixels each class has and at last how many are
    void, int64 [classes + 1].

    Without a class file, the values in train's masks are the classes: 255 is void, but of masks with 0 and 255 only it
    is the foreground. The ``label`` of a record becomes its rarest class, for a split that is drawn. Raises DataError
    where no mask can be used, and for less than two classes.
    """
    legend = found.legend
    colours = legend is not None and legend.colours and _in_colours(legend, records)
    if legend and legend.colours and not colours:
        legend = replace(legend, values=tuple(range(len(legend.names))), void=frozenset(), colours=False)
    with ThreadPoolExecutor(THREADS) as threads:
        looks = list(threads.map(lambda record: look_at_mask(record.mask_file, colours), records))
    seen, unfit = list[tuple[Record, Seen]](), list[tuple[str, str]]()
    for record, look in zip(records, looks, strict=True):
        if isinstance(look, Seen):
            seen.append((record, look))
        else:
            unfit.append((record.image, f"its mask {record.mask_file}: {look}"))
    of_train = Counter[int]()
    for record, look in seen:
        if record.split == "train":
            of_train.update(look.counts)
    if not of_train:
        raise _no_masks(found, unfit, records)
    legend = _legend(found, legend, of_train)
    fitted, notes, areas = list[Record](), list(found.notes), dict[str, np.ndarray]()
    for record, look in seen:
        turn, unlisted = _turn(record, look.size, sizes[record.image]), _unlisted(legend, look)
        area = _areas(legend, look)
        if isinstance(turn, str):
            unfit.append((record.image, turn))
        elif not area[:-1].any():
            why = f" ({unlisted}, which no class has)" if unlisted else ""
            unfit.append((record.image, f"its mask {record.mask_file}: all of it is void{why}"))
        else:
            if turn != 1:
                notes.append(Note(record.image, "turned", "its mask is for the image as stored, before EXIF turns it"))
            if unlisted:
                notes.append(Note(record.image, "unlisted", unlisted))
            mask = Mask(record.mask_file, legend.values, sizes[record.image], legend.colours, turn)
            fitted.append(replace(record, mask=mask))
            areas[record.image] = area
    if not any(record.split == "train" for record in fitted):
        raise _no_masks(found, unfit, records)
    present = [frozenset(areas[record.image][:-1].nonzero()[0].tolist()) for record in fitted]
    labelled = tuple(replace(r, label=label) for r, label in zip(fitted, grouped(present), strict=True))
    found = replace(found, classes=legend.names, legend=legend, records=labelled, notes=tuple(notes))
    return found, unfit, areas


def mask_words(notes: Iterable[Note]) -> str:
    """How many masks of each kind, in one clause."""
    counts = Counter(note.kind for note in notes)
    named = {kind: f"{n} mask" if n == 1 else f"{n} masks" for kind, n in counts.items()}
    return ", ".join(words.format(named[kind]) for kind, words in _WORDS.items() if kind in named)


def _legend(found: Found, legend: Legend | None, of_train: Counter[int]) -> Legend:
    """The classes, by their file or by the values in train's masks."""
    values = set(of_train)
    binary = values == {0, _FULL}
    if legend and not (binary and legend.values == (0, 1) and not legend.void):
        return legend
    if binary:
        names = legend.names if legend else _FOREGROUND
        return Legend("classes: 0, and 255 as the foreground", names, (0, _FULL), frozenset())
    smooth = (of_train[0] + of_train[_FULL]) / of_train.total() > _SMOOTHED and min(of_train[0], of_train[_FULL]) > 0
    if (len(values) > _MANY and smooth) or len(values - {VOID}) > VOID:
        what = "0 and 255 with all values between: their edges are smoothed" if smooth else f"{len(values)} values"
        raise DataError(
            f"{found.path}: {found.layout}: they have {what}, so their classes cannot be told; save them with one "
            "value for each class, or list the classes in classes.txt (line 1: value 0) to take the rest for void"
        )
    known = tuple(sorted(values - {VOID}))
    place = Path(found.records[0].mask_file).parent.parent
    if place.name.lower().startswith("voc") and values < {
        *range(len(_VOC)),
        VOID,
    }:
        return Legend("VOC's classes", _VOC, tuple(range(len(_VOC))), frozenset())
    if len(known) < 2:
        raise DataError(
            f"{found.path}: {found.layout}: all of train's masks have only the value {', '.join(map(str, values))}; "
            "2 classes are needed, background is one of them"
        )
    return Legend("classes named by their values", tuple(map(str, known)), known, frozenset())


def _in_colours(legend: Legend, records: Sequence[Record]) -> bool:
    """Whether masks are in a legend's colours; otherwise their values are the numbers of its lines."""
    shares = []
    for colours, values in ((True, set(legend.values)), (False, set(range(len(legend.names))))):
        looks = [look_at_mask(record.mask_file, colours) for record in records[:_TRIED]]
        found = {value for look in looks if isinstance(look, Seen) for value in look.counts}
        shares.append(len(found & values))
    return shares[0] >= shares[1]


def _turn(record: Record, of_mask: tuple[int, int], of_image: tuple[int, int]) -> int | str:
    """EXIF's orientation by which a mask is to be turned, or why it does not fit its image."""
    if of_mask == of_image:
        return 1
    if of_mask == of_image[::-1] and (turn := orientation(record.image)) >= 5:
        return turn
    (width, height), (other_width, other_height) = of_mask, of_image
    return f"its mask {record.mask_file} has {width} x {height} pixels, the image {other_width} x {other_height}"


def _areas(legend: Legend, look: Seen) -> np.ndarray:
    area = [look.counts.get(value, 0) for value in legend.values]
    return np.array([*area, sum(look.counts.values()) - sum(area)], np.int64)


def _unlisted(legend: Legend, look: Seen) -> str:
    """Which values of a mask are neither a class nor known as void."""
    known = {*legend.values, *legend.void} | (set() if legend.colours else {VOID})
    unlisted = {value: count for value, count in look.counts.items() if value not in known}
    if not unlisted:
        return ""
    shown = _shown_values(unlisted, legend.colours)
    return f"{sum(unlisted.values()):,} pixels of {'colour' if legend.colours else 'value'} {shown}"


def _shown_values(counts: Mapping[int, int], colours: bool) -> str:
    """The most frequent values."""
    most = sorted(counts, key=lambda value: -counts[value])[:_SHOWN]
    more = [f"{len(counts) - _SHOWN} more"] * (len(counts) > _SHOWN)
    return (" ; " if colours else ", ").join([shown_colour(v) if colours else str(v) for v in most] + more)


def _no_masks(found: Found, unfit: Sequence[tuple[str, str]], records: Sequence[Record]) -> DataError:
    """What to do where no mask can be used."""
    where = f"{found.path}: {found.layout}"
    if not unfit:
        return DataError(f"{where}: no readable images in train that have a mask")
    image, why = unfit[0]
    if why.endswith(IN_COLOURS):
        looks = (look_at_mask(record.mask_file, True) for record in records[:_TRIED])
        counts = sum((Counter(look.counts) for look in looks if isinstance(look, Seen)), Counter[int]())
        return DataError(
            f"{where}: they are in colours, and no file says what these mean; add {found.path / 'class_dict.csv'} with "
            f"the line name,r,g,b and one for each class (void is a name too). Found: {_shown_values(counts, True)}"
        )
    return DataError(f"{where}: none of the {len(unfit)} masks can be used, for example {image}: {why}")
