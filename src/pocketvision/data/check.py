"""What the images of a data set alone tell: what may spoil training or flatter the accuracy."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from ..errors import DataError
from . import samples
from .boxes import Boxes, Note
from .detection import words
from .duplicates import grouped
from .finding import Finding, listed_names, noun
from .image import read_image
from .layouts import SPLITS
from .mask_check import areas_of, check_masks, void_share
from .sources import Dataset, Item

_FEW_IMAGES = 20
_IMBALANCE = 10
_TINY = 4  # times smaller than the median
LEAK_SHARE = 0.005  # of a split: a smaller leak moves its accuracy by less than half a point
_THREADS = min(16, 2 * (os.cpu_count() or 1))
_INPUT = 320  # pixels a side: a detector's usual input
_SMALL, _MANY_SMALL = 8, 0.05  # pixels a side; share of the boxes


def class_counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Images, or boxes that are not ignored, per split and class: ``class_counts(dataset)["train"]["cat"]``; of masks
    the images that have a pixel of the class."""
    if dataset.task == "segment":
        areas = areas_of(dataset)
        has = {split: [areas[item.image][:-1] > 0 for item in getattr(dataset, split)] for split in SPLITS}
        return {
            split: {name: sum(bool(one[index]) for one in of_split) for index, name in enumerate(dataset.classes)}
            for split, of_split in has.items()
        }
    return {
        split: dict.fromkeys(dataset.classes, 0)
        | Counter(dataset.classes[label] for item in getattr(dataset, split) for label in _labels(item))
        for split in SPLITS
    }


def _labels(item: Item) -> list[int]:
    """The label of an image, or those of its boxes that are not ignored."""
    if item.boxes is None:
        return [item.label]
    return [label for label, ignored in zip(item.boxes.labels, item.boxes.ignored, strict=True) if not ignored]


def check_dataset(dataset: Dataset) -> tuple[Finding, ...]:
    """All findings: counts, unreadable and tiny images, mended and small boxes, unequal classes, copies, leaks.

    Decodes nothing: copies that are not the same file are found where the data set was opened with a look at its
    images. A leak is an error where it concerns 0.5% of a split or more.
    """
    return (
        *_counts(dataset), *_unreadable(dataset), *_boxes(dataset), *check_masks(dataset), *_tiny(dataset),
        *_class_sizes(dataset), *_copies(dataset),
    )  # fmt: skip


def refuse_leaks(dataset: Dataset, findings: Iterable[Finding]) -> None:
    """Raise DataError when a split leaks into another so much that its accuracy would mean little."""
    for finding in findings:
        if finding.kind == "leak" and finding.severity == "error":
            first, second, *_ = finding.groups[0]
            raise DataError(
                f"{dataset.name}: {finding.text}; for example {first} and {second}; {finding.fix}; see all with "
                "`pocketvision data`, or go on all the same with --allow-leak"
            )


def _counts(dataset: Dataset) -> list[Finding]:
    counts = {split: len(getattr(dataset, split)) for split in SPLITS}
    images = ", ".join(f"{count} {split}" for split, count in counts.items() if count)
    text = f"{len(dataset.classes)} classes; images: {images}"
    if dataset.task == "detect":
        boxes = {split: sum(counts.values()) for split, counts in class_counts(dataset).items()}
        text += "; boxes: " + ", ".join(f"{count} {split}" for split, count in boxes.items() if counts[split])
    if dataset.task == "segment":
        text += f"; {void_share(dataset):.1%} of all pixels are void"
    return [Finding("info", "counts", text)]


def _unreadable(dataset: Dataset) -> list[Finding]:
    if not dataset.skipped:
        return []
    images = tuple((skipped.image,) for skipped in dataset.skipped)
    first = dataset.skipped[0]
    text = f"{len(images)} skipped, for example {first.image}: {first.reason}"
    return [Finding("warning", "unreadable", text, "replace or remove them", images)]


def _tiny(dataset: Dataset) -> list[Finding]:
    if dataset.looks is None:
        return []
    short = dataset.looks.sizes.min(axis=1)
    median = int(sorted(short.tolist())[len(short) // 2])
    tiny = [(dataset.looks.images[index],) for index in (short < median / _TINY).nonzero()[0]]
    if not tiny:
        return []
    count, limit = f"{len(tiny)} tiny {noun(len(tiny), 'image')}", -(-median // _TINY)
    text = f"{count}: the short side is below {limit} pixels, half of all have {median}"
    return [
        Finding("warning", "tiny", text, "replace them by larger ones, or remove thumbnails and icons", tuple(tiny))
    ]


def _boxes(dataset: Dataset) -> list[Finding]:
    """What was done to boxes, one finding of each kind; boxes too small for a detector; images without any."""
    findings, kinds = list[Finding](), defaultdict[str, list[Note]](list)
    for note in dataset.notes if dataset.task == "detect" else ():
        kinds[note.kind].append(note)
    for notes in kinds.values():
        text = f"{words(notes)}, for example in {notes[0].image}: {notes[0].text}"
        groups = tuple((image,) for image in dict.fromkeys(note.image for note in notes))
        findings.append(Finding("warning", "boxes", text, "look whether the annotations are right", groups))
    sides = {item.image: _sides(item.boxes) for item in dataset.train if item.boxes}
    small = {image: sum(side < _SMALL for side in of) for image, of in sides.items()}
    if count := sum(small.values()):
        share = count / sum(map(len, sides.values()))
        text = (
            f"{count} training boxes ({share:.1%}) have a side below {_SMALL} pixels at an input of {_INPUT} x {_INPUT}"
        )
        groups = tuple((image,) for image in sorted(small, key=lambda image: -small[image]) if small[image])
        fix = "they are hard to find: train with a larger --imgsz, or cut the images into tiles"
        findings.append(Finding("warning" if share >= _MANY_SMALL else "info", "small", text, fix, groups))
    if empty := sum(not item.boxes.labels for item in dataset.train if item.boxes):
        text = f"{empty} of {len(dataset.train)} training images have no boxes: they are learned as background"
        findings.append(Finding("info", "background", text, "check that nothing was forgotten in them"))
    return findings


def _sides(boxes: Boxes) -> list[float]:
    """The shorter side of each box that is not ignored, in pixels of a detector's usual input."""
    x, y = (_INPUT / side for side in boxes.size)
    pairs = zip(boxes.corners, boxes.ignored, strict=True)
    return [min((x2 - x1) * x, (y2 - y1) * y) for (x1, y1, x2, y2), ignored in pairs if not ignored]


def _class_sizes(dataset: Dataset) -> list[Finding]:
    counts, what = class_counts(dataset), "boxes" if dataset.task == "detect" else "images"
    train, findings = counts["train"], list[Finding]()
    if few := [f"{name!r} ({count})" for name, count in train.items() if count < _FEW_IMAGES]:
        text = f"fewer than {_FEW_IMAGES} training {what}: {listed_names(few)}"
        findings.append(Finding("warning", "few", text, "add some, or the class will be learned poorly"))
    if dataset.task == "segment":  # whose pixels tell
        return findings + _absent(counts["val"], what)
    most, least = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
    if train[most] > _IMBALANCE * train[least]:
        text = f"unequal classes: {most!r} has {train[most]} training {what}, {least!r} {train[least]}"
        fix = "look at the accuracy of each class, not only at the mean"
        findings.append(Finding("warning", "unequal", text, fix))
    return findings + _absent(counts["val"], what)


def _absent(val: dict[str, int], what: str) -> list[Finding]:
    absent = [repr(name) for name, count in val.items() if not count]
    if not absent:
        return []
    text = f"no validation {what}, so unknown accuracy: {listed_names(absent)}"
    return [Finding("warning", "absent", text, "add images that are not of one burst")]


def _copies(dataset: Dataset) -> list[Finding]:
    placed = [(split, item) for split in SPLITS for item in getattr(dataset, split)]
    files, groups = _copy_groups(placed, dataset)
    findings = [_leak(dataset, groups, files, *splits) for splits in (("train", "val"), ("train", "test"))]
    findings.append(_leak(dataset, groups, files, "val", "test"))
    contradicting = [group for group in groups if len({item.label for _, item in group}) > 1]
    if contradicting:
        text = f"{_pictures(contradicting)} with two different labels"
        findings.append(Finding("error", "contradiction", text, "keep the right one", _images(contradicting)))
    trained = ([place for place in group if place[0] == "train"] for group in groups if group not in contradicting)
    repeated = [group for group in trained if len(group) > 1]
    if repeated:
        text = f"{_pictures(repeated)} more than once in train"
        findings.append(Finding("info", "copies", text, "remove the copies", _images(repeated)))
    return [finding for finding in findings if finding]


_Group = list[tuple[str, Item]]  # copies of one picture, each with its split


def _leak(dataset: Dataset, groups: list[_Group], files: dict[str, bytes], source: str, split: str) -> Finding | None:
    """The images of ``split`` that have a copy in ``source``, paired with one."""
    pairs, same_file = list[tuple[str, str]](), 0
    for group in groups:
        sources = [item.image for where, item in group if where == source]
        for image in (item.image for where, item in group if where == split and sources):
            twin = next((s for s in sources if image in files and files.get(s) == files[image]), None)
            pairs.append((twin or sources[0], image))
            same_file += twin is not None
    if not pairs:
        return None
    share = len(pairs) / len(getattr(dataset, split))
    others = len(pairs) - same_file
    how = [f"{same_file} as the same file"] * (same_file > 0) + [f"{others} encoded again, resized or mirrored"] * (
        others > 0
    )
    text = f"{len(pairs)} of the {split} images ({share:.1%}) are also in {source} ({', '.join(how)})"
    fix = "remove one copy of each"
    if dataset.task == "classify":
        fix += f", or put all images into one folder of class folders and let {split} be drawn"
    if source == "val":
        return Finding("warning", "leak", text, "remove one copy of each", tuple(pairs))
    severity = "error" if share >= LEAK_SHARE else "warning"
    return Finding(severity, "leak", f"{text}, so its accuracy is flattered", fix, tuple(pairs))


def _copy_groups(placed: _Group, dataset: Dataset) -> tuple[dict[str, bytes], list[_Group]]:
    """The digests of files that are equal to another one, and all groups of images that show one picture."""
    with ThreadPoolExecutor(_THREADS) as threads:
        sizes = list(threads.map(lambda place: _size(place[1].image), placed))
        suspects = [index for group in _alike(enumerate(sizes)) for index in group]
        digests = list(threads.map(lambda index: _digest(placed[index][1].image), suspects))
    equal = _alike(zip(suspects, digests, strict=True))
    links = [link for group in equal for link in pairwise(group)]
    if dataset.looks is not None:
        where = {item.image: index for index, (_, item) in enumerate(placed)}
        images, pairs = dataset.looks.images, dataset.looks.pairs
        same = ((images[a], images[b]) for a, b in zip(pairs.first, pairs.second, strict=True))
        links += [(where[a], where[b]) for a, b in same if a in where and b in where]
    members: dict[int, _Group] = defaultdict(list)
    for place, group in zip(placed, grouped(len(placed), links).tolist(), strict=True):
        members[group].append(place)
    in_groups = {index for group in equal for index in group}
    files = {placed[i][1].image: d for i, d in zip(suspects, digests, strict=True) if d is not None and i in in_groups}
    return files, [group for group in members.values() if len(group) > 1]


def _alike(keyed: Iterable[tuple[int, object]]) -> list[list[int]]:
    """The indices with an equal key, where there are several; None is no key."""
    groups: dict[object, list[int]] = defaultdict(list)
    for index, key in keyed:
        if key is not None:
            groups[key].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _size(image: str) -> int | None:
    if image.startswith(samples.PREFIX):
        return 0
    try:
        return os.stat(image).st_size
    except OSError:  # removed meanwhile: whoever reads it will say so
        return None


def _digest(image: str) -> bytes | None:
    if image.startswith(samples.PREFIX):
        return hashlib.sha256(read_image(image).tobytes()).digest()
    try:
        with open(image, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def _images(groups: list[_Group]) -> tuple[tuple[str, ...], ...]:
    return tuple(sorted(tuple(sorted(item.image for _, item in group)) for group in groups))


def _pictures(groups: list[_Group]) -> str:
    return "1 picture occurs" if len(groups) == 1 else f"{len(groups)} pictures occur"
