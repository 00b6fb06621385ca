"""Images of a data set with their masks laid over them."""

from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.image import read_image
from ..data.mask_check import areas_of
from ..data.masks import read_mask
from ..data.sources import Dataset, Item
from ..errors import DataError
from .html import Html, join, small, tag
from .masks import chips, tinted

FEWEST, MOST = 12, 24  # images; between these one for each class
_SIDE = 480  # pixels of the longer side, twice the size on the page
_NAMED = 3  # classes in a caption
_TINT = 0.6


def masked_images(dataset: Dataset) -> Html:
    """What the colours mean, and training images that together show all classes, the rarest first."""
    areas = areas_of(dataset)
    figures = [_figure(item, areas[item.image], dataset.classes, first) for item, first in _chosen(dataset)]
    intro = (
        "Training images, for one class after the other, the rarest first, the one with most of it. Do the colours lie "
        "where they should? Pale is void: neither learned nor judged."
    )
    legend = tag("ul", *(tag("li", chip) for chip in chips(dataset.classes)), class_="legend")
    return join([tag("p", intro), legend, tag("div", *figures, class_="masked")])


def _chosen(dataset: Dataset) -> list[tuple[Item, int]]:
    """Images, and the class of which each has the most, of those that were not taken for a rarer one."""
    areas = areas_of(dataset)
    of_train = np.array([areas[item.image][:-1] for item in dataset.train])
    share = of_train / of_train.sum(axis=1, keepdims=True)
    order = of_train.sum(axis=0).argsort(kind="stable").tolist()
    wanted = min(len(dataset.train), max(FEWEST, min(MOST, len(order))))
    chosen = dict[int, int]()
    for index in cycle(order):  # every round takes an image: each has some class
        if len(chosen) == wanted:
            break
        left = share[:, index].copy()
        left[list(chosen)] = -1
        if left.max() > 0:
            chosen[int(left.argmax())] = index
    return [(dataset.train[number], index) for number, index in chosen.items()]


def _figure(item: Item, area: np.ndarray, classes: tuple[str, ...], first: int) -> Html:
    assert item.mask is not None
    shares = dict(zip((*classes, "void"), (area / area.sum()).tolist(), strict=True))
    names = dict.fromkeys([classes[first], *sorted(classes, key=lambda name: -shares[name])[:_NAMED], "void"])
    words = ", ".join(f"{name} {shares[name]:.1%}" for name in names if shares[name])
    file = tag("span", Path(item.image).name, class_="file", title=item.image)
    try:
        photo = Image.fromarray(read_image(item.image, short_side=_SIDE))
        photo.thumbnail((_SIDE, _SIDE))
        picture = small(tinted(photo, read_mask(item.mask), classes, _TINT), words, _SIDE)
    except DataError as error:
        picture = tag("p", f"This image cannot be shown: {error}", class_="quiet")
    return tag("figure", picture, tag("figcaption", words, file))
