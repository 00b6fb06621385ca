"""Batches with boxes: as for classes, a pure function of (seed, epoch, position)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pocketvision.data import loader as loader_module
from pocketvision.data.box_transforms import placed
from pocketvision.data.boxes import Boxes
from pocketvision.data.loader import Batch, ImageLoader
from pocketvision.data.sources import Item, open_dataset
from pocketvision.data.transforms import Augment, load_prepared
from pocketvision.errors import ConfigurationError
from pocketvision.spec.model import Preprocessing

from .boxed import coco, picture

SMALL = Preprocessing(size=48, resize=48, fit="stretch")
AUGMENT = Augment(zoom_out=0.5, iou_crop=1, distort=0.5, mosaic=0.3)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> tuple[Item, ...]:
    """Twelve images of different shapes with up to three boxes."""
    root = tmp_path_factory.mktemp("boxed")
    rng = np.random.default_rng(0)
    boxes = {}
    for number in range(12):
        corners = rng.integers(0, 20, (number % 4, 4)) + np.array([0, 0, 20, 20])
        boxes[f"{number:02}.png"] = [("cat", tuple(box)) for box in corners.tolist()]
    for number, name in enumerate(boxes):
        picture(root / name, (80 + 10 * number, 60))
    coco(root / "train.json", boxes, size=(0, 0))
    coco(root / "val.json", {"00.png": []}, size=(0, 0))
    return open_dataset(root, check=False).train


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return [batch.items for batch in one] == [batch.items for batch in other] and all(
        torch.equal(a.images, b.images)
        and len(a.boxes) == len(b.boxes) == len(a.items)
        and all(torch.equal(x, y) for s, t in zip(a.boxes, b.boxes, strict=True) for x, y in zip(s, t, strict=True))
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("augment", [None, AUGMENT], ids=["evaluation", "training"])
def test_same_batches_for_any_workers_resume_and_cache(
    items: tuple[Item, ...], augment: Augment | None, monkeypatch: pytest.MonkeyPatch
):
    def loader(workers: int = 0) -> ImageLoader:
        return ImageLoader(items, SMALL, batch=4, augment=augment, seed=3, workers=workers)

    alone = loader()
    first, second = list(alone.epoch(0)), list(alone.epoch(1))
    assert equal(list(alone.epoch(0)), first)  # now from the cache
    assert equal(list(loader().epoch(1, start=1)), second[1:])
    several = loader(2)
    assert equal(list(several.epoch(0)), first)
    assert equal(list(several.epoch(1)), second)
    assert equal(first, second) == (augment is None)
    monkeypatch.setattr(loader_module, "cache_limit", lambda: 0)
    assert equal(list(loader().epoch(1)), second)


def test_evaluation_scales_boxes_to_the_input(items: tuple[Item, ...]):
    for batch in ImageLoader(items, SMALL, batch=5).epoch():
        assert batch.images.shape[1:] == (3, 48, 48)
        assert batch.labels.tolist() == [-1] * len(batch.items)
        for image, truth, item in zip(batch.images, batch.boxes, batch.items, strict=True):
            assert item.boxes is not None
            assert np.array_equal(image.permute(1, 2, 0).numpy(), load_prepared(item.image, SMALL))
            width, height = item.boxes.size
            expected = torch.tensor(item.boxes.corners).reshape(-1, 4) * torch.tensor([48 / width, 48 / height] * 2)
            assert torch.allclose(truth.boxes, expected)
            assert truth.labels.tolist() == list(item.boxes.labels)
            assert (truth.boxes.dtype, truth.labels.dtype, truth.ignored.dtype) == (
                torch.float32,
                torch.int64,
                torch.bool,
            )


def test_shares_of_processes_make_up_the_batch(items: tuple[Item, ...]):
    whole = list(ImageLoader(items, SMALL, batch=6, augment=AUGMENT, seed=1).epoch(2))
    parts = [list(ImageLoader(items, SMALL, batch=6, augment=AUGMENT, seed=1, share=(n, 2)).epoch(2)) for n in range(2)]
    for number, batch in enumerate(whole):
        for n, part in enumerate(parts):
            assert part[number].items == batch.items[n::2]
            assert torch.equal(part[number].images, batch.images[n::2])
            for mine, all_ in zip(part[number].boxes, batch.boxes[n::2], strict=True):
                assert torch.equal(mine.boxes, all_.boxes)


def test_another_size_and_augmentation_share_decoded_images(items: tuple[Item, ...]):
    loader = ImageLoader(items, SMALL, batch=4, augment=AUGMENT)
    smaller = loader.at(32, Augment())
    batch = next(iter(smaller.epoch()))
    assert batch.images.shape[-1] == 32
    assert all(truth.boxes.max() <= 32 for truth in batch.boxes if len(truth.boxes))
    fresh = ImageLoader(items, Preprocessing(32, 48, fit="stretch"), batch=4, augment=Augment())
    assert equal(list(smaller.epoch()), list(fresh.epoch()))


def test_real_boxes_and_their_global_generator(shared: Path):
    items = open_dataset(shared / "data/bccd", check=False).train[:8]
    torch.manual_seed(5)
    before = torch.get_rng_state().clone()
    batches = list(ImageLoader(items, Preprocessing(160, 160, fit="stretch"), batch=4, augment=AUGMENT).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)
    sizes = torch.cat([truth.boxes[:, 2:] - truth.boxes[:, :2] for batch in batches for truth in batch.boxes])
    assert len(sizes) > 20
    assert (sizes >= 2).all()


def test_what_does_not_go_together(items: tuple[Item, ...]):
    with pytest.raises(ConfigurationError, match=r"fit='crop' would cut boxes off; nearest valid: fit=\"stretch\""):
        ImageLoader(items, Preprocessing(48, 48))
    with pytest.raises(ConfigurationError, match="some of the items have boxes"):
        ImageLoader((*items, Item("x.png", 0)), SMALL)


def test_boxes_follow_the_reduced_image():
    """What is cached has whole pixels; boxes are scaled to those, not to the ideal ratio."""
    scene = placed(Boxes((1001, 333), ((0.0, 0.0, 1001.0, 333.0),), (0,), (False,)), np.zeros((55, 165, 3), np.uint8))
    assert scene.boxes.tolist() == [[0, 0, 165, 55]]


def test_cropped_and_stretched_images_are_kept_apart(items: tuple[Item, ...]):
    images = tuple(Item(item.image, 0) for item in items)
    for p in (Preprocessing(48, 48), SMALL):  # the second finds the first one's files
        (batch,) = ImageLoader(images, p, batch=12).epoch()
        for image, item in zip(batch.images, images, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), load_prepared(item.image, p))
