"""The accuracy to expect of more images: learning curves on the user's own data, and power laws fitted to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.sources import Item
from ..errors import DataError
from ..spec.model import ModelSpec
from .choose import frozen_features, ridge, sample

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

IMAGES = 2000  # at most: so many features are computed
REPEATS, SIZES, HELD_OUT = 8, 6, 0.25
LEAST_PER_CLASS = 4  # below that a curve is no power law yet
BOOTSTRAPS, COVERED = 500, 0.9
EXPONENTS = np.geomspace(0.05, 1, 200)
# A 90% band held 26 of 32 forecasts at four times the images, as wide as one of 81% should be: its half-width, 1.31
# standard deviations, lacks 1.645 / 1.31. With it 29 of them hold (benchmarks/results/learning_curve.json, cover).
# Twice the images or fewer need none: 29 and 30 of 32
FAR, FAR_STRETCH = 4, 1.25
PIXELS = 16  # side of the picture that a classifier on pixels gets


@dataclass(frozen=True, slots=True)
class Point:
    """Accuracy of the classifier trained on ``images`` images, on images held out; ``sd``: between repeats."""

    images: int
    accuracy: float
    sd: float


@dataclass(frozen=True, slots=True)
class Band:
    """The accuracy to expect of ``images`` training images: in 9 of 10 cases between ``low`` and ``high``.

    Measured for features of photos: 29 of 32 cases at 1, 30 at 2, 29 at 4 times the images (docs/advisor.md).
    """

    images: int
    accuracy: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.0%} to {self.high:.0%}"


@dataclass(frozen=True, slots=True)
class Expectation:
    """A learning curve and what it promises. ``of``: the classifier; ``bands``: at all, twice and four times as many
    images; ``error``: (a, b, c) of a + b n^-c, the share of wrong answers after n images; ``weights``: of the features,
    "none" for pixels."""

    of: str
    points: tuple[Point, ...]
    bands: tuple[Band, ...]
    error: tuple[float, float, float]
    weights: str = "none"

    def __str__(self) -> str:
        """The bands, one line each."""
        lines = [f"  {band.images:>7,} training images: {band}" for band in self.bands]
        return "\n".join([f"expected top-1 of {self.of} (9 cases in 10):", *lines])

    def to_dict(self) -> dict[str, Any]:
        rows = [{"images": p.images, "accuracy": round(p.accuracy, 4), "sd": round(p.sd, 4)} for p in self.points]
        bands = [
            {"images": b.images, "accuracy": round(b.accuracy, 4), "low": round(b.low, 4), "high": round(b.high, 4)}
            for b in self.bands
        ]
        return {"of": self.of, "points": rows, "bands": bands, "error": [round(value, 5) for value in self.error]}


def expect(spec: ModelSpec, weights: str, train: Sequence[Item], val_images: int) -> Expectation:
    """What accuracy the training images promise, from the network's frozen features or, without weights, from pixels.

    ``val_images``: of the set that the accuracy will be counted on, whose smallness widens the band. Raises DataError
    for too few images, WeightsError when the weights cannot be read.
    """
    items = sample(train, IMAGES)
    if weights == "none":
        features, labels = pixel_features(items), np.array([item.label for item in items])
        return forecast(features, labels, machine(), len(train), val_images, of="a support-vector machine on pixels")
    features, labels = frozen_features(spec, weights, items)
    of = f"a linear classifier on {spec.backbone.name}'s frozen features"
    return replace(forecast(features, labels, ridge(), len(train), val_images, of=of), weights=weights)


def pixel_features(items: Sequence[Item]) -> np.ndarray:
    """Small pictures as vectors, float32 [N, 3 x 16 x 16] from 0 to 1."""
    from ..data.loader import ImageLoader
    from ..spec.model import Preprocessing

    batches = ImageLoader(items, Preprocessing(PIXELS, PIXELS)).epoch()
    return np.concatenate([batch.images.flatten(1).numpy() for batch in batches]).astype(np.float32) / 255


def machine() -> "ClassifierMixin":
    """The classical classifier that stands on pixels."""
    from sklearn.svm import SVC

    return SVC(C=10)


def forecast(
    features: np.ndarray, labels: np.ndarray, classifier: Any, images: int, val_images: int, *, of: str = ""
) -> Expectation:
    """The learning curve of ``classifier`` on features [N, D] and labels [N], and its bands from ``images`` images on.

    Raises DataError where a class has fewer than 8 images: no curve can be measured then.
    """
    counts = np.bincount(labels)
    if counts[counts > 0].min() < 2 * LEAST_PER_CLASS:
        raise DataError(f"a class has fewer than {2 * LEAST_PER_CLASS} training images: too few to measure a curve")
    sizes, accuracy_SR = measured(features, labels, classifier)
    repeats = np.random.default_rng(0).integers(REPEATS, size=(BOOTSTRAPS, REPEATS))
    curves_K3 = fitted(sizes, 1 - accuracy_SR[:, repeats].mean(2).T)
    a, b, c = map(float, fitted(sizes, 1 - accuracy_SR.mean(1)[None])[0])
    counted = (len(labels) - int(sizes[-1]), val_images)
    near = (_band(curves_K3, accuracy_SR[-1], counted, times * images) for times in (1, 2, 4))
    bands = tuple(widened(band, band.images / len(labels)) for band in near)
    points = tuple(
        Point(int(size), float(row.mean()), float(row.std(ddof=1)))
        for size, row in zip(sizes, accuracy_SR, strict=True)
    )
    return Expectation(of, points, bands, (a, b, c))


def measured(features: np.ndarray, labels: np.ndarray, classifier: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Training-set sizes [S] and accuracies [S, R] on a quarter of the images, another one in each of R repeats.

    A smaller training set is part of the larger one of its repeat, so that noise moves a whole curve.
    """
    from sklearn.model_selection import StratifiedShuffleSplit
    from threadpoolctl import threadpool_limits

    splits = list(StratifiedShuffleSplit(REPEATS, test_size=HELD_OUT, random_state=seed).split(features, labels))
    largest = len(splits[0][0])
    least = max(largest // 16, LEAST_PER_CLASS * len(np.unique(labels)))
    sizes = np.unique(np.geomspace(min(least, largest // 2), largest, SIZES).round().astype(int))
    accuracy_SR = np.zeros((len(sizes), REPEATS))
    with threadpool_limits(1):
        for repeat, (train, test) in enumerate(splits):
            order = _by_class_in_turn(train, labels)
            for number, size in enumerate(sizes):
                chosen = order[:size]
                classifier.fit(features[chosen], labels[chosen])
                accuracy_SR[number, repeat] = classifier.score(features[test], labels[test])
    return sizes, accuracy_SR


def _by_class_in_turn(indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``indices`` in an order of which every beginning has all classes in their proportions."""
    place = np.zeros(len(indices))
    for label in np.unique(labels[indices]):
        members = np.flatnonzero(labels[indices] == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return indices[np.argsort(place, kind="stable")]


def fitted(sizes: np.ndarray, errors_KS: np.ndarray) -> np.ndarray:
    """a, b, c of a + b n^-c, with a, b >= 0 and 0.05 <= c <= 1, that fit error rates [K, S] at sizes [S] best: [K, 3].

    For each exponent of a fine grid, a and b are a linear least-squares problem with a solution in closed form; where
    it has a below 0, a is 0.
    """
    best_K, found_K3 = np.full(len(errors_KS), np.inf), np.zeros((len(errors_KS), 3))
    mean_K = errors_KS.mean(1)
    for c in EXPONENTS:
        x_S = (sizes / sizes[-1]) ** -c
        spread_S = x_S - x_S.mean()
        b_K = np.maximum(0, errors_KS @ spread_S / (spread_S @ spread_S))
        a_K = mean_K - b_K * x_S.mean()
        b_K = np.where(a_K < 0, errors_KS @ x_S / (x_S @ x_S), b_K)
        a_K = np.maximum(0, a_K)
        squares_K = ((a_K[:, None] + b_K[:, None] * x_S - errors_KS) ** 2).sum(1)
        better_K = squares_K < best_K
        best_K = np.where(better_K, squares_K, best_K)
        abc_K3 = np.stack([a_K, b_K * float(sizes[-1]) ** c, np.full_like(a_K, c)], 1)
        found_K3 = np.where(better_K[:, None], abc_K3, found_K3)
    return found_K3


def _band(curves_K3: np.ndarray, accuracy_R: np.ndarray, counted: tuple[int, int], wanted: int) -> Band:
    """From the curves of resampled repeats, and from the chance in which images train and are counted.

    ``accuracy_R``: at the largest size measured. ``counted``: images that each was counted on, and that the one to
    come will be counted on.
    """
    a_K, b_K, c_K = curves_K3.T
    accuracies_K = 1 - (a_K + b_K * float(wanted) ** -c_K)
    centre = float(np.median(accuracies_K))
    chance = centre * (1 - centre)
    between = max(0.0, float(accuracy_R.var(ddof=1)) - chance / counted[0])  # of the training images' choice
    noise = np.random.default_rng(1).standard_normal((20, len(accuracies_K))) * np.sqrt(chance / counted[1] + between)
    low, high = np.quantile(accuracies_K + noise, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return Band(wanted, centre, max(0.0, float(low)), min(1.0, float(high)))


def widened(band: Band, ahead: float) -> Band:
    """``band``, as much wider as it was found to be too narrow ``ahead`` times the measured images.

    From twice on linearly in the logarithm, which beyond four times is a guess.
    """
    stretch = max(1.0, 1 + (FAR_STRETCH - 1) * float(np.log2(ahead / 2) / np.log2(FAR / 2)))
    low, high = (band.accuracy + stretch * (end - band.accuracy) for end in (band.low, band.high))
    return replace(band, low=max(0.0, low), high=min(1.0, high))
