"""Batches with masks: as for classes, a pure function of (seed, epoch, position); image and mask move together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pocketvision.data import loader as loader_module
from pocketvision.data.loader import Batch, ImageLoader
from pocketvision.data.mask_transforms import augmented_mask, resized_mask
from pocketvision.data.masks import VOID, read_mask
from pocketvision.data.sources import Item, open_dataset
from pocketvision.data.transforms import Augment, load_prepared
from pocketvision.errors import ConfigurationError
from pocketvision.spec.model import Preprocessing

from .boxed import picture
from .masked import save

SMALL = Preprocessing(size=48, resize=48, fit="stretch")
AUGMENT = Augment(zoom=(0.5, 2.0), distort=0.5)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> tuple[Item, ...]:
    """Twelve images of different shapes; the even ones are larger than what is kept."""
    root, rng = tmp_path_factory.mktemp("masked"), np.random.default_rng(0)
    for number in range(12):
        size = (70 + 10 * number, 90 if number % 2 else 50)
        picture(root / f"train/images/{number:02}.png", size)
        save(root / f"train/masks/{number:02}.png", rng.integers(0, 4, size[::-1]).astype(np.uint8))
    picture(root / "val/images/a.png")
    save(root / "val/masks/a.png", np.zeros((30, 40), np.uint8))
    return open_dataset(root, check=False).train


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return [batch.items for batch in one] == [batch.items for batch in other] and all(
        torch.equal(a.images, b.images)
        and len(a.masks) == len(b.masks) == len(a.items)
        and all(map(torch.equal, a.masks, b.masks))
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
    assert equal(list(loader().epoch(1)), second)  # from the disk
    monkeypatch.setattr(loader_module, "cache_folder", lambda: None)
    assert equal(list(loader().epoch(1)), second)  # decoded each time


def test_evaluation_keeps_masks_as_they_are(items: tuple[Item, ...]):
    for batch in ImageLoader(items, SMALL, batch=5).epoch():
        assert batch.images.shape[1:] == (3, 48, 48)
        assert batch.boxes == ()
        for image, mask, item in zip(batch.images, batch.masks, batch.items, strict=True):
            assert item.mask
            assert np.array_equal(image.permute(1, 2, 0).numpy(), load_prepared(item.image, SMALL))
            assert np.array_equal(mask.numpy(), read_mask(item.mask))


def test_masks_are_decoded_once(items: tuple[Item, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loader_module, "cache_folder", lambda: None)
    decoded = list[str]()
    monkeypatch.setattr(loader_module, "read_mask", lambda mask: (decoded.append(mask.file), read_mask(mask))[1])
    for augment in (None, AUGMENT):
        decoded.clear()
        loader = ImageLoader(items, SMALL, batch=4, augment=augment)
        for epoch in range(3):
            list(loader.epoch(epoch))
        assert sorted(decoded) == sorted(item.mask.file for item in items if item.mask)


def test_a_changed_mask_is_read_again(tmp_path: Path):
    for split in ("train", "val"):
        picture(tmp_path / f"{split}/images/a.png")
        save(tmp_path / f"{split}/masks/a.png", np.repeat([[0], [1]], 15, 0).repeat(40, 1).astype(np.uint8))
    items = open_dataset(tmp_path, check=False).train
    for value in (0, 1):
        save(tmp_path / "train/masks/a.png", np.full((30, 40), value, np.uint8))
        (batch,) = ImageLoader(items, SMALL).epoch()
        assert (batch.masks[0] == value).all()


def test_shares_of_processes_make_up_the_batch(items: tuple[Item, ...]):
    whole = list(ImageLoader(items, SMALL, batch=6, augment=AUGMENT, seed=1).epoch(2))
    parts = [list(ImageLoader(items, SMALL, batch=6, augment=AUGMENT, seed=1, share=(n, 2)).epoch(2)) for n in range(2)]
    for number, batch in enumerate(whole):
        for n, part in enumerate(parts):
            assert torch.equal(part[number].images, batch.images[n::2])
            assert all(map(torch.equal, part[number].masks, batch.masks[n::2]))


def test_another_size_shares_decoded_images(items: tuple[Item, ...]):
    smaller = ImageLoader(items, SMALL, batch=4, augment=AUGMENT).at(32, Augment())
    fresh = ImageLoader(items, Preprocessing(32, 48, fit="stretch"), batch=4, augment=Augment())
    batches = list(smaller.epoch())
    assert batches[0].masks[0].shape == (32, 32)
    assert equal(batches, list(fresh.epoch()))


def test_what_does_not_go_together(items: tuple[Item, ...]):
    with pytest.raises(ConfigurationError, match=r"fit='crop' would cut masks off; nearest valid: fit=\"stretch\""):
        ImageLoader(items, Preprocessing(48, 48))
    with pytest.raises(ConfigurationError, match="some of the items have boxes or masks, some have not"):
        ImageLoader((*items, Item("x.png", 0)), SMALL)
    with pytest.raises(ConfigurationError, match=r"Augment.zoom=\(2, 1\) must be two rising numbers above 0"):
        Augment(zoom=(2, 1))


def test_camvid_trains_and_leaves_the_global_generator(shared: Path):
    items = open_dataset(shared / "data/camvid11", check=False).train[:8]
    torch.manual_seed(5)
    before = torch.get_rng_state().clone()
    batches = list(ImageLoader(items, Preprocessing(96, 96, fit="stretch"), batch=4, augment=AUGMENT).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)
    masks = torch.stack([mask for batch in batches for mask in batch.masks])
    assert masks.shape == (8, 96, 96)
    assert set(masks.unique().tolist()) <= {*range(11), VOID}
    assert len(masks.unique()) > 6


# The transforms themselves: pixels of a picture that tell where they come from.


def told(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture in blocks of 20 pixels, and a mask with the number of each block, which is also its red."""
    blocks = np.arange(1, 1 + (height // 20) * (width // 20), dtype=np.uint8).reshape(height // 20, -1)
    mask = blocks.repeat(20, 0).repeat(20, 1)
    return np.stack([mask, 255 - mask, mask], axis=2), mask


def test_image_and_mask_move_together():
    image, mask = told(120, 160)
    assert mask.max() == 48
    shares = []
    for seed in range(60):
        torch.manual_seed(seed)
        seen, classes = augmented_mask(image, mask, 96, AUGMENT if seed % 2 else Augment(zoom=(0.5, 2.0)))
        assert (seen.shape, classes.shape) == ((96, 96, 3), (96, 96))
        assert (seen.dtype, classes.dtype) == (np.uint8, np.uint8)
        shares.append((classes != VOID).mean())
        if seed % 2 == 0:
            inside = classes != VOID
            equal_share = (np.abs(seen[..., 0].astype(int) - classes) <= 1)[inside].mean()
            assert equal_share > 0.75  # but for the edges of blocks, which are blended in the image
            assert (seen[~inside] == (124, 116, 104)).all()
    assert min(shares) < 0.35
    assert max(shares) == 1.0
    assert 0.3 < np.mean([share < 1 for share in shares]) < 0.7  # enlarged as often as reduced


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_without_zoom_all_of_it_is_stretched(flip: float):
    image, mask = told(120, 160)
    seen, classes = augmented_mask(image, mask, 80, Augment(flip=flip))
    expected = resized_mask(mask, 80, 80)
    assert np.array_equal(classes, expected[:, ::-1] if flip else expected)
    assert np.abs(seen[8:12, 2:6, 1].astype(int) - (255 - (8 if flip else 1))).max() <= 1


def test_zoom_goes_from_end_to_end():
    _, mask = told(120, 160)
    image = np.zeros((120, 160, 3), np.uint8)
    torch.manual_seed(0)
    firsts, lasts = set[int](), set[int]()
    for _ in range(300):
        classes = augmented_mask(image, mask, 64, Augment(flip=0, zoom=(2, 2)))[1]
        assert VOID not in classes
        firsts.add(int(classes[0, 0]) - 1)
        lasts.add(int(classes[-1, -1]) - 1)
    assert {block % 8 for block in firsts} == {0, 1, 2, 3, 4}  # of 8 blocks side by side, 4 are seen
    assert {block // 8 for block in firsts} == {0, 1, 2, 3}
    assert {block % 8 for block in lasts} == {3, 4, 5, 6, 7}
    reduced = [augmented_mask(image, mask, 64, Augment(flip=0, zoom=(0.5, 0.5)))[1] for _ in range(200)]
    assert all((classes != VOID).sum() == 32 * 32 for classes in reduced)
    tops = [int((classes != VOID).any(1).argmax()) for classes in reduced]
    assert (min(tops), max(tops)) == (0, 32)


def test_masks_are_reduced_by_nearest_centres():
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert resized_mask(mask, 3, 4) is mask
    assert resized_mask(mask, 1, 2).tolist() == [[5, 7]]
    assert resized_mask(mask, 6, 4)[:, 0].tolist() == [0, 0, 4, 4, 8, 8]
    large = np.random.default_rng(0).integers(0, 255, (97, 131)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(large).resize((40, 30), Image.Resampling.NEAREST))
    assert np.array_equal(resized_mask(large, 30, 40), expected)
