"""Preprocessing agrees with TorchVision's; augmentation does what its settings say, from torch's generator."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from pocketvision.data.image import read_image
from pocketvision.data.transforms import Augment, augmented, load_prepared, load_reduced, prepare
from pocketvision.errors import ConfigurationError
from pocketvision.spec.model import Interpolation, Preprocessing

PLAIN = Augment(scale=(1, 1), ratio=(1, 1), flip=0)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def torchvision_prepared(image: np.ndarray, p: Preprocessing) -> np.ndarray:
    """TorchVision's resize to the sides that the contract names, and its crop at the contract's offset."""
    sides = [round(p.resize * side / min(image.shape[:2])) for side in image.shape[:2]]
    top, left = ((side - p.size) // 2 for side in sides)
    resized = v2.Resize(sides, v2.InterpolationMode(p.interpolation))(torch.from_numpy(image).permute(2, 0, 1))
    return v2.functional.crop(resized, top, left, p.size, p.size).permute(1, 2, 0).numpy()


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_prepare_agrees_with_torchvision_on_photos(shared: Path, interpolation: Interpolation):
    photos = sorted((shared / "data/clothing10/val").rglob("*.jpg"))[::12]
    photos += sorted((shared / "data/demo_images").glob("*.jpg"))
    assert len(photos) > 30
    for p in (Preprocessing(interpolation=interpolation), Preprocessing(96, 110, interpolation=interpolation)):
        for photo in photos:
            image = read_image(photo)
            assert difference(prepare(image, p), torchvision_prepared(image, p)) < 0.1, photo


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3), (7, 5), (255, 256), (301, 224), (333, 500), (256, 259)])
def test_prepare_rounds_as_its_contract_says(height: int, width: int):
    for p in (Preprocessing(), Preprocessing(33, 40)):
        image = noise(height, width)
        prepared = prepare(image, p)
        assert prepared.dtype == np.uint8
        assert prepared.flags.c_contiguous
        assert difference(prepared, torchvision_prepared(image, p)) == 0


def test_prepare_leaves_the_right_size_alone():
    image = noise(64, 64)
    assert np.array_equal(prepare(image, Preprocessing(64, 64)), image)
    assert np.array_equal(prepare(image, Preprocessing(32, 64)), image[16:48, 16:48])


def test_prepare_of_very_long_images_stays_small():
    """The resize of the whole would take 12 GB; TorchVision's result on a less long one is met nevertheless."""
    rows = noise(2, 60_000)
    assert prepare(rows, Preprocessing()).shape == (224, 224, 3)
    p = Preprocessing(56, 64)
    smooth = np.array(Image.fromarray(noise(4, 60)).resize((900, 60), Image.Resampling.BICUBIC))
    assert difference(prepare(smooth, p), torchvision_prepared(smooth, p)) < 1
    tall = np.ascontiguousarray(smooth.transpose(1, 0, 2))
    assert difference(prepare(tall, p), torchvision_prepared(tall, p)) < 1


def test_prepare_accepts_read_only_pixels():
    image = noise(50, 60)
    expected = prepare(image, Preprocessing(32, 40))
    image.flags.writeable = False
    assert np.array_equal(prepare(image, Preprocessing(32, 40)), expected)


def test_large_jpegs_are_prepared_almost_alike(shared: Path, tmp_path: Path):
    """The fast decode of ``load_prepared`` against the full one, on a 12-megapixel mosaic of real photographs."""
    photos = [Image.fromarray(read_image(path)) for path in sorted((shared / "data/demo_images").glob("*.jpg"))]
    mosaic = Image.new("RGB", (4032, 3024))
    for number in range(48):
        mosaic.paste(photos[number % len(photos)], (number % 8 * 504, number // 8 * 504))
    mosaic.save(tmp_path / "large.jpg", quality=90)
    p = Preprocessing()
    fast, full = load_prepared(tmp_path / "large.jpg", p), prepare(read_image(tmp_path / "large.jpg"), p)
    assert 0 < difference(fast, full) < 0.5
    assert load_reduced(tmp_path / "large.jpg", 294, "bilinear").shape == (294, 392, 3)


def test_small_images_are_not_reduced(shared: Path):
    photo = next((shared / "data/clothing10/val").rglob("*.jpg"))
    assert np.array_equal(load_reduced(photo, 294, "bilinear"), read_image(photo))
    assert np.array_equal(load_prepared(photo, Preprocessing()), prepare(read_image(photo), Preprocessing()))


def test_augmented_without_changes_is_a_resize():
    image = noise(48, 48)
    assert np.array_equal(augmented(image, 48, PLAIN, "bilinear"), image)
    resized = augmented(image, 32, PLAIN, "bilinear")
    assert difference(resized, torchvision_prepared(image, Preprocessing(32, 32))) == 0


@pytest.mark.parametrize(
    "augment",
    [
        Augment(),
        Augment(policy="autoaugment"),
        Augment(policy="randaugment", jitter=0.4, erase=0.5),
        Augment(policy="trivialaugment", strength=0.5),
        Augment(scale=(0.01, 0.02), ratio=(9, 10)),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(40, 30), (1, 1), (3, 50)])
def test_augmented_is_a_function_of_torchs_generator(height: int, width: int, augment: Augment):
    image = noise(height, width)
    before = image.copy()
    results = []
    for seed in (0, 0, 1, 2, 3, 4):
        torch.manual_seed(seed)
        np.random.seed(len(results))  # noqa: NPY002  must not matter
        results.append(augmented(image, 24, augment, "bicubic"))
        assert results[-1].shape == (24, 24, 3)
        assert results[-1].dtype == np.uint8
        assert results[-1].flags.c_contiguous
    assert np.array_equal(results[0], results[1])
    assert height * width == 1 or len({result.tobytes() for result in results}) >= 2
    assert np.array_equal(image, before)


def test_plain_augmentation_does_not_import_torchvision():
    program = (
        "import sys, numpy, pocketvision.data.transforms as t;"
        "t.augmented(numpy.zeros((9, 9, 3), 'uint8'), 8, t.Augment(erase=1), 'bilinear');"
        "sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_flip():
    image = noise(16, 16)
    assert np.array_equal(augmented(image, 16, Augment((1, 1), (1, 1), flip=1), "bilinear"), image[:, ::-1])
    torch.manual_seed(0)
    half = Augment((1, 1), (1, 1), flip=0.5)
    same = sum(np.array_equal(augmented(image, 16, half, "bilinear"), image) for _ in range(400))
    assert 150 < same < 250


def test_crops_have_the_asked_area_and_ratio():
    """Each pixel holds its own position, so the crop can be read off the result."""
    y, x = np.mgrid[0:200, 0:200]
    image = np.stack([y, x, 0 * x], -1).astype(np.uint8)
    areas, ratios, tops = [], [], []
    torch.manual_seed(0)
    for _ in range(300):
        crop = augmented(image, 50, Augment((0.1, 0.5), (0.5, 2.0), flip=0), "bilinear").astype(int)
        height, width = np.ptp(crop[..., 0]) + 1, np.ptp(crop[..., 1]) + 1
        areas.append(height * width / 200**2)
        ratios.append(width / height)
        tops.append(crop[0, 0, 0] / (200 - height))
    assert 0.08 < min(areas) < 0.13
    assert 0.45 < max(areas) < 0.52
    assert 0.27 < np.mean(areas) < 0.33
    assert 0.45 < min(ratios) < 0.55
    assert 1.8 < max(ratios) < 2.2
    assert abs(np.mean(np.log(ratios))) < 0.08
    assert 0.45 < np.mean(tops) < 0.55


def test_the_input_is_never_written_to():
    """Also where no resize makes a new array: the input may lie in the cache."""
    image = noise(64, 64)
    before = image.copy()
    for changed in (
        augmented(image, 64, Augment((1, 1), (1, 1), 0, erase=1), "bilinear"),
        augmented(image, 64, PLAIN, "bilinear"),
    ):
        changed[:] = 0
    prepare(image, Preprocessing(64, 64))[:] = 0
    assert np.array_equal(image, before)


def test_erase():
    image = np.zeros((64, 64, 3), np.uint8)
    torch.manual_seed(0)
    always = Augment((1, 1), (1, 1), 0, erase=1)
    shares = [(augmented(image, 64, always, "bilinear") == (124, 116, 104)).all(-1).mean() for _ in range(200)]
    assert 0.015 < min(shares) < 0.05
    assert 0.25 < max(shares) < 0.36


def mean_change(augment: Augment) -> float:
    image = read_image("sample:digits/3")
    torch.manual_seed(0)
    return float(np.mean([difference(augmented(image, 32, augment, "bilinear"), image) for _ in range(150)]))


def test_jitter_grows_with_its_setting():
    changes = [mean_change(Augment((1, 1), (1, 1), 0, jitter=jitter)) for jitter in (0, 0.2, 0.6)]
    assert changes[0] == 0
    assert changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("policy", ["autoaugment", "randaugment", "trivialaugment"])
def test_strength_scales_a_policy(policy):
    changes = [mean_change(Augment((1, 1), (1, 1), 0, policy=policy, strength=s)) for s in (0, 0.2, 0.6, 1)]
    assert changes[0] == 0
    assert changes[0] < changes[1] < changes[2] < changes[3]


@pytest.mark.parametrize(
    ("policy", "original"),
    [
        ("autoaugment", v2.AutoAugment),
        ("randaugment", v2.RandAugment),
        ("trivialaugment", v2.TrivialAugmentWide),
    ],
)
def test_full_strength_is_the_published_policy(policy, original: Callable):
    image = noise(32, 32)
    reference = original(interpolation=v2.InterpolationMode.BILINEAR)
    for seed in range(40):
        torch.manual_seed(seed)
        result = augmented(image, 32, Augment((1, 1), (1, 1), 0, policy=policy), "bilinear")
        torch.manual_seed(seed)
        torch.rand(10, 4, dtype=torch.float64), torch.rand(())  # what the crop and the flip draw
        assert np.array_equal(result, np.asarray(reference(Image.fromarray(image))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "randaugmnt"},
        {"strength": 1.5},
        {"flip": -0.1},
        {"scale": (0.5, 0.2)},
        {"scale": (0.0, 1.0)},
        {"ratio": (2.0, 1.0)},
    ],
)
def test_settings_out_of_range(wrong: dict):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Augment(**wrong)
