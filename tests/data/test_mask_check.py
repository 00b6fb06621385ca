"""What the check of a data set says of masks."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketvision.data.check import check_dataset, class_counts, refuse_leaks
from pocketvision.data.mask_check import areas_of, class_shares, void_share
from pocketvision.data.sources import load_split, open_dataset, save_split
from pocketvision.errors import DataError
from pocketvision.report.data_masks import _chosen

from .boxed import picture
from .masked import make, save, values


def kinds(root: Path) -> dict[str, str]:
    return {finding.kind: finding.text for finding in check_dataset(open_dataset(root))}


def large(root: Path) -> Path:
    """Twenty images for training and one for validation, all with three classes in halves and a corner."""
    for split, count in (("train", 20), ("val", 1)):
        for number in range(count):
            picture(root / f"{split}/images/{split}{number:02}.png")
            mask = np.zeros((30, 40), np.uint8)
            mask[15:], mask[0, 0] = 1, 2
            save(root / f"{split}/masks/{split}{number:02}.png", mask)
    return root


def test_shares_by_pixels_and_by_images(tmp_path: Path):
    large(tmp_path)
    save(tmp_path / "train/masks/train03.png", np.repeat([[0, 255]], 30, 0).repeat(20, 1).astype(np.uint8))
    dataset = open_dataset(tmp_path)
    assert class_counts(dataset)["train"] == {"0": 20, "1": 19, "2": 19}
    assert class_counts(dataset)["val"] == {"0": 1, "1": 1, "2": 1}
    total = 20 * 1200 - 600
    expected = {"0": (19 * 599 + 600) / total, "1": 19 * 600 / total, "2": 19 / total}
    assert class_shares(dataset) == pytest.approx(expected)
    assert void_share(dataset) == pytest.approx(600 / (21 * 1200))
    found = kinds(tmp_path)
    assert found["counts"] == "3 classes; images: 20 train, 1 val; 2.4% of all pixels are void"
    assert found["shares"] == "of train's pixels: 0 51.2%, 1 48.7%, 2 0.1%"
    assert found["unequal"] == "unequal classes: less than 0.5% of train's pixels are '2' (0.08%)"
    assert found["few"] == "fewer than 20 training images: '1' (19), '2' (19)"
    assert found["background"] == "1 of 20 training images have nothing but '0'"
    assert set(found) == {"counts", "shares", "unequal", "few", "background"}


def test_a_loaded_split_is_looked_at_again(tmp_path: Path):
    dataset = open_dataset(make(tmp_path))
    loaded = load_split(save_split(dataset, tmp_path / "split.json"))
    assert not loaded.areas
    assert {image: area.tolist() for image, area in areas_of(loaded).items()} == {
        image: area.tolist() for image, area in dataset.areas.items()
    }


def test_classes_that_are_absent(tmp_path: Path):
    large(tmp_path)
    (tmp_path / "classes.txt").write_text("land\nsea\nship\ngull\n")
    found = kinds(tmp_path)
    assert found["few"] == "fewer than 20 training images: 'gull' (0)"
    assert found["absent"] == "no validation images, so unknown accuracy: 'gull'"
    assert found["unequal"].endswith("'gull' (0.00%), 'ship' (0.08%)")


def test_what_was_done_to_masks(tmp_path: Path):
    large(tmp_path)
    for number in range(2):
        save(tmp_path / f"val/masks/val{number:02}.png", values("x", 5))
    findings = [finding for finding in check_dataset(open_dataset(tmp_path)) if finding.kind == "masks"]
    alone, unlisted = findings
    assert alone.text.startswith(f"1 mask without an image, for example {tmp_path / 'val/masks/val01.png'}: ")
    assert unlisted.text.startswith("1 mask with values that no class has (void), for example")
    assert unlisted.groups == ((str(tmp_path / "val/images/val00.png"),),)
    assert {finding.severity for finding in findings} == {"warning"}


def test_leaks_count_as_for_classes(tmp_path: Path):
    large(tmp_path)
    shutil.copy(tmp_path / "train/images/train04.png", tmp_path / "val/images/val00.png")
    dataset = open_dataset(tmp_path)
    findings = check_dataset(dataset)
    (leak,) = (finding for finding in findings if finding.kind == "leak")
    assert leak.fix == "remove one copy of each"
    with pytest.raises(DataError, match="1 of the val images"):
        refuse_leaks(dataset, findings)


def test_the_sample_has_nothing_wrong():
    whole = open_dataset("sample:digit-scenes", task="segment")
    findings = check_dataset(replace(whole, train=whole.train[:90], val=whole.val[:30]))
    assert {finding.severity for finding in findings} == {"info"}
    assert [finding.kind for finding in findings] == ["counts", "shares"]


def test_pictures_of_all_classes_where_the_rarest_is_in_one_image(tmp_path: Path):
    large(tmp_path)
    for number in range(1, 20):
        save(tmp_path / f"train/masks/train{number:02}.png", np.eye(30, 40, dtype=np.uint8))
    chosen = [(Path(item.image).stem, index) for item, index in _chosen(open_dataset(tmp_path))]
    assert len({image for image, _ in chosen}) == len(chosen) == 12
    assert chosen[0] == ("train00", 2)
    assert {index for _, index in chosen[1:]} == {0, 1}
