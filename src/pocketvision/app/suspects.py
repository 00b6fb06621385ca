"""Labels that may be wrong: images that a classifier, trained without them, is sure to be of another class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.bursts import bursts_of
from ..data.duplicates import Looks
from ..data.sources import Dataset, Item
from ..errors import WeightsError
from ..spec.transform import with_size
from ..zoo import model_spec
from ..zoo.weights import available
from .choose import SMALL_IMAGE, load_whole, normalised
from .network import natural_size
from .progress import tell

NETWORKS = ("mobilenet_v2", "efficientnet_lite0", "mobilenet_v3_small", "mobileone_s0")
SIZE = 160
FEATURES = "features of "
FOLDS, ALPHAS = 5, (10.0, 100.0, 1000.0, 10_000.0)


@dataclass(frozen=True, slots=True)
class Suspect:
    """An image labelled ``label`` that looks like ``looks_like``; ``probability``: that it is that, 0 to 1."""

    image: str
    split: str
    label: str
    looks_like: str
    probability: float

    def to_dict(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {"probability": round(self.probability, 4)}


def suspects(dataset: Dataset, features: np.ndarray) -> list[Suspect]:
    """Suspected labels, the surest first. ``features``: float [N, D] of the images of train, val and test, in order.

    Confident learning (arXiv:1911.00068 §3.1): an image is suspected when its most probable class is not its label, and
    is at least as probable as it is on average for the images that carry that label.
    """
    placed = [(split, item) for split in ("train", "val", "test") for item in getattr(dataset, split)]
    labels = np.array([item.label for _, item in placed])
    probability = out_of_fold(features, labels, _folds(placed, dataset.looks))
    best, rows = probability.argmax(1), np.arange(len(labels))
    usual = np.array([probability[labels == k, k].mean() for k in range(len(dataset.classes))])
    doubted = np.flatnonzero((best != labels) & (probability[rows, best] >= usual[best]))
    margin = probability[rows, best] - probability[rows, labels]
    return [
        Suspect(
            placed[i][1].image,
            placed[i][0],
            dataset.classes[labels[i]],
            dataset.classes[best[i]],
            float(probability[i, best[i]]),
        )
        for i in doubted[np.argsort(-margin[doubted], kind="stable")]
    ]


def out_of_fold(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Probability of each class for each image, float [N, K], by ridge classifiers that did not see its fold.

    The penalty and the softmax's temperature are those of the highest out-of-fold likelihood.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # OpenBLAS's threads spin while they wait, which costs more than it gains beside others
        x = features - features.mean(0)
        x = np.concatenate([x / x.std(0).clip(1e-6), np.ones((len(x), 1))], axis=1)
        y = np.eye(labels.max() + 1)[labels]
        whole, target = x.T @ x, x.T @ y
        scores = np.zeros((len(ALPHAS), *y.shape))
        for fold in np.unique(folds):
            out = folds == fold
            gram, rest = whole - x[out].T @ x[out], target - x[out].T @ y[out]
            values, vectors = np.linalg.eigh(gram)
            turned, seen = vectors.T @ rest, x[out] @ vectors
            for row, alpha in enumerate(ALPHAS):
                scores[row, out] = seen @ (turned / (values.clip(0) + alpha)[:, None])
    tried = [
        _softmax(scores[row] * sharpness) for row in range(len(ALPHAS)) for sharpness in (1, 2, 3, 4, 6, 8, 12, 16)
    ]
    return max(tried, key=lambda p: np.log(p[np.arange(len(labels)), labels].clip(1e-9)).mean())


def _folds(placed: Sequence[tuple[str, Item]], looks: Looks | None) -> np.ndarray:
    """A fold for each image; a burst is in one fold, so that no copy vouches for a label."""
    groups = {} if looks is None else bursts_of(looks)
    names = [groups.get(item.image, item.image) for _, item in placed]
    fold = {name: number for number, name in enumerate(dict.fromkeys(names))}
    order = np.random.default_rng(0).permutation(len(fold))
    return order[[fold[name] for name in names]] % FOLDS


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def image_features(dataset: Dataset) -> tuple[np.ndarray, str]:
    """Features float32 [N, D] of the images of train, val and test, in order, and what they are.

    Of a network with ImageNet weights where one is on this machine and the images are photos; else the pixels.
    """
    items = dataset.items
    network = _network() if natural_size(dataset) > SMALL_IMAGE else None
    if network is not None:
        tell(f"looking at {len(items)} images with {network}")
        return embedded(items, network), f"{FEATURES}{network} (ImageNet weights) at {SIZE} px"
    from ..data.image import Glimpse, glimpse

    looks = dataset.looks
    if looks is not None:
        thumbs = dict(zip(looks.images, looks.thumbs, strict=True))
    else:
        thumbs = {item.image: seen.thumb for item in items if isinstance(seen := glimpse(item.image), Glimpse)}
    grey = np.stack([thumbs[item.image].mean(2, dtype=np.float32) for item in items])
    return grey.reshape(len(grey), -1) / 255, "grey pixels (24 x 24): no network with ImageNet weights fits or is here"


def embedded(items: Sequence[Item], network: str) -> np.ndarray:
    """What the network's classifier would see of each image: float32 [N, D]."""
    import torch

    model, _ = load_whole(with_size(model_spec(network), SIZE, ratio=1.0), "imagenet")
    model.eval()
    with torch.inference_mode():
        features = (model.classifier.embed(model.backbone(x_BCHW)) for x_BCHW in normalised(items, model))
        return np.concatenate([x_NC.numpy() for x_NC in features])


def _network() -> str | None:
    """The first of the networks whose weights are on this machine."""
    try:
        return next((name for name in NETWORKS if available(model_spec(name))), None)
    except WeightsError:
        return None
