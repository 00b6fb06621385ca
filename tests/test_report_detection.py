"""A detector's part of the report, and the code that a reader copies from it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pocketvision.app.predict import predict_files
from pocketvision.app.predicted import BoxedImage
from pocketvision.data.boxes import Boxes
from pocketvision.data.sources import Dataset, Item
from pocketvision.exporting.artifact import Artifact
from pocketvision.measuring.box_parity import BoxParity
from pocketvision.report import BuildReport
from pocketvision.report.card import card
from pocketvision.report.detection import DetectionView
from pocketvision.report.page import page
from pocketvision.report.use import preprocessing_steps, snippet
from pocketvision.tasks.coco import Found
from pocketvision.training.evaluate_detection import compare

CLASSES = ("ant", "<b>bee</b>", "cow")


def make_report(folder: Path, artifact: Artifact, **changes) -> BuildReport:
    """Three images: one right, one with a missed and a wrong box, one that cannot be read."""
    Image.new("RGB", (900, 600), "grey").save(folder / "mixed.jpg")
    a, b, away = (60.0, 60.0, 300.0, 300.0), (400.0, 100.0, 800.0, 500.0), (500.0, 10.0, 560.0, 90.0)
    truths = [Boxes((900, 600), (a, b), (0, 1), (False, False)), Boxes((900, 600), (a,), (0,), (False,))]
    there, wrong = np.array([a]), np.array([a, away])
    found = [Found(wrong, np.array([0.9, 0.8]), np.array([0, 0])), Found(there, np.array([0.7]), np.array([0]))]
    truths.append(truths[0])
    found.append(Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)))
    names = [str(folder / name) for name in ("mixed.jpg", "right.jpg", "absent.jpg")]
    result = compare(names, truths, found, CLASSES)
    items = tuple(Item(name, -1, truth) for name, truth in zip(names, truths, strict=True))
    data = Dataset("insects", CLASSES, items, items, (), (), "COCO", "detect")
    facts = {"title": "insects", "command": "pocketvision build", "data": data, "artifact": artifact, "latency": ()}
    curve = ({"epoch": 1, "val_map": 0.2}, {"epoch": 2, "val_map": 0.4})
    facts |= {"measured_on": "val split", "result": result, "parity": BoxParity(3, 7, 0.9991, 1e-6, 1, 0)}
    return BuildReport(**facts | {"curve": curve} | changes)


@pytest.fixture
def report(tmp_path: Path, detector_file) -> BuildReport:
    return make_report(tmp_path, detector_file)


def test_page_shows_the_figures_and_the_misses(report):
    source = page(report)
    assert "<b>bee</b>" not in source
    figures = report.result.metrics
    assert f"{figures['map']:.1%}" in source and f"AP50 {figures['ap50']:.1%}" in source
    assert "7 boxes are the same" in source and "mAP on the validation split" in source
    gallery = source[source.index('class="misses"') :]
    assert gallery.count('<img loading="lazy"') == 1  # the right one is no miss, the absent one cannot be shown
    assert "This image cannot be shown" in gallery
    assert "missed: 1 &lt;b&gt;bee&lt;/b&gt;; wrong: 1 ant" in gallery
    assert gallery.index("absent.jpg") < gallery.index("mixed.jpg")  # two missed boxes are worse than one and a wrong
    rows = re.findall(r"<tr><td[^>]*>(ant|&lt;b&gt;bee&lt;/b&gt;|cow)</td><td[^>]*>([^<]+)", source)
    assert rows[0] == ("&lt;b&gt;bee&lt;/b&gt;", "0.0%")  # the hardest first
    assert rows[2] == ("cow", "–")  # no boxes


def test_no_errors_no_gallery(report):
    perfect = replace(report, result=replace(report.result, worst=()))
    assert "worst mistakes" not in page(perfect)


def test_card(report):
    _, matter, body = card(report).split("---\n", 2)
    front = yaml.safe_load(matter)
    assert front["pipeline_tag"] == "object-detection"
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert [metric["name"] for metric in metrics] == ["mAP", "AP50", "AP75"]
    assert metrics[0]["value"] == pytest.approx(report.result.value, abs=1e-4)
    assert "An object detector for 3 classes" in body
    assert "5 boxes in 3 images" in body
    assert DetectionView(report, report.result).headline[0] in body


def test_preprocessing_in_words(detector_file):
    steps = " ".join(preprocessing_steps(detector_file.spec))
    assert "each side by itself" in steps and "96 × 96" in steps
    assert "Cut out" not in steps


def test_snippet_finds_what_predict_finds(detector, tmp_path, monkeypatch, capsys, detector_file):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "tiny.onnx").write_bytes(detector_file.path.read_bytes())
    monkeypatch.chdir(tmp_path)
    code = snippet(make_report(tmp_path, detector_file)).replace("photo.jpg", "photo.png")
    assert "score >= 0.25" in code
    exec(code.replace("0.25", "0.02"), {})  # noqa: S102
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    (result,) = predict_files(detector_file, ["photo.png"], min_score=0.02)
    assert isinstance(result, BoxedImage) and len(result.boxes) > 5
    assert abs(len(printed) - len(result.boxes)) <= 2  # Pillow's resize rounds otherwise
    top = result.boxes[0]
    assert printed[0][0] == top.label
    np.testing.assert_allclose([float(value) for value in printed[0][1:]], [top.score, *top.corners], atol=2)
