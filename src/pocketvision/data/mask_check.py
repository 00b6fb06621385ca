"""What masks alone tell: values without a class, classes that are rare, images without anything in them."""

from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .boxes import Note
from .finding import Finding, listed_names
from .masks import read_mask
from .segmentation import THREADS, mask_words
from .sources import Dataset, Item

_SHOWN = 12  # classes
_RARE = 0.005  # of train's pixels


def areas_of(dataset: Dataset) -> Mapping[str, np.ndarray]:
    """How many pixels each class has in each image and at last how many are void, by image: int64 [classes + 1].

    Known where masks were looked at when the data set was opened; otherwise they are read. Raises DataError then.
    """
    if not dataset.areas:
        with ThreadPoolExecutor(THREADS) as threads:
            counted = threads.map(lambda item: _area(item, len(dataset.classes)), dataset.items)
            dataset.areas.update({item.image: area for item, area in zip(dataset.items, counted, strict=True)})
    return dataset.areas


def class_shares(dataset: Dataset) -> dict[str, float]:
    """The share of each class of train's pixels that are not void, 0 to 1."""
    areas = areas_of(dataset)
    pixels = np.sum([areas[item.image][:-1] for item in dataset.train], axis=0)
    return dict(zip(dataset.classes, (pixels / pixels.sum()).tolist(), strict=True))


def check_masks(dataset: Dataset) -> list[Finding]:
    """What was done to masks, one finding of each kind; shares of the classes; images of one class only."""
    if dataset.task != "segment":
        return []
    findings, kinds = list[Finding](), defaultdict[str, list[Note]](list)
    for note in dataset.notes:
        kinds[note.kind].append(note)
    for notes in kinds.values():
        text = f"{mask_words(notes)}, for example {notes[0].image}: {notes[0].text}"
        groups = tuple((image,) for image in dict.fromkeys(note.image for note in notes))
        findings.append(Finding("warning", "masks", text, "look whether the masks are right", groups))
    shares = class_shares(dataset)
    ordered = sorted(shares, key=lambda name: -shares[name])
    shown = ordered if len(ordered) <= _SHOWN else [*ordered[: _SHOWN - 4], "", *ordered[-3:]]
    listed = ", ".join(f"{name} {shares[name]:.1%}" if name else "..." for name in shown)
    findings.append(Finding("info", "shares", f"of train's pixels: {listed}"))
    if rare := [f"{name!r} ({shares[name]:.2%})" for name in reversed(ordered) if shares[name] < _RARE]:
        text = f"unequal classes: less than {_RARE:.1%} of train's pixels are {listed_names(rare)}"
        findings.append(Finding("warning", "unequal", text, "look at the IoU of each class, not only at the mean"))
    areas = areas_of(dataset)
    alone = [item.image for item in dataset.train if (areas[item.image][:-1] > 0).sum() == 1]
    if alone:
        kinds_of = {dataset.classes[int(areas[image][:-1].argmax())] for image in alone}
        what = f"nothing but {kinds_of.pop()!r}" if len(kinds_of) == 1 else "one class only"
        text = f"{len(alone)} of {len(dataset.train)} training images have {what}"
        groups = tuple((image,) for image in alone)
        findings.append(Finding("info", "background", text, "check that nothing was forgotten in them", groups))
    return findings


def void_share(dataset: Dataset) -> float:
    """How much of all masks is void, 0 to 1."""
    total = np.sum(list(areas_of(dataset).values()), axis=0)
    return float(total[-1] / total.sum())


def _area(item: Item, classes: int) -> np.ndarray:
    assert item.mask is not None
    counts = np.bincount(read_mask(item.mask).ravel(), minlength=256)
    return np.array([*counts[:classes], counts[classes:].sum()], np.int64)
