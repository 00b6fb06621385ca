"""Small segmentation sets in each layout, as tests need them."""

from pathlib import Path

import numpy as np
from PIL import Image

from pocketvision.data.masks import read_mask
from pocketvision.data.sources import Dataset

from .boxed import SIZE, picture

WIDTH, HEIGHT = SIZE
NAMES = {"train": ("a", "b", "c"), "val": ("d", "e"), "test": ("f",)}
PALETTE = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128))


def values(name: str, classes: int = 3) -> np.ndarray:
    """A mask of 0, 1, ... and, in its last row, void; no two names have the same."""
    rng = np.random.default_rng([*name.encode()])
    mask = rng.integers(0, classes, (HEIGHT, WIDTH)).astype(np.uint8)
    mask[0, :classes], mask[-1] = range(classes), 255
    return mask


def save(path: Path, mask: np.ndarray, mode: str = "L") -> Path:
    """A mask as a grey, palette ("P") or colour ("RGB") PNG; 255 is white there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(PALETTE)], colours[255] = PALETTE, 255
    if mode == "RGB":
        image = Image.fromarray(colours[mask])
    else:
        image = Image.fromarray(mask)
        if mode == "P":
            image.putpalette(colours.tobytes())
    image.save(path)
    return path


def make(
    root: Path, images: str = "{split}/images", masks: str = "{split}/masks", mode: str = "L", end: str = ""
) -> Path:
    """Three images for training, two for validation, one for test, where the patterns say."""
    for split, names in NAMES.items():
        for name in names:
            picture(root / images.format(split=split) / f"{name}.png")
            save(root / masks.format(split=split) / f"{name}{end}.png", values(name), mode)
    return root


def voc(root: Path) -> Path:
    make(root, "JPEGImages", "SegmentationClass", "P")
    picture(root / "JPEGImages/without.png")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, names in NAMES.items():
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def said(dataset: Dataset) -> dict[str, dict[str, np.ndarray]]:
    """split -> image's name -> its mask as it is read."""
    return {
        split: {Path(item.image).stem: read_mask(item.mask) for item in getattr(dataset, split) if item.mask}
        for split in NAMES
    }
