"""Boxes of images and videos: in pixels of the original, in files that others can read, drawn; bad files are named."""

import csv
import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pocketvision import predict
from pocketvision.app.cli import app
from pocketvision.app.predicted import BoxedImage, SkippedFile
from pocketvision.app.video import VideoWriter, read_frames
from pocketvision.data.transforms import load_prepared
from pocketvision.errors import ConfigurationError, DataError
from pocketvision.measuring.runtimes import open_detector

LOW = 0.02  # the random detector's scores are low


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)[:height, :width]


def write_video(path: Path, frames: list[np.ndarray], rate: int = 10) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(noise(120, 200)).save(folder / "a.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise(64, 96, 1)).save(folder / "more" / "turned.jpg", exif=turned)
    (folder / "cut.jpg").write_bytes((folder / "more" / "turned.jpg").read_bytes()[:300])
    return folder


def test_boxes_are_in_pixels_of_the_original(detector_file, photos):
    results = list(predict(detector_file.path, photos, min_score=LOW))
    assert [Path(result.file).name for result in results] == ["a.png", "cut.jpg", "turned.jpg"]
    assert isinstance(results[1], SkippedFile)
    image, turned = results[0], results[2]
    assert isinstance(image, BoxedImage) and isinstance(turned, BoxedImage)
    assert (image.size, turned.size) == ((200, 120), (64, 96))  # as they are shown
    found = open_detector(detector_file)(load_prepared(image.file, detector_file.spec.preprocessing)[None])[0]
    kept = found.scores >= LOW
    assert 0 < kept.sum() == len(image.boxes)
    expected = found.boxes[kept] * np.array([200, 120, 200, 120]) / 96
    np.testing.assert_allclose([box.corners for box in image.boxes], expected, atol=1e-3)
    assert [box.label for box in image.boxes] == [("ant", "bee", "cow")[label] for label in found.labels[kept]]
    top = image.boxes[0]
    assert str(image).startswith(f"{image.file}: {len(image.boxes)} boxes: {top.label} {top.score:.2f} [")


def test_nothing_below_the_score(detector_file, photos):
    (image, *_) = predict(detector_file.path, photos / "a.png", min_score=1.0)
    assert str(image) == f"{photos / 'a.png'}: 0 boxes"
    with pytest.raises(ConfigurationError, match=r"min_score=1.5 .* nearest valid: 1"):
        list(predict(detector_file.path, photos, min_score=1.5))


def test_out_holds_cocos_json_a_table_and_pictures(detector_file, photos, tmp_path):
    from faster_coco_eval import COCO

    out = tmp_path / "out"
    results = [r for r in predict(detector_file.path, photos, min_score=LOW, out=out) if isinstance(r, BoxedImage)]
    written = json.loads((out / "predictions.json").read_text())
    assert [Path(item["file"]).name for item in written["skipped"]] == ["cut.jpg"]
    assert [item["name"] for item in written["categories"]] == ["ant", "bee", "cow"]
    assert [(item["width"], item["height"]) for item in written["images"]] == [(200, 120), (64, 96)]
    reference = COCO({key: written[key] for key in ("images", "categories", "annotations")})
    loaded = reference.loadRes([dict(item) for item in written["annotations"]])
    assert len(loaded.anns) == sum(len(result.boxes) for result in results) > 0
    x, y, width, height = written["annotations"][0]["bbox"]
    np.testing.assert_allclose((x, y, x + width, y + height), results[0].boxes[0].corners, atol=0.02)
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert len(rows) == len(loaded.anns)
    assert list(rows[0]) == ["file", "label", "score", "x1", "y1", "x2", "y2"]
    pictures = sorted(path.relative_to(out / "pictures").as_posix() for path in (out / "pictures").rglob("*.jpg"))
    assert pictures == ["a.png.jpg", "more/turned.jpg"]
    picture, plain = Image.open(out / "pictures" / "a.png.jpg"), Image.open(photos / "a.png")
    assert picture.size == (600, 360)  # small, so enlarged
    assert np.abs(np.asarray(picture.resize(plain.size)).astype(int) - np.asarray(plain)).max() > 50  # drawn on


def test_pictures_are_not_looked_at_again(detector_file, photos):
    first = list(predict(detector_file.path, photos, out=photos))
    again = list(predict(detector_file.path, photos, out=photos))
    assert (photos / "pictures" / "a.png.jpg").is_file()
    assert [result.file for result in first] == [result.file for result in again]


def test_video(detector_file, tmp_path):
    frames = [np.roll(noise(120, 200), 4 * index, 1) for index in range(7)]
    clip = write_video(tmp_path / "clip.mp4", frames)
    out = tmp_path / "out"
    results = list(predict(detector_file.path, clip, min_score=LOW, out=out))
    assert all(isinstance(result, BoxedImage) for result in results)
    moments = [result.moment for result in results if isinstance(result, BoxedImage)]
    assert [(moment.frame, round(moment.seconds, 3)) for moment in moments if moment] == [(i, i / 10) for i in range(7)]
    shown = list(read_frames(out / "pictures" / "clip.mp4"))
    assert [frame.pixels.shape for frame in shown] == [(360, 600, 3)] * 7
    assert [round(frame.moment.seconds, 3) for frame in shown] == [i / 10 for i in range(7)]
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert list(rows[0])[:3] == ["file", "frame", "seconds"]
    assert {row["frame"] for row in rows} <= {str(index) for index in range(7)}
    written = json.loads((out / "predictions.json").read_text())
    assert [image["frame"] for image in written["images"]] == list(range(7))
    assert not [path for path in (out / "pictures").iterdir() if path.name.startswith(".")]


def test_a_video_of_odd_size(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", [noise(64, 96)] * 2)
    (frame, _) = read_frames(clip)
    writer = VideoWriter(tmp_path / "odd.mp4", frame.rate)
    for index in range(2):
        writer.add(noise(63, 95), type(frame.moment)(index, index / 10))
    writer.close()
    assert next(read_frames(tmp_path / "odd.mp4")).pixels.shape == (64, 96, 3)


@pytest.mark.parametrize("kind", ["noise", "empty", "sound"])
def test_a_broken_video_is_skipped_with_its_reason(detector_file, tmp_path, kind):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video" * 99 if kind == "noise" else b"")
    if kind == "sound":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=8000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate = 8000
            container.mux(stream.encode(silence))
            container.mux(stream.encode())
    (result,) = predict(detector_file.path, path)
    assert isinstance(result, SkippedFile)
    assert ("no video stream" if kind == "sound" else "damaged") in result.reason


def test_a_video_that_breaks_off_gives_the_frames_before(detector_file, tmp_path):
    clip = write_video(tmp_path / "clip.mkv", [noise(120, 200, seed) for seed in range(20)])
    content = bytearray(clip.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    clip.write_bytes(content)
    results = list(predict(detector_file.path, clip, out=tmp_path / "out"))
    frames = [result for result in results if isinstance(result, BoxedImage)]
    assert 0 < len(frames) < 20
    assert len(list(read_frames(tmp_path / "out" / "pictures" / "clip.mkv.mp4"))) == len(frames)


def test_without_pyav_the_error_names_the_extra(detector_file, photos, monkeypatch):
    (photos / "clip.mp4").write_bytes(b"some video")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'pocketvision\[video\]'"):
        list(predict(detector_file.path, photos / "clip.mp4"))
    reasons = [r.reason for r in predict(detector_file.path, photos) if isinstance(r, SkippedFile)]
    assert len(reasons) == 2 and "pocketvision[video]" in "".join(reasons)  # in a folder the images count


def test_command_line(detector_file, photos, tmp_path):
    arguments = ["predict", str(detector_file.path), str(photos), "--min-score", str(LOW), "--out", str(tmp_path / "o")]
    text = CliRunner().invoke(app, arguments).stdout.splitlines()
    assert len(text) == 4
    assert text[-1].startswith("2 images, ") and text[-1].endswith(f"1 skipped; written to {tmp_path / 'o'}")
    result = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    first = result["predictions"][0]
    assert set(first) == {"file", "width", "height", "boxes"}
    assert set(first["boxes"][0]) == {"label", "score", "box"}
    assert result["out"] == str(tmp_path / "o")
    one = CliRunner().invoke(app, ["predict", str(detector_file.path), str(photos / "a.png"), "--min-score", "1"])
    assert one.stdout.splitlines()[-1] == "1 image, 0 boxes, 0 skipped"


def test_a_folder_that_cannot_be_written(detector_file, photos, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigurationError, match="choose another --out"):
        list(predict(detector_file.path, photos, out=tmp_path / "file"))
    with pytest.raises(DataError, match="no such file"):
        list(predict(detector_file.path, tmp_path / "absent.mp4"))


@pytest.mark.parametrize("name", ["pictures", "predictions.csv", "pictures/a.png.jpg"])
def test_what_stands_in_the_way_is_named(detector_file, photos, tmp_path, name):
    out = tmp_path / "out"
    (out / name).mkdir(parents=True)
    if name == "pictures":
        (out / name).rmdir()
        (out / name).write_text("a file")
    (out / "predictions.json").write_text("before")
    with pytest.raises(ConfigurationError, match=f"cannot write .*{name.split('/')[0]}.*another --out"):
        list(predict(detector_file.path, photos, out=out))
    assert (out / "predictions.json").read_text() == "before"


def test_another_albums_pictures_are_no_photos(detector_file, photos):
    first = list(predict(detector_file.path, photos, out=photos / "one"))
    assert len(list(predict(detector_file.path, photos, out=photos / "two"))) == len(first)
