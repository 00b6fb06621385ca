"""The page of a data set: what it says first, and where it is not written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketvision.app import data_report as module
from pocketvision.app.data_report import data_report
from pocketvision.data.check import check_dataset
from pocketvision.data.sources import Dataset, Item, open_dataset
from pocketvision.errors import ConfigurationError
from pocketvision.report.data_page import data_page


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Stands for a device: like one, it must not be renamed onto."""
    os.mkfifo(path := tmp_path / "pipe")
    return path


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, pipe: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "open_dataset", lambda *_, **__: pytest.fail("it was worked for nothing"))
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    for out in (tmp_path, pipe, tmp_path / "file" / "page.html", tmp_path / ("x" * 300)):
        with pytest.raises(ConfigurationError, match=r"the page cannot be written \(.+\); name another file") as info:
            data_report("sample:digits", out=out)
        assert str(out) in str(info.value)
    assert sorted(tmp_path.iterdir()) == before
    assert pipe.is_fifo()


def test_a_disk_that_is_full_at_the_end_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "image_features", lambda _: (None, "nothing"))
    monkeypatch.setattr(module, "suspects", lambda *_: [])
    monkeypatch.setattr(module, "write_text", full)
    with pytest.raises(ConfigurationError, match=r"page\.html.*No space left on device"):
        data_report("sample:digits", out=tmp_path / "page.html")


def page(dataset: Dataset, suspects: int = 0) -> str:
    suspect = {"image": "gone.png", "split": "train", "label": "a", "looks_like": "b", "probability": 0.9}
    return data_page(dataset, check_dataset(dataset), [suspect] * suspects, "pixels", "next")


def test_the_verdict():
    assert '<p class="verdict yes">✓ Ready for training</p>' in page(open_dataset("sample:digits"))
    items = tuple(Item(f"{number}.png", number % 2) for number in range(4))
    few = page(Dataset("few", ("a", "b"), items[:3], items[3:], (), ()), suspects=1)
    assert "Ready" not in few
    assert '<p class="verdict">Can be trained, with 2 warnings</p>' in few  # few images, and no val images of "a"
    assert "<span>label to look at</span>" in few
    assert "<p>1 image, taken for another class" in few


def test_a_page_of_boxes(tmp_path: Path):
    """Boxes that were mended are shown, and no label is doubted."""
    for name in "abc":
        Image.effect_noise((64, 48), 50).save(tmp_path / f"{name}.png")
    image = {"width": 64, "height": 48}
    for split, names in {"train": "ab", "val": "c"}.items():
        images = [{"id": number, "file_name": f"{name}.png"} | image for number, name in enumerate(names)]
        boxes = [
            {"image_id": 0, "category_id": 1, "bbox": box} for box in ([2, 3, 20, 20], [50, 9, 40, 9], [1, 1, 0, 5])
        ]
        categories = [{"id": 1, "name": "cat"}]
        text = json.dumps({"images": images, "annotations": boxes, "categories": categories})
        (tmp_path / f"{split}.json").write_text(text)
    report = data_report(tmp_path, out=tmp_path / "page.html")
    assert report.counts["train"] == {"cat": 2}
    assert (report.suspects, report.ok) == ((), True)
    assert "2 boxes clipped at the edge of the image, for example in" in str(report)
    page = report.page.read_text()
    assert "Boxes that were changed or left out" in page
    assert "train, 2 boxes" in page
    assert "Labels to look at" not in page


def test_page_of_masks(tmp_path: Path):
    """A set that has boxes too: the masks are looked at on request, and the page shows them."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 1)):
        for number in range(count):
            for kind in ("images", "masks"):
                (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{split}/images/{number}.png")
            mask = np.zeros((40, 60), np.uint8)
            mask[:, 30 + number :], mask[:2] = 1, 255
            Image.fromarray(mask).save(tmp_path / f"{split}/masks/{number}.png")
    (tmp_path / "classes.txt").write_text("sea\n<land>\n")
    images = [{"id": 0, "file_name": "images/0.png", "width": 60, "height": 40}]
    boxes = [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 1, 20, 20]}]
    text = json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "ship"}]})
    for split in ("train", "val"):
        (tmp_path / split / "boxes.json").write_text(text)
    assert data_report(tmp_path, out=tmp_path / "boxes.html").counts["train"] == {"ship": 1}
    report = data_report(tmp_path, out=tmp_path / "page.html", task="segment")
    assert report.counts["train"] == {"sea": 5, "<land>": 5}
    assert report.shares == pytest.approx({"sea": 160 / 300, "<land>": 140 / 300})
    assert report.next_step.endswith("--head lraspp")
    assert "of train's pixels: sea 53.3%, <land> 46.7%" in str(report)
    page = report.page.read_text()
    assert page.count('<figure><img class="tiny"') == 5
    assert "&lt;land&gt; 47.5%, sea 47.5%, void 5.0%" in page
    assert "<land>" not in page
    assert "share of train&#x27;s pixels" in page
    assert json.loads(json.dumps(report.to_dict()))["shares"]["sea"] == pytest.approx(0.533333)
