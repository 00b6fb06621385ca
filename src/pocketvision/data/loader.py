"""Batches as a pure function of (seed, epoch, position), the same for any number of worker processes."""

import copy
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from queue import Queue
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from ..errors import ConfigurationError, DataError
from ..spec.model import Preprocessing
from .box_transforms import Scene, augmented_scene, mosaic, placed
from .cache import ImageCache, cache_limit
from .disk import DiskCache, cache_folder, image_key
from .mask_transforms import augmented_mask, resized_mask
from .masks import read_mask
from .sources import Item
from .transforms import Augment, augmented, load_prepared, load_reduced

_KEPT_SIDE = 1.15  # of preprocessing.resize: the short side of the images that augmentation crops from
_KEPT_ASPECT = 4  # long side / short side, assumed at most when memory is reserved


class Truth(NamedTuple):
    """The boxes of one image of a batch: ``boxes`` float32 [n, 4], x1, y1, x2, y2 in pixels of the network's input;
    ``labels`` int64 [n], from 0; ``ignored`` bool [n]."""

    boxes: Tensor
    labels: Tensor
    ignored: Tensor

    def to(self, device: str) -> "Truth":
        """The same on ``device``."""
        return Truth(*(tensor.to(device) for tensor in self))


@dataclass(slots=True)
class Batch:
    """Images uint8 [B, 3, S, S] (stored channels last), labels int64 [B], and where they come from.

    ``boxes``: of detection, for each image what is to be found in it; empty otherwise. ``masks``: of segmentation, for
    each image the class of every pixel, uint8 [S, S] while training and of the mask's own size otherwise; 255 is void.
    ``mixed``: labels [B] of the images that were blended in, and their share.
    """

    images: Tensor
    labels: Tensor
    items: tuple[Item, ...]
    boxes: tuple[Truth, ...] = ()
    masks: tuple[Tensor, ...] = ()
    mixed: tuple[Tensor, float] | None = None


class ImageLoader:
    """Batches of ``items``, epoch after epoch.

    Without ``augment``: in the order of the items, each as ``load_prepared`` gives it. With it: in an order
    drawn from (seed, epoch), each sample's changes drawn from (seed, epoch, index of the item); a last batch
    of a single sample is dropped then, because BatchNorm cannot train on one.

    Decoded images are kept in memory (up to 2 GiB and a quarter of what is free) and as files (``data.disk``), so
    neither later epochs nor later runs decode again; the pixels are the same either way. ``workers=0`` works in
    this process and leaves the global random generators as they were; otherwise that many processes prepare the
    batches.

    ``share`` (number, count): of each batch only this process's part of ``count``. Parts may be empty, but none that is
    not holds a single image of several, on which BatchNorm could not train.

    Items with boxes or masks make batches with these; their images are stretched to the input (``Preprocessing.fit``).
    """

    def __init__(
        self,
        items: Sequence[Item],
        preprocessing: Preprocessing,
        *,
        batch: int = 32,
        augment: Augment | None = None,
        seed: int = 0,
        workers: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if not items:
            raise DataError("there are no images to load; check that this part of the data set is not empty")
        if batch < 1 or workers < 0 or seed < 0:
            raise ConfigurationError(f"{batch=}, {workers=}, {seed=}; valid: batch from 1, workers and seed from 0")
        if len({(item.boxes is None, item.mask is None) for item in items}) > 1:
            raise ConfigurationError("some of the items have boxes or masks, some have not; give those of one data set")
        what = "boxes" if items[0].boxes else "masks" if items[0].mask else ""
        if what and preprocessing.fit != "stretch":
            raise ConfigurationError(f'fit={preprocessing.fit!r} would cut {what} off; nearest valid: fit="stretch"')
        self.items, self.batch, self.augment = tuple(items), batch, augment
        self.seed, self.workers, self.share = seed, workers, share
        self._reader = _Reader(self.items, preprocessing, augment, seed)

    def at(self, size: int, augment: Augment | None) -> "ImageLoader":
        """The same images in the same order at another size, augmented otherwise; decoded images are shared."""
        if size == self._reader.preprocessing.size and augment == self.augment:
            return self
        self._reader.reserve()
        other = copy.copy(self)
        other.augment = augment
        p = replace(self._reader.preprocessing, size=size)
        other._reader = replace(self._reader, preprocessing=p, augment=augment)
        other._reader.cache, other._reader.disk = self._reader.cache, self._reader.disk
        return other

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.items), self.batch)
        dropped = self.augment is not None and rest == 1 and full > 0
        return full + (rest > 0 and not dropped)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number ``start`` on.

        Raises DataError for an image that cannot be read (with its path) and for a worker that died.
        """
        order = np.arange(len(self.items))
        if self.augment is not None:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        requests = [
            (epoch, _part(order[first : first + self.batch], *self.share))
            for first in range(start * self.batch, len(self) * self.batch, self.batch)
        ]
        if not requests:
            return
        self._reader.reserve()
        here = (self._reader(request) for request in requests)
        with closing(_from_workers(self._reader, requests, self.workers) if self.workers else here) as results:
            for (_, indices), result in zip(requests, results, strict=True):
                if isinstance(result, DataError):
                    raise result
                images, truths = result
                items = tuple(self.items[index] for index in indices)
                batch = Batch(images, torch.tensor([item.label for item in items], dtype=torch.int64), items)
                tensors = [[torch.from_numpy(array) for array in truth] for truth in truths]
                if self.items[0].mask:
                    batch.masks = tuple(mask for (mask,) in tensors)
                else:
                    batch.boxes = tuple(Truth(*truth) for truth in tensors)
                yield batch


@dataclass(slots=True)
class _Reader:
    """Reads one requested batch: (epoch, indices) -> uint8 [B, 3, S, S] and what each ``Truth`` is made of, or each
    mask, or the DataError that it met."""

    items: tuple[Item, ...]
    preprocessing: Preprocessing
    augment: Augment | None
    seed: int
    cache: ImageCache | None = field(default=None, init=False)
    disk: DiskCache | None = field(default=None, init=False)

    def reserve(self) -> None:
        """Set the cache up, before any worker process is forked from this one."""
        if self.cache is None:
            side = self.preprocessing.size if self.augment is None else self._kept_side
            largest = side * side * (1 if self.augment is None else _KEPT_ASPECT)
            size = len(self.items) * largest * 3
            for mask in (item.mask for item in self.items if item.mask):
                area = mask.size[0] * mask.size[1]
                size += area if self.augment is None else min(area, largest)
            self.cache = ImageCache(2 * len(self.items), min(cache_limit(), size))  # masks after the images
            self.disk = DiskCache(folder) if (folder := cache_folder()) else None
            self((0, [0]))  # import here, once, what each worker of each epoch would otherwise import again

    def __call__(self, request: tuple[int, list[int]]) -> tuple[Tensor, list[tuple[np.ndarray, ...]]] | DataError:
        epoch, indices = request
        size = self.preprocessing.size
        pixels = np.empty((len(indices), size, size, 3), np.uint8)
        truths = list[tuple[np.ndarray, ...]]()  # not tensors: a worker would hand over a file descriptor for each
        try:
            with torch.random.fork_rng(devices=[], enabled=self.augment is not None):
                for row, index in enumerate(indices):
                    pixels[row], *truth = self._sample(epoch, index)
                    truths += [tuple(truth)] if truth else []
        except DataError as error:
            return DataError(*error.args)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), truths

    __getitem__ = __call__  # what torch's DataLoader asks for

    def _sample(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        """The pixels of a sample and what its ``Truth`` is made of, or its mask."""
        p, item = self.preprocessing, self.items[index]
        if self.augment is None:
            if item.mask:
                image, mask = self._masked(index)
                return image, mask.copy()  # whoever gets the batch may write to it
            return self._scene(index) if item.boxes else (self._kept(index),)
        seed = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0]
        torch.default_generator.manual_seed(int(seed))  # torch.manual_seed would also seed every accelerator
        if item.mask:
            return augmented_mask(*self._masked(index), p.size, self.augment, p.interpolation)
        if not item.boxes:
            return (augmented(self._kept(index), p.size, self.augment, p.interpolation),)
        if self.augment.mosaic and torch.rand(()).item() < self.augment.mosaic:
            indices = [index, *torch.randint(len(self.items), (3,)).tolist()]
            return mosaic([self._scene(index) for index in indices], p.size, self.augment, p.interpolation)
        return augmented_scene(self._scene(index), p.size, self.augment, p.interpolation)

    def _scene(self, index: int) -> Scene:
        """What is cached of an image, with its boxes in its pixels."""
        boxes = self.items[index].boxes
        assert boxes is not None
        return placed(boxes, self._kept(index))

    def _masked(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """What is cached of an image, and of its mask: as large as that for training, otherwise of its own size."""
        mask = self.items[index].mask
        assert mask is not None
        image = self._kept(index)
        shape = image.shape[:2] if self.augment else mask.size[::-1]
        how = f"mask {shape} {mask.values} {mask.colours} {mask.turn}"
        return image, self._cached(
            len(self.items) + index, mask.file, how, lambda: resized_mask(read_mask(mask), *shape)
        )

    @property
    def _kept_side(self) -> int:
        return round(_KEPT_SIDE * self.preprocessing.resize)

    def _kept(self, index: int) -> np.ndarray:
        """What is cached of an image: all of its preparation that is not random."""
        path, p = self.items[index].image, self.preprocessing
        if self.augment:
            how = f"reduced {self._kept_side} {p.interpolation}"
            return self._cached(index, path, how, lambda: load_reduced(path, self._kept_side, p.interpolation))
        how = f"prepared {p.resize} {p.size}" if p.fit == "crop" else f"stretched {p.size}"
        return self._cached(index, path, f"{how} {p.interpolation}", lambda: load_prepared(path, p))

    def _cached(self, entry: int, file: str, how: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What ``make`` makes of a file, from the memory or the disk where it is there."""
        assert self.cache is not None
        image = self.cache.get(entry)
        if image is not None:
            return image
        key = self._key(file, how)
        image = self.disk.get(key) if self.disk and key else None
        if image is None:
            image = make()
            if self.disk and key and key == self._key(file, how):  # nobody changed the file meanwhile
                self.disk.put(key, image)
        self.cache.put(entry, image)
        return image

    def _key(self, file: str, how: str) -> str | None:
        """The name on the disk of what is made of a file; None where there is none."""
        try:
            return image_key(file, how) if self.disk else None
        except OSError:  # whoever decodes it says what is wrong with it
            return None


def _part(batch: np.ndarray, number: int, count: int) -> list[int]:
    """Part ``number`` of ``count``; of a small batch only the first ones have some, at least two images."""
    count = max(1, min(count, len(batch) // 2))
    return batch[number::count].tolist() if number < count else []


def _from_workers(reader: _Reader, requests: list[tuple[int, list[int]]], workers: int) -> Generator[Any]:
    loader = torch.utils.data.DataLoader(
        reader,  # type: ignore[arg-type]  (a map-style dataset is whatever has __getitem__)
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        collate_fn=_unchanged,
        multiprocessing_context="fork" if sys.platform == "linux" else None,  # forked workers share the cache
        generator=torch.Generator(),  # the default is to draw from the global one
    )
    batches = _started(loader)
    try:
        yield from batches
    except (RuntimeError, OSError, EOFError) as error:
        if isinstance(error, RuntimeError) and "exited unexpectedly" not in str(error):
            raise
        raise DataError(
            f"a process that prepares images died ({error}); the machine may be out of memory: "
            f"use fewer workers (now {workers}), or workers=0"
        ) from error
    finally:
        # At once: an error's traceback may keep the iterator alive, and when the garbage collector ends it at last,
        # its queues may already be closed, and each worker is waited for in vain for 5 seconds.
        batches._shutdown_workers()


def _started(loader: torch.utils.data.DataLoader) -> Any:
    """The iterator with its workers, started by another thread.

    Where the main thread starts them, torch reports a dead worker by a signal handler that raises in whatever
    the main thread does just then; otherwise the wait for the next batch raises, where we can say what to do.
    """
    started: Queue[Any] = Queue()

    def start() -> None:
        with warnings.catch_warnings():  # of more workers than cores, and of forking beside threads: they hold no lock
            warnings.simplefilter("ignore")
            try:
                started.put(iter(loader))
            except Exception as error:  # noqa: BLE001  handed on to the thread that waits
                started.put(error)

    thread = Thread(target=start)
    thread.start()
    thread.join()
    result = started.get()
    if isinstance(result, Exception):
        raise result
    return result


def _unchanged(value: Any) -> Any:
    return value
