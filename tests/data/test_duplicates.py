"""Copies are found however they were made, look-alikes are not, and nothing depends on how the work is cut up."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from pocketvision.data import duplicates
from pocketvision.data.duplicates import Looks, grouped, near_hashes, perceptual_hashes
from pocketvision.data.image import Glimpse, glimpse


def picture(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    blobs = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC)


def look(image: Image.Image, kind: str = "JPEG", **options: int) -> Glimpse:
    file = io.BytesIO()
    image.save(file, kind, **options)
    found = glimpse(file)  # type: ignore[arg-type]  Pillow reads open files too
    assert isinstance(found, Glimpse)
    return found


def looks(glimpses: list[Glimpse]) -> Looks:
    return Looks.of(map(str, range(len(glimpses))), glimpses)


COPIES = {
    "encoded again": lambda image: look(image, quality=30),
    "png": lambda image: look(image, "PNG"),
    "halved": lambda image: look(image.resize((image.width // 2, image.height // 2))),
    "enlarged": lambda image: look(image.resize((image.width * 3, image.height * 3))),
    "mirrored": lambda image: look(ImageOps.mirror(image)),
    "darker": lambda image: look(ImageEnhance.Brightness(image).enhance(0.7)),
    "turned by EXIF": lambda image: look(image.transpose(Image.Transpose.ROTATE_90), exif=_turned(6)),
}


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    width=st.integers(110, 300),
    height=st.integers(110, 300),
    how=st.sampled_from(sorted(COPIES)),
)
def test_a_copy_is_found_and_others_are_not(seed: int, width: int, height: int, how: str):
    image = picture(seed, width, height)
    glimpses = [look(image, quality=90), COPIES[how](image), *(look(picture(seed + n, width, height)) for n in (1, 2))]
    found = looks(glimpses).pairs
    assert list(zip(found.first, found.second, strict=True)) == [(0, 1)]
    assert found.mirrored.tolist() == [how == "mirrored"]


def test_hashes_of_copies_are_near_and_of_others_far():
    originals, copies = ([look(picture(n), quality=q) for n in range(40)] for q in (95, 25))
    hashes = perceptual_hashes(looks([*originals, *copies]).thumbs)
    distance = np.bitwise_count(hashes[:40, None, 0] ^ hashes[None, 40:, 0])
    assert distance.diagonal().max() <= 6
    assert np.median(distance[~np.eye(40, dtype=bool)]) > 24


def test_the_mirror_images_hash_is_the_hash_of_the_mirror_image():
    thumbs = looks([look(picture(n)) for n in range(20)]).thumbs
    assert np.array_equal(perceptual_hashes(thumbs)[:, 1], perceptual_hashes(thumbs[:, :, ::-1])[:, 0])


def test_blocks_find_every_near_pair_once(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (60, 2), np.uint64)
    hashes[41] = hashes[3] ^ np.uint64(0b1011)
    hashes[50, 1] = hashes[7, 0]
    expected = {(3, 41, False), (7, 50, True)}
    for block in (1, 200, 1 << 22):
        monkeypatch.setattr(duplicates, "_BLOCK", block)
        found = [
            tuple(row) for pairs in near_hashes(hashes, 10) for row in zip(*(c.tolist() for c in pairs), strict=True)
        ]
        assert sorted(found) == sorted(expected)


def test_other_shape_or_colour_is_no_copy():
    image = picture(1)
    red, green, blue = image.split()
    others = [look(image), look(Image.merge("RGB", (blue, red, green))), look(image.crop((0, 0, 160, 80)))]
    assert not len(looks(others).pairs.first)


def test_flat_images_are_no_copies_of_each_other():
    assert not len(looks([look(Image.new("RGB", (80, 80), (n, n, n))) for n in (0, 1, 255)]).pairs.first)
    assert not len(looks([]).pairs.first)


def test_small_pictures_that_only_look_alike():
    digits = [found for n in range(1797) if isinstance(found := glimpse(f"sample:digits/{n}"), Glimpse)]
    assert not len(looks(digits).pairs.first)


def test_clothing10_has_one_picture_twice(shared: Path):
    files = sorted(map(str, (shared / "data/clothing10").rglob("*.jpg")))
    found = Looks.of(files, [seen for file in files if isinstance(seen := glimpse(file), Glimpse)])
    pairs = [(files[a], files[b]) for a, b in zip(found.pairs.first, found.pairs.second, strict=True)]
    assert [tuple(Path(name).parent.name for name in pair) for pair in pairs] == [("shorts", "skirt")]


def test_groups():
    assert grouped(6, [(4, 1), (1, 3), (5, 0)]).tolist() == [0, 1, 2, 1, 1, 0]
