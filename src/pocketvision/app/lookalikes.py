"""Images that look the same to a network though their pixels do not line up: crops, next frames, one thing again."""

from collections.abc import Iterator

import numpy as np

from ..data.check import Finding, noun
from ..data.sources import Dataset

# Cosine of MobileNetV2's features at 160 px, clothing10: all of 60 photos cropped to 97% are above it, 65% of those
# cropped to 90%, and 3 of its 2.7 million pairs of different photos (docs/LOG.md, "Look-alikes").
ALIKE = 0.93
_BLOCK = 1024


def lookalikes(dataset: Dataset, features: np.ndarray) -> Finding | None:
    """Pairs that are alike and in different splits, the most alike first; None where there are none.

    ``features``: float [N, D] of the images of train, val and test, in order. What the pixels prove to be a copy is
    not told again.
    """
    images = [item.image for item in dataset.items]
    splits = np.repeat([0, 1, 2], [len(dataset.train), len(dataset.val), len(dataset.test)])
    proven = set[tuple[str, str]]()
    if dataset.looks is not None:
        names, pairs = dataset.looks.images, dataset.looks.pairs
        proven = {(names[a], names[b]) for a, b in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}
    found = [
        (cosine, images[a], images[b])
        for cosine, a, b in _near(features, splits)
        if (images[a], images[b]) not in proven and (images[b], images[a]) not in proven
    ]
    if not found:
        return None
    groups = tuple((first, second) for _, first, second in sorted(found, reverse=True))
    text = f"{len(groups)} {noun(len(groups), 'pair')} across splits look alike to a network, though not pixel by pixel"
    return Finding("warning", "alike", text, "look at them: keep crops and shots of one thing in one split", groups)


def _near(features: np.ndarray, splits: np.ndarray) -> Iterator[tuple[float, int, int]]:
    """Cosine and indices of the pairs of different splits that are alike; memory is bounded."""
    unit = (features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)
    for start in range(0, len(unit), _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit[start:].T
        cosines[splits[start : start + _BLOCK, None] == splits[None, start:]] = -1
        for row, column in np.argwhere(np.triu(cosines, 1) >= ALIKE).tolist():
            yield float(cosines[row, column]), start + row, start + column
