"""The dataset doctor: what may spoil training or flatter the accuracy."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from . import samples
from .image import read_image
from .layouts import SPLITS
from .sources import Dataset, Item

Severity = Literal["info", "warning", "error"]
_FEW_IMAGES = 20
_IMBALANCE = 10
_THREADS = min(16, 2 * (os.cpu_count() or 1))
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a data set; ``images`` are the files that it is about."""

    severity: Severity
    text: str
    images: tuple[str, ...] = ()


def class_counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Images per split and class: ``class_counts(dataset)["train"]["cat"]``."""
    return {
        split: dict.fromkeys(dataset.classes, 0)
        | Counter(dataset.classes[item.label] for item in getattr(dataset, split))
        for split in SPLITS
    }


def check_dataset(dataset: Dataset) -> tuple[Finding, ...]:
    """All findings: counts, skipped images, small and unequal classes, identical files.

    Reads only files of equal size (to compare their SHA-256), and decodes nothing.
    """
    return (*_counts(dataset), *_skipped(dataset), *_class_sizes(dataset), *_identical(dataset))


def _counts(dataset: Dataset) -> list[Finding]:
    counts = {split: len(getattr(dataset, split)) for split in SPLITS}
    images = ", ".join(f"{count} {split}" for split, count in counts.items() if count)
    return [Finding("info", f"{len(dataset.classes)} classes; images: {images}")]


def _skipped(dataset: Dataset) -> list[Finding]:
    if not dataset.skipped:
        return []
    images = tuple(skipped.image for skipped in dataset.skipped)
    first = dataset.skipped[0]
    return [Finding("warning", f"{len(images)} skipped, for example {first.image}: {first.reason}", images)]


def _class_sizes(dataset: Dataset) -> list[Finding]:
    counts = class_counts(dataset)
    train, findings = counts["train"], list[Finding]()
    if few := [f"{name!r} ({count})" for name, count in train.items() if count < _FEW_IMAGES]:
        text = (
            f"fewer than {_FEW_IMAGES} training images: {_listed(few)}; add some, or the class will be learned poorly"
        )
        findings.append(Finding("warning", text))
    most, least = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
    if train[most] > _IMBALANCE * train[least]:
        findings.append(
            Finding(
                "warning",
                f"unequal classes: {most!r} has {train[most]} training images, {least!r} {train[least]}; "
                "look at the accuracy of each class, not only at the mean",
            )
        )
    if absent := [repr(name) for name, count in counts["val"].items() if not count]:
        findings.append(Finding("warning", f"no validation images, so unknown accuracy: {_listed(absent)}"))
    return findings


def _identical(dataset: Dataset) -> list[Finding]:
    groups = _identical_groups([(split, item) for split in SPLITS for item in getattr(dataset, split)])
    findings: list[Finding] = []
    for split in ("val", "test"):
        leaked = [group for group in groups if {"train", split} <= {where for where, _ in group}]
        if leaked:
            count = sum(where == split for group in leaked for where, _ in group)
            share = count / len(getattr(dataset, split))
            text = f"{count} of the {split} images ({share:.1%}) are also in train, so its accuracy is flattered"
            findings.append(Finding("error", text + "; remove one copy of each", _images(leaked)))
    if contradicting := [group for group in groups if len({item.label for _, item in group}) > 1]:
        text = f"{len(contradicting)} images occur with two different labels; keep the right one"
        findings.append(Finding("error", text, _images(contradicting)))
    repeated = [group for group in groups if sum(where == "train" for where, _ in group) > 1]
    if repeated:
        text = f"{len(repeated)} images occur more than once in train; remove the copies"
        findings.append(Finding("info", text, _images(repeated)))
    return findings


_Group = list[tuple[str, Item]]  # identical images, each with its split


def _identical_groups(placed: _Group) -> list[_Group]:
    with ThreadPoolExecutor(_THREADS) as threads:
        sizes = list(threads.map(lambda place: _size(place[1].image), placed))
        same_size = _grouped(zip(sizes, placed, strict=True))
        suspects = [place for group in same_size for place in group]
        digests = threads.map(lambda place: _digest(place[1].image), suspects)
        return _grouped(zip(digests, suspects, strict=True))


def _grouped(keyed: Iterable[tuple[object, tuple[str, Item]]]) -> list[_Group]:
    """Those with an equal key, where there are several; None is no key."""
    groups: dict[object, _Group] = defaultdict(list)
    for key, place in keyed:
        if key is not None:
            groups[key].append(place)
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


def _images(groups: list[_Group]) -> tuple[str, ...]:
    return tuple(sorted({item.image for group in groups for _, item in group}))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
