"""Batches are a pure function of (seed, epoch, position): same pixels for any workers, resume or cache state."""

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pocketvision.data import loader as loader_module
from pocketvision.data.loader import Batch, ImageLoader
from pocketvision.data.sources import Item, open_dataset
from pocketvision.data.transforms import Augment, load_prepared
from pocketvision.errors import ConfigurationError, DataError
from pocketvision.spec.model import Preprocessing

SMALL = Preprocessing(size=24, resize=28)
AUGMENT = Augment(policy="trivialaugment", jitter=0.2, erase=0.3)


def digits(count: int) -> tuple[Item, ...]:
    return open_dataset("sample:digits").train[:count]


def photos(shared: Path, count: int) -> tuple[Item, ...]:
    return open_dataset(shared / "data/clothing10", check=False).train[:: 1969 // count][:count]


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return [batch.items for batch in one] == [batch.items for batch in other] and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("augment", [None, AUGMENT], ids=["evaluation", "training"])
def test_same_batches_for_any_workers_resume_and_cache(shared: Path, augment: Augment | None):
    def loader(workers: int) -> ImageLoader:
        return ImageLoader(photos(shared, 22), SMALL, batch=4, augment=augment, seed=3, workers=workers)

    alone = loader(0)
    first, second = list(alone.epoch(0)), list(alone.epoch(1))
    assert len(first) == len(alone) == 6
    assert equal(list(alone.epoch(0)), first)  # now from the cache
    assert equal(list(loader(0).epoch(1, start=4)), second[4:])  # resumed, nothing cached
    for workers in (1, 2):
        several = loader(workers)
        assert equal(list(several.epoch(0)), first)
        assert equal(list(several.epoch(1, start=2)), second[2:])  # partly from the cache
        assert equal(list(several.epoch(1)), second)
        if multiprocessing.get_start_method() == "fork":
            assert several._reader.cache is not None
            assert several._reader.cache.get(0) is not None  # what the workers decoded stays here


def test_same_batches_without_any_cache(shared: Path, monkeypatch: pytest.MonkeyPatch):
    cached = list(ImageLoader(photos(shared, 9), SMALL, batch=4, augment=AUGMENT).epoch(2))
    monkeypatch.setattr(loader_module, "cache_limit", lambda: 0)
    assert equal(list(ImageLoader(photos(shared, 9), SMALL, batch=4, augment=AUGMENT).epoch(2)), cached)


def test_evaluation_keeps_the_order_and_prepares(shared: Path):
    items = photos(shared, 7)
    batches = list(ImageLoader(items, SMALL, batch=3).epoch())
    assert [len(batch.items) for batch in batches] == [3, 3, 1]
    assert sum((batch.items for batch in batches), ()) == items
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (len(batch.items), 3, 24, 24)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == [item.label for item in batch.items]
        for image, item in zip(batch.images, batch.items, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), load_prepared(item.image, SMALL))


def test_training_shuffles_and_changes_every_epoch():
    loader = ImageLoader(digits(20), SMALL, batch=6, augment=Augment(), seed=1)
    epochs = [list(loader.epoch(number)) for number in range(3)]
    orders = [[item for batch in epoch for item in batch.items] for epoch in epochs]
    assert all(sorted(order, key=str) == sorted(digits(20), key=str) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert tuple(orders[0]) != digits(20)
    other = ImageLoader(digits(20), SMALL, batch=6, augment=Augment(), seed=2)
    assert [item for batch in other.epoch(0) for item in batch.items] != orders[0]
    pixels = {image.numpy().tobytes() for epoch in epochs for batch in epoch for image in batch.images}
    assert len(pixels) == 60


def test_a_samples_changes_do_not_depend_on_its_neighbours():
    """The seed belongs to the item's index, so another batch size gives the same pixels."""
    by_size = []
    for batch_size in (4, 10):
        batches = ImageLoader(digits(20), SMALL, batch=batch_size, augment=AUGMENT).epoch(1)
        by_size.append(torch.cat([batch.images for batch in batches]))
    assert torch.equal(*by_size)


@pytest.mark.parametrize(
    ("count", "batch", "augment", "sizes"),
    [
        (9, 4, AUGMENT, [4, 4]),
        (9, 4, None, [4, 4, 1]),
        (10, 4, AUGMENT, [4, 4, 2]),
        (8, 4, AUGMENT, [4, 4]),
        (1, 4, AUGMENT, [1]),
        (3, 1, AUGMENT, [1, 1, 1]),
    ],
)
def test_a_last_batch_of_one_is_dropped_in_training(count: int, batch: int, augment: Augment | None, sizes: list[int]):
    loader = ImageLoader(digits(count), SMALL, batch=batch, augment=augment)
    assert [len(batch.items) for batch in loader.epoch()] == sizes
    assert len(loader) == len(sizes)
    assert list(loader.epoch(0, start=len(sizes))) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_global_generators_stay_as_they_were(workers: int):
    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state().clone(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    for _ in ImageLoader(digits(8), SMALL, batch=4, augment=AUGMENT, workers=workers).epoch(3):
        assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


def test_global_generator_stays_after_an_error(tmp_path: Path):
    torch.manual_seed(5)
    before = torch.get_rng_state().clone()
    items = (*digits(3), Item(str(tmp_path / "absent.jpg"), 0))
    with pytest.raises(DataError):
        list(ImageLoader(items, SMALL, augment=AUGMENT).epoch())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", [None, AUGMENT], ids=["evaluation", "training"])
def test_an_image_that_breaks_later(tmp_path: Path, workers: int, augment: Augment | None):
    for number in range(8):
        Image.new("RGB", (30, 30), (number, 0, 0)).save(tmp_path / f"{number}.png")
    items = tuple(Item(str(tmp_path / f"{number}.png"), 0) for number in range(8))
    (tmp_path / "6.png").write_bytes((tmp_path / "6.png").read_bytes()[:50])
    with pytest.raises(DataError) as error:
        list(ImageLoader(items, SMALL, batch=2, augment=augment, workers=workers).epoch())
    assert str(error.value).startswith(str(tmp_path / "6.png"))
    assert "\n" not in str(error.value)
    assert multiprocessing.active_children() == []


def test_a_dead_worker_is_told():
    batches = ImageLoader(digits(400), SMALL, batch=2, augment=AUGMENT, workers=2).epoch()
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
    with pytest.raises(DataError, match="workers=0"):
        list(batches)


def test_no_process_or_thread_is_left_behind():
    threads = threading.active_count()
    batches = ImageLoader(digits(40), SMALL, batch=2, augment=AUGMENT, workers=2).epoch()
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()  # as the end of a loop that was left early does
    assert multiprocessing.active_children() == []
    end = time.monotonic() + 60
    while threading.active_count() > threads and time.monotonic() < end:  # queues' threads take a moment to end
        time.sleep(0.01)
    assert threading.active_count() <= threads


def test_wrong_arguments():
    with pytest.raises(DataError, match="no images"):
        ImageLoader((), SMALL)
    for wrong in ({"batch": 0}, {"workers": -1}, {"seed": -1}):
        with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))}="):
            ImageLoader(digits(2), SMALL, **wrong)
