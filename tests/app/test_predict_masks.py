"""Masks of images and videos: of the original's size, in files that others can read, laid over; wrong use is said."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pocketvision import predict
from pocketvision.app.cli import app
from pocketvision.app.predicted import SegmentedImage, SkippedFile
from pocketvision.app.video import read_frames
from pocketvision.data.transforms import load_prepared
from pocketvision.errors import ConfigurationError
from pocketvision.measuring.runtimes import open_segmenter

from .test_predict_boxes import noise, photos, write_video

__all__ = ["photos"]  # the fixture: a photo, a turned one, and one that is cut off


def test_classes_of_the_pixels(segmenter_file, photos):
    results = list(predict(segmenter_file.path, photos))
    assert [Path(result.file).name for result in results] == ["a.png", "cut.jpg", "turned.jpg"]
    assert isinstance(results[1], SkippedFile)
    image, turned = results[0], results[2]
    assert isinstance(image, SegmentedImage) and isinstance(turned, SegmentedImage)
    assert (image.size, turned.size) == ((200, 120), (64, 96))  # as they are shown
    found = open_segmenter(segmenter_file)(load_prepared(image.file, segmenter_file.spec.preprocessing)[None])[0]
    np.testing.assert_array_equal(image.found, found)
    assert image.mask.shape == (120, 200) and turned.mask.shape == (96, 64)
    rows, columns = ((np.arange(side) + 0.5) * 96 // side for side in (120, 200))
    np.testing.assert_array_equal(image.mask, found[rows.astype(int)[:, None], columns.astype(int)])
    shares = {one.label: one.share for one in image.classes}
    assert shares == {name: (found == index).mean() for index, name in enumerate(segmenter_file.labels)}
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    top = image.classes[0]
    assert str(image).startswith(f"{image.file}: {top.label} {top.share:.1%}, ")


def test_out_holds_masks_overlays_and_tables(segmenter_file, photos, tmp_path):
    out = tmp_path / "out"
    results = [one for one in predict(segmenter_file.path, photos, out=out) if isinstance(one, SegmentedImage)]
    written = json.loads((out / "predictions.json").read_text())
    assert [Path(item["file"]).name for item in written["skipped"]] == ["cut.jpg"]
    assert [(one["value"], one["name"]) for one in written["classes"]] == list(enumerate(segmenter_file.labels))
    assert [item["mask"] for item in written["predictions"]] == ["masks/a.png", "masks/more/turned.png"]
    for item, result in zip(written["predictions"], results, strict=True):
        mask = Image.open(out / item["mask"])
        assert mask.mode == "P" and mask.size == (item["width"], item["height"])
        np.testing.assert_array_equal(np.asarray(mask), result.mask)
        top = item["classes"][0]
        index = segmenter_file.labels.index(top["label"])
        assert top["share"] == pytest.approx((result.found == index).mean(), abs=1e-6)
        palette = mask.getpalette()
        assert "#{:02x}{:02x}{:02x}".format(*palette[3 * index :][:3]) == written["classes"][index]["colour"]
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert list(rows[0]) == ["file", "label", "share"]
    assert len(rows) == sum(len(result.classes) for result in results)
    picture, plain = Image.open(out / "pictures" / "a.png.jpg"), Image.open(photos / "a.png")
    assert picture.size == (600, 360)  # small, so enlarged
    assert np.abs(np.asarray(picture.resize(plain.size)).astype(int) - np.asarray(plain)).max() > 50  # tinted


def test_masks_are_not_looked_at_again(segmenter_file, photos):
    first = list(predict(segmenter_file.path, photos, out=photos))
    again = list(predict(segmenter_file.path, photos, out=photos))
    assert (photos / "masks" / "a.png").is_file()
    assert [result.file for result in first] == [result.file for result in again]


def test_the_masks_of_a_data_set_stay(segmenter_file, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        Image.fromarray(noise(40, 40)).save(tmp_path / kind / "a.png")
    before = (tmp_path / "masks" / "a.png").read_bytes()
    with pytest.raises(ConfigurationError, match=r"masks is not of `predict`, .* choose another --out"):
        list(predict(segmenter_file.path, tmp_path / "images", out=tmp_path))
    assert (tmp_path / "masks" / "a.png").read_bytes() == before


def test_photos_of_one_stem_have_masks_of_their_own(segmenter_file, tmp_path):
    for name in ("a.png", "a.bmp"):
        Image.fromarray(noise(40, 40)).save(tmp_path / name)
    list(predict(segmenter_file.path, tmp_path, out=tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out" / "masks").iterdir()} == {"a.png.png", "a.bmp.png"}


def test_video(segmenter_file, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", [np.roll(noise(120, 200), 4 * index, 1) for index in range(4)])
    out = tmp_path / "out"
    results = [one for one in predict(segmenter_file.path, clip, out=out) if isinstance(one, SegmentedImage)]
    assert [one.moment.frame for one in results if one.moment] == [0, 1, 2, 3]
    shown = list(read_frames(out / "pictures" / "clip.mp4"))
    assert [frame.pixels.shape for frame in shown] == [(360, 600, 3)] * 4
    masks = sorted((out / "masks" / "clip.mp4").iterdir())
    assert [path.name for path in masks] == [f"{index:06}.png" for index in range(4)]
    np.testing.assert_array_equal(np.asarray(Image.open(masks[2])), results[2].mask)
    assert (out / "predictions.csv").read_text().startswith(f"file,frame,seconds,label,share\n{clip},0,0.0,")


def test_a_score_is_for_boxes(segmenter_file, photos):
    with pytest.raises(ConfigurationError, match=r"min_score is for detectors, .*tiny.onnx is made to segment; leave"):
        list(predict(segmenter_file.path, photos, min_score=0.5))


def test_command_line(segmenter_file, photos):
    said = CliRunner().invoke(app, ["predict", str(segmenter_file.path), str(photos)]).stdout.splitlines()
    assert said[-1] == "2 images segmented, 1 skipped"
    answer = CliRunner().invoke(app, ["predict", str(segmenter_file.path), str(photos), "--json"]).stdout
    first = json.loads(answer)["predictions"][0]
    assert set(first) == {"file", "width", "height", "classes"}
    assert set(first["classes"][0]) == {"label", "share"}
