"""The embedded digits."""

import numpy as np
import pytest
from PIL import Image

from pocketvision.data.image import read_image
from pocketvision.data.samples import digit_labels, digit_split
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
