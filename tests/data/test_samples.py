"""The embedded digits."""

import numpy as np
import pytest
from PIL import Image

from pocketvision.data import scenes
from pocketvision.data.image import read_image
from pocketvision.data.samples import digit_labels, digit_split
from pocketvision.data.scenes import scene
from pocketvision.data.sources import open_dataset
from pocketvision.errors import DataError


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    data = load_digits()
    assert digit_labels() == tuple(data.target)
    for number in (0, 1, 1796):
        image = read_image(f"sample:digits/{number}")
        assert image.dtype == np.uint8
        assert image.shape == (32, 32, 3)
        assert (image == image[..., :1]).all()
        small = np.asarray(Image.fromarray(image[..., 0]).resize((8, 8), Image.Resampling.BOX))
        assert np.corrcoef(small.ravel(), data.images[number].ravel())[0, 1] > 0.97


def test_each_read_is_a_copy():
    read_image("sample:digits/5")[:] = 0
    assert read_image("sample:digits/5").max() > 200


def test_split_is_fixed_and_stratified():
    train, val = digit_split()
    assert (train, val) == digit_split()
    assert sorted(train + val) == list(range(1797))
    labels = digit_labels()
    for digit in range(10):
        share = sum(labels[number] == digit for number in val) / labels.count(digit)
        assert 0.19 < share < 0.21
    assert val[:8] == (5, 6, 7, 9, 17, 24, 25, 38)


@pytest.mark.parametrize("name", ["sample:digits/1797", "sample:digits/-1", "sample:digits/", "sample:digits/x"])
def test_absent_number(name: str):
    with pytest.raises(DataError, match="sample:digits/0 to sample:digits/1796"):
        read_image(name)


def test_absent_sample():
    with pytest.raises(DataError, match="did you mean 'sample:digits'"):
        read_image("sample:digts/1")


def test_digit_scenes_have_what_their_boxes_say():
    dataset = open_dataset("sample:digit-scenes")
    assert (len(dataset.train), len(dataset.val), dataset.task, dataset.name) == (600, 150, "detect", "digit-scenes")
    assert "10 classes, 600 train, 150 val (a fixed split), 3361 boxes" in dataset.description
    overlapping = 0
    for item in (*dataset.train[::60], *dataset.val[::30]):
        image, boxes, mask = scene(int(item.image.rpartition("/")[2]))
        assert item.boxes == boxes
        assert np.array_equal(read_image(item.image), image)
        assert image.shape == (*mask.shape, 3) == (160, 160, 3)
        assert 1 <= len(boxes.labels) <= 8
        assert set(np.unique(mask)) == set(range(len(boxes.labels) + 1))
        for index, (x1, y1, x2, y2) in enumerate(boxes.corners, 1):
            rows, columns = np.nonzero(mask == index)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)
            overlapping += len(np.unique(mask[int(y1) : int(y2), int(x1) : int(x2)])) > 2
            ink, around = (mask == index), (mask[int(y1) : int(y2), int(x1) : int(x2)] == 0)
            behind = image[int(y1) : int(y2), int(x1) : int(x2)][around]
            assert not len(behind) or np.abs(image[ink].mean(0) - behind.mean(0)).max() > 20  # it can be seen
    assert overlapping > 5


def test_scenes_for_training_hold_only_digits_for_training(monkeypatch: pytest.MonkeyPatch):
    seen = list[int]()
    monkeypatch.setattr(scenes, "_ink", lambda digit, side: seen.append(digit) or np.ones((side, side)))
    for numbers, split in ((range(0, 600, 20), 0), (range(600, 750, 5), 1)):
        seen.clear()
        for number in numbers:
            scene(number)
        assert len(seen) > 50
        assert set(seen) <= set(digit_split()[split])


def test_absent_scene():
    with pytest.raises(DataError, match="valid: sample:digit-scenes/0 to sample:digit-scenes/749"):
        read_image("sample:digit-scenes/750")
