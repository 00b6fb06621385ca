"""A segmenter's part of the report, the code that a reader copies from it, and masks as pictures."""

import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pocketvision.app.predict import predict_files
from pocketvision.app.predicted import SegmentedImage
from pocketvision.data.masks import VOID, Mask
from pocketvision.data.sources import Dataset, Item
from pocketvision.exporting.artifact import Artifact
from pocketvision.measuring.mask_parity import MaskParity
from pocketvision.report import BuildReport
from pocketvision.report.card import card
from pocketvision.report.drawing import colour
from pocketvision.report.masks import colours, overlay, palette_png, tinted
from pocketvision.report.page import page
from pocketvision.report.segmentation import SegmentationView
from pocketvision.report.use import preprocessing_steps, snippet
from pocketvision.training.evaluate_segmentation import Labelled, SegmentationResult

CLASSES = ("background", "ant", "<b>bee</b>", "cow")
# Rows are true: ants are half found, the rest of them is taken for bees; there are no cows.
CONFUSION = np.array([[900, 0, 100, 0], [0, 50, 50, 0], [0, 0, 200, 0], [0, 0, 0, 0]])


def make_report(folder: Path, artifact: Artifact, **changes) -> BuildReport:
    """Three images: one with half of an ant taken for a bee, one that is right, one that cannot be read."""
    Image.new("RGB", (90, 60), "grey").save(folder / "mixed.jpg")
    truth = np.zeros((60, 90), np.uint8)
    truth[10:50, 10:50], truth[:, 80:] = 1, 255
    Image.fromarray(truth).save(folder / "mixed.png")
    found = np.zeros((96, 96), np.uint8)
    found[16:80, 11:32], found[16:80, 32:53] = 1, 2
    masks = [Mask(str(folder / "mixed.png"), (0, 1, 2, 3), (90, 60))] * 3
    names = [str(folder / name) for name in ("mixed.jpg", "right.jpg", "absent.jpg")]
    worst = (Labelled(names[2], 0.1, masks[2], found), Labelled(names[0], 0.4, masks[0], found))
    result = SegmentationResult(CLASSES, 3, CONFUSION, worst)
    items = tuple(Item(name, -1, mask=mask) for name, mask in zip(names, masks, strict=True))
    data = Dataset("insects", CLASSES, items, items, (), (), "masks", "segment")
    facts = {"title": "insects", "command": "pocketvision build", "data": data, "artifact": artifact, "latency": ()}
    curve = ({"epoch": 1, "val_miou": 0.2}, {"epoch": 2, "val_miou": 0.4})
    facts |= {"measured_on": "val split", "result": result, "parity": MaskParity(3, 27_000, 0.9999, 0.001)}
    return BuildReport(**facts | {"curve": curve} | changes)


@pytest.fixture
def report(tmp_path: Path, segmenter_file) -> BuildReport:
    return make_report(tmp_path, segmenter_file)


def test_page_shows_the_figures_and_the_worst_images(report):
    source = page(report)
    assert "<b>bee</b>" not in source
    iou = {"background": 900 / 1000, "ant": 50 / 100, "bee": 200 / 350}
    assert f"{sum(iou.values()) / 3:.1%}" in source and f"{1150 / 1300:.1%} of the pixels right" in source
    assert "agrees in 99.9900% of 27,000 pixels" in source and "mIoU on the validation split" in source
    rows = re.findall(r'<td class="num">(\d)</td><td class="text"><span class="chip"[^>]*></span>([^<]+)</td>', source)
    assert [name for _, name in rows] == ["ant", "&lt;b&gt;bee&lt;/b&gt;", "background", "cow"]  # the hardest first
    gallery = source[source.index('class="misses"') :]
    assert gallery.count('<img loading="lazy"') == 1  # the absent one cannot be shown
    assert "This image cannot be shown" in gallery
    assert gallery.index("absent.jpg") < gallery.index("mixed.jpg")
    assert source.count('<li><span class="chip" style="background:#000000"></span>background</li>') == 1  # the legend


def test_pairs_that_are_confused_most(report):
    pairs = SegmentationView(report, report.result).confusions()
    assert pairs == [("background", "<b>bee</b>", 0.1, 100 / 150), ("ant", "<b>bee</b>", 0.5, 50 / 150)]


def test_what_is_lowest_in_an_image_is_named(report):
    source = page(report)
    # of 1600 pixels of ants about half are found; bees are found where there are none
    assert re.search(r"mean IoU 40.0%; lowest: &lt;b&gt;bee&lt;/b&gt; \(0.0%\), ant \((4[5-9]|5[0-5])\.", source)


def test_no_errors_no_gallery(report):
    perfect = replace(report, result=replace(report.result, worst=()))
    assert "worst mistakes" not in page(perfect)


def test_card(report):
    _, matter, body = card(report).split("---\n", 2)
    front = yaml.safe_load(matter)
    assert front["pipeline_tag"] == "image-segmentation"
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert [metric["type"] for metric in metrics] == ["mean_iou", "accuracy"]
    assert metrics[0]["value"] == pytest.approx(report.result.value, abs=1e-4)
    assert "An image segmenter for 4 classes" in body
    assert SegmentationView(report, report.result).headline[0] in body


def test_snippet_makes_the_mask_that_predict_makes(segmenter_file, tmp_path, monkeypatch, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "tiny.onnx").write_bytes(segmenter_file.path.read_bytes())
    monkeypatch.chdir(tmp_path)
    code = snippet(make_report(tmp_path, segmenter_file)).replace("photo.jpg", "photo.png")
    exec(code, {})  # noqa: S102
    (result,) = predict_files(segmenter_file, ["photo.png"])
    assert isinstance(result, SegmentedImage)
    mask = np.asarray(Image.open("mask.png"))
    assert mask.shape == (144, 192)
    assert (mask == result.mask).mean() > 0.98  # Pillow's resize rounds otherwise
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert set(printed) == {one.label for one in result.classes}
    for one in result.classes:
        assert float(printed[one.label]) == pytest.approx(one.share, abs=0.02)


def test_preprocessing_in_words(segmenter_file):
    steps = " ".join(preprocessing_steps(segmenter_file.spec))
    assert "each side by itself" in steps and "class of each pixel of that square" in steps
    assert "Boxes" not in steps


def test_palette_png_has_the_values_and_the_colours():
    mask = np.array([[0, 1, 2], [3, 1, VOID]], np.uint8)
    picture = Image.open(BytesIO(palette_png(mask, CLASSES)))
    np.testing.assert_array_equal(np.asarray(picture), mask)
    shown = np.asarray(picture.convert("RGB"))
    assert tuple(shown[0, 0]) == (0, 0, 0)  # background
    assert "#{:02x}{:02x}{:02x}".format(*shown[0, 1]) == colour(1) == colours(CLASSES)[1]
    assert len({tuple(pixel) for pixel in shown.reshape(-1, 3)}) == 5
    assert len(set(colours([str(index) for index in range(150)]))) == 150


def test_tint_leaves_the_background_and_fits_any_size():
    photo = Image.new("RGB", (200, 100), (100, 100, 100))
    found = np.zeros((10, 10), np.uint8)
    found[:, 5:] = 1
    picture = np.asarray(tinted(photo, found, CLASSES, 0.5))
    assert (picture[:, :80] == 100).all()
    wanted = (100 + np.array([0x56, 0xB4, 0xE9])) / 2
    np.testing.assert_allclose(picture[50, 150], wanted, atol=2)


def test_overlay_names_each_class_inside_its_region():
    found = np.zeros((60, 90), np.uint8)
    found[5:55, 5:40], found[5:55, 50:85] = 1, 3
    picture = overlay(np.full((60, 90, 3), 100, np.uint8), found, CLASSES)
    assert picture.shape == (360, 540, 3)  # small, so enlarged
    for label, x in ((1, 22), (3, 67)):
        rgb = tuple(int(colour(label)[at : at + 2], 16) for at in (1, 3, 5))
        rows, columns = np.nonzero((picture == rgb).all(2))
        inner = (abs(columns - 6 * x) < 60) & (abs(rows - 180) < 60)
        assert inner.sum() > 100  # the label's own colour, not the tint's
