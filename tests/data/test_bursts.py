"""Photos of one burst stay on one side of a split that is drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pocketvision.data.check import check_dataset
from pocketvision.data.sources import open_dataset
from pocketvision.errors import DataError


def picture(seed: int) -> Image.Image:
    blobs = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return Image.fromarray(blobs).resize((160, 120), Image.Resampling.BICUBIC)


def folder(root: Path, names: dict[str, Image.Image], **options) -> Path:
    for name, image in names.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name, **options)
    return root


def sides(root: Path, seed: int) -> dict[str, bool]:
    """Whether each image is for validation."""
    dataset = open_dataset(root, seed=seed)
    places = [(item.image, item in dataset.val) for item in (*dataset.train, *dataset.val)]
    return {Path(image).relative_to(root).as_posix(): val for image, val in places}


def test_copies_stay_together(tmp_path: Path):
    images = {f"{name}/{chr(97 + n)}.jpg": picture(100 * k + n) for k, name in enumerate("xy") for n in range(20)}
    folder(tmp_path, images)
    folder(tmp_path, {f"x/{chr(97 + n)}-copy.jpg": ImageOps.mirror(picture(n)) for n in range(10)}, quality=50)
    for seed in range(5):
        side = sides(tmp_path, seed)
        assert all(side[f"x/{chr(97 + n)}.jpg"] == side[f"x/{chr(97 + n)}-copy.jpg"] for n in range(10))
        assert 4 <= sum(val for name, val in side.items() if name.startswith("x")) <= 6
    dataset = open_dataset(tmp_path)
    assert "10 bursts or copies kept on one side" in dataset.description
    assert not [finding for finding in check_dataset(dataset) if finding.kind == "leak"]


def exif(camera: str, second: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0110] = camera
    data.get_ifd(0x8769)[0x9003] = f"2026:01:31 12:00:{second:02}"
    return data


def test_photos_of_one_camera_within_seconds_stay_together(tmp_path: Path):
    for n in range(20):
        for name in "xy":
            folder(
                tmp_path,
                {f"{name}/{chr(97 + n)}.jpg": picture(n + 100 * (name == "y"))},
                exif=exif(name, 9 * (n // 4) + n % 4),
            )
    together = 0
    for seed in range(6):
        side = sides(tmp_path, seed)
        for name in "xy":
            bursts = [{side[f"{name}/{chr(97 + 4 * k + i)}.jpg"] for i in range(4)} for k in range(5)]
            assert all(len(burst) == 1 for burst in bursts)
            together += sum(True in burst for burst in bursts)
    assert together == 12
    assert "10 bursts" in open_dataset(tmp_path).description


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("IMG_20260131_1200{:02}.jpg", 2),
        ("2026-01-31 12.00.{:02}.jpg", 2),
        ("IMG_20269931_1200{:02}.jpg", 0),
        ("photo{:02}.jpg", 0),
    ],
)
def test_times_in_names(tmp_path: Path, pattern: str, count: int):
    """Five photos of each second second; different pictures, so only their names say that they belong together."""
    for k, name in enumerate("xy"):
        folder(tmp_path, {f"{name}/{pattern.format(n + 20 * (n // 5))}": picture(n + 50 * k) for n in range(10)})
        folder(tmp_path, {f"{name}/z{chr(97 + n)}.jpg": picture(n + 50 * k + 20) for n in range(20)})
    description = open_dataset(tmp_path).description
    assert (f"{2 * count} bursts" in description) == bool(count)


def test_frames_of_a_video_stay_together(tmp_path: Path):
    start, end = (np.asarray(picture(n)).astype(float) for n in (1, 2))
    mixed = {n: Image.fromarray((start + (end - start) * n / 19).astype(np.uint8)) for n in range(20)}
    folder(tmp_path, {f"x/frame_{n:04}.jpg": image for n, image in mixed.items()})
    folder(tmp_path, {f"x/{chr(97 + n)}.jpg": picture(n + 50) for n in range(100)})
    folder(tmp_path, {f"y/{n}.jpg": picture(n + 200) for n in range(10)})
    for seed in range(3):
        side = sides(tmp_path, seed)
        assert len({side[f"x/frame_{n:04}.jpg"] for n in range(20)}) == 1
        assert sum(val for name, val in side.items() if name.startswith("y")) == 2  # different pictures, numbered


def test_a_class_of_one_burst_has_no_validation_images(tmp_path: Path):
    folder(tmp_path, {f"x/{n}.png": picture(1) for n in range(10)})
    with pytest.raises(DataError, match="needs 2 classes"):
        open_dataset(tmp_path)
    folder(tmp_path, {f"y/{n}.png": picture(n) for n in range(2, 12)})
    dataset = open_dataset(tmp_path)
    assert {item.label for item in dataset.val} == {1}
    assert "no validation images" in " ".join(map(str, check_dataset(dataset)))
