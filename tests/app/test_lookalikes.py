"""Pairs that look alike to a network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketvision import data_report
from pocketvision.app.lookalikes import ALIKE, lookalikes
from pocketvision.data.sources import Dataset, Item, open_dataset

DATA = Dataset(
    "few", ("a", "b"), tuple(Item(f"t{i}", 0) for i in range(3)), (Item("v0", 0), Item("v1", 1)), (Item("x", 1),), ()
)


def test_pairs_across_splits_the_most_alike_first():
    t0, t2, x = np.eye(8)[[0, 2, 5]]
    near, nearer = (t0 * ALIKE + np.eye(8)[7] * (1 - ALIKE**2) ** 0.5 * factor for factor in (0.9, 0.5))
    features = np.stack([t0, t0, t2, near, 5 * nearer, x])
    finding = lookalikes(DATA, features)
    assert finding is not None and finding.kind == "alike"
    assert finding.groups[:2] in ((("t1", "v1"), ("t0", "v1")), (("t0", "v1"), ("t1", "v1")))
    assert set(finding.groups) == {("t0", "v0"), ("t1", "v0"), ("t0", "v1"), ("t1", "v1")}  # never t0 with t1
    assert finding.text.startswith("4 pairs across splits")
    assert lookalikes(DATA, np.eye(8)[:6]) is None


def test_a_crop_of_a_photo_in_another_split_is_told(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POCKETVISION_WEIGHTS", str(shared / "data" / "weights"))
    whole = open_dataset(shared / "data" / "clothing10", check=False)
    for number, item in enumerate((*whole.train[:12], *whole.train[-12:])):
        split, name = ("val" if number % 12 > 8 else "train"), whole.classes[item.label]
        (folder := tmp_path / "data" / split / name).mkdir(parents=True, exist_ok=True)
        Image.open(item.image).save(folder / f"{number}.png")
    source = tmp_path / "data" / "train" / whole.classes[whole.train[0].label] / "0.png"
    image = Image.open(source)
    width, height = image.size
    crop = source.parents[2] / "val" / source.parent.name / "crop.png"
    image.crop((0, 0, round(0.96 * width), round(0.96 * height))).save(crop)
    report = data_report(tmp_path / "data", out=tmp_path / "page.html")
    alike = next(finding for finding in report.findings if finding.kind == "alike")
    assert (str(source), str(crop)) in alike.groups
    assert "look alike" in (tmp_path / "page.html").read_text()
    copies = replace(whole, train=whole.train[:2], val=whole.train[:1], looks=None)
    assert lookalikes(copies, np.eye(3)[[0, 1, 0]]) is not None
