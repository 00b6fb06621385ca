"""Decoded images on the disk: right pixels or none, whoever is killed, damaged, full or forbidden."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvision.data import disk as disk_module
from pocketvision.data import loader as loader_module
from pocketvision.data.disk import DiskCache, cache_folder, image_key
from pocketvision.data.loader import ImageLoader
from pocketvision.data.sources import Item, open_dataset
from pocketvision.data.transforms import Augment
from pocketvision.spec.model import Preprocessing

KEYS = [f"{number:064x}" for number in range(0, 16**3 * 40, 16**3)]


def image(number: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side + number % 3, 3), np.uint8)


def test_round_trip(tmp_path: Path):
    cache = DiskCache(tmp_path / "new" / "folder")
    assert cache.get(KEYS[0]) is None
    assert cache.put(KEYS[0], image(0)[:, ::-1])
    found = DiskCache(tmp_path / "new" / "folder").get(KEYS[0])  # another run
    assert found is not None
    assert np.array_equal(found, image(0)[:, ::-1])
    assert not found.flags.writeable


@pytest.mark.parametrize("damage", ["shorter", "longer", "empty", "changed", "header"])
def test_damaged_files_are_made_again(tmp_path: Path, damage: str):
    cache = DiskCache(tmp_path)
    cache.put(KEYS[1], image(1))
    path = cache._path(KEYS[1])
    data = bytearray(path.read_bytes())
    match damage:
        case "shorter":
            data = data[:-1]
        case "longer":
            data += b"x"
        case "empty":
            data = bytearray()
        case "changed":
            data[-5] ^= 1
        case "header":
            data[0] ^= 1
    path.write_bytes(data)
    assert cache.get(KEYS[1]) is None
    assert cache.put(KEYS[1], image(1))
    found = cache.get(KEYS[1])
    assert found is not None
    assert np.array_equal(found, image(1))


WRITER = """
import sys, numpy as np
sys.path.insert(0, {tests!r})
from test_disk import KEYS, DiskCache, image
from pathlib import Path
cache = DiskCache(Path({folder!r}))
images = [image(number, 200) for number in range(len(KEYS))]
print("ready", flush=True)
while True:
    for key, pixels in zip(KEYS, images):
        cache.put(key, pixels)
"""


def test_a_killed_writer_leaves_right_pixels_or_none(tmp_path: Path):
    found = 0
    for seed in range(4):
        code = WRITER.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(random.Random(seed).uniform(0.002, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        cache = DiskCache(tmp_path)
        for number, key in enumerate(KEYS):
            pixels = cache.get(key)
            assert pixels is None or np.array_equal(pixels, image(number, 200))
            found += pixels is not None
    assert found


def test_the_oldest_go_when_there_is_no_more_room(tmp_path: Path):
    size = 40 * 40 * 3 + 16
    old = DiskCache(tmp_path, 10 * size)
    for number in range(0, 30, 3):
        assert old.put(KEYS[number], image(number))
        os.utime(old._path(KEYS[number]), (1000 + number, 1000 + number))
    os.utime(old._path(KEYS[3]), (2000, 2000))  # used later than all others
    time.sleep(0.01)
    cache = DiskCache(tmp_path, 10 * size)
    assert cache.put(KEYS[33], image(33))
    assert cache.get(KEYS[0]) is None
    assert cache.get(KEYS[3]) is not None
    total = sum(path.stat().st_size for path in tmp_path.glob("??/*"))
    assert total <= 10 * size


def test_what_this_run_uses_stays(tmp_path: Path):
    size = 40 * 40 * 3 + 16
    cache = DiskCache(tmp_path, 3 * size)
    time.sleep(0.01)
    assert [cache.put(KEYS[number], image(number)) for number in range(0, 15, 3)] == [True] * 3 + [False] * 2
    assert cache.get(KEYS[0]) is not None


def test_a_share_of_the_free_space_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda _: real._replace(free=4 * (40 * 40 * 3 + 16)))
    cache = DiskCache(tmp_path)
    assert cache.put(KEYS[0], image(0))
    assert not cache.put(KEYS[3], image(3))


def test_abandoned_parts_are_removed(tmp_path: Path):
    (tmp_path / "ab").mkdir()
    for name, age in (("old", 7200), ("new", 60)):
        (part := tmp_path / "ab" / f".{name}.part").write_bytes(b"x")
        os.utime(part, (time.time() - age,) * 2)
    DiskCache(tmp_path)
    assert [path.name for path in (tmp_path / "ab").iterdir()] == [".new.part"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.warns(RuntimeWarning, match=r"file.* cannot be written .*in memory only.*POCKETVISION_CACHE"):
        cache = DiskCache(tmp_path / "file" / "below")
    assert not cache.put(KEYS[0], image(0))
    assert cache.get(KEYS[0]) is None


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = DiskCache(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_module.os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        assert not cache.put(KEYS[0], image(0))
    assert not list(tmp_path.glob("??/.*"))
    assert not cache.put(KEYS[0], image(0))  # and says it once


def test_a_file_for_an_entry_folder_ends_the_writing_only(tmp_path: Path):
    (tmp_path / KEYS[0][:2]).touch()
    cache = DiskCache(tmp_path)
    with pytest.warns(RuntimeWarning, match="cannot be written.*in memory only"):
        assert not cache.put(KEYS[0], image(0))
    assert cache.get(KEYS[0]) is None


def test_an_entry_folder_of_somebody_else_ends_the_writing_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = DiskCache(tmp_path)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk_module.os, "replace", denied)
    monkeypatch.setattr(Path, "unlink", denied)
    with pytest.warns(RuntimeWarning, match="Permission denied.*in memory only"):
        assert not cache.put(KEYS[0], image(0))


def test_a_cache_that_is_only_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    DiskCache(tmp_path).put(KEYS[0], image(0))

    def denied(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(disk_module.os, "utime", denied)
    monkeypatch.setattr(Path, "touch", denied)
    with pytest.warns(RuntimeWarning, match="Read-only file system"):
        cache = DiskCache(tmp_path)
    found = cache.get(KEYS[0])
    assert found is not None
    assert np.array_equal(found, image(0))


def test_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POCKETVISION_CACHE", "/x/y")
    assert cache_folder() == Path("/x/y")
    monkeypatch.setenv("POCKETVISION_CACHE", "")
    assert cache_folder() is None
    monkeypatch.delenv("POCKETVISION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/z")
    assert cache_folder() == Path("/z/pocketvision/images")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/pocketvision/images"


@pytest.mark.parametrize("package", ["PIL", "torch"])
def test_another_version_of_what_makes_the_pixels_makes_new_ones(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
):
    (path := tmp_path / "one").write_bytes(b"1")
    before = image_key(str(path), "reduced 10")
    monkeypatch.setattr(f"{package}.__version__", "0.0.1")
    assert image_key(str(path), "reduced 10") != before


def test_keys(tmp_path: Path):
    (one := tmp_path / "one").write_bytes(b"1")
    (same := tmp_path / "same").write_bytes(b"1")
    (other := tmp_path / "other").write_bytes(b"2")
    key = image_key(str(one), "reduced 10")
    assert key is not None
    assert key == image_key(str(same), "reduced 10")
    assert key not in (image_key(str(other), "reduced 10"), image_key(str(one), "reduced 11"))
    assert image_key("sample:digits/1", "reduced 10") is None


class TestLoader:
    PREPROCESSING = Preprocessing(32, 32)

    @pytest.fixture
    def items(self, shared: Path) -> tuple[Item, ...]:
        return open_dataset(shared / "data/clothing10", check=False).train[:12]

    def batches(self, items: tuple[Item, ...], augment: Augment | None, **options: Any) -> list[np.ndarray]:
        loader = ImageLoader(items, self.PREPROCESSING, batch=5, augment=augment, **options)
        return [batch.images.numpy() for batch in loader.epoch(1)]

    @pytest.mark.parametrize("augment", [None, Augment()])
    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_later_run_decodes_nothing(
        self, items: tuple[Item, ...], augment: Augment | None, workers: int, tmp_path: Path, monkeypatch
    ):
        monkeypatch.setenv("POCKETVISION_CACHE", "")
        expected = self.batches(items, augment)
        monkeypatch.setenv("POCKETVISION_CACHE", str(tmp_path))
        first = self.batches(items, augment, workers=workers)

        def decoded(*_: object) -> None:
            raise AssertionError("decoded again")

        monkeypatch.setattr(loader_module, "load_prepared", decoded)
        monkeypatch.setattr(loader_module, "load_reduced", decoded)
        for result in (first, self.batches(items, augment)):
            assert all(np.array_equal(a, b) for a, b in zip(result, expected, strict=True))

    def test_a_changed_image_is_noticed(self, items: tuple[Item, ...], tmp_path: Path, monkeypatch):
        monkeypatch.setenv("POCKETVISION_CACHE", str(tmp_path / "cache"))
        path = tmp_path / "image.jpg"
        shutil.copy(items[0].image, path)
        stamp = path.stat().st_mtime_ns
        first = self.batches((Item(str(path), 0),), None)[0]
        shutil.copy(items[1].image, path)
        os.utime(path, ns=(stamp, stamp))
        assert not np.array_equal(self.batches((Item(str(path), 0),), None)[0], first)
        assert np.array_equal(
            self.batches((Item(items[1].image, 0),), None)[0], self.batches((Item(str(path), 0),), None)[0]
        )

    def test_damaged_entries_are_decoded_again(self, items: tuple[Item, ...], tmp_path: Path, monkeypatch):
        monkeypatch.setenv("POCKETVISION_CACHE", str(tmp_path))
        expected = self.batches(items, None)
        for path in tmp_path.glob("??/*"):
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])
        for _ in range(2):
            assert all(np.array_equal(a, b) for a, b in zip(self.batches(items, None), expected, strict=True))
