"""Every kind of image file gives the pixels one looks at, or a clear error."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketvision.data import image as image_module
from pocketvision.data.image import glimpse, read_image
from pocketvision.errors import DataError


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth colour image, so that JPEG changes it little."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, 255 - x * 255 / width], -1).astype(np.uint8)


def near(image: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    return image.shape == expected.shape and np.abs(image.astype(int) - expected).mean() <= tolerance


def saved(path: Path, picture: Image.Image, **options) -> Path:
    picture.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [("png", 0), ("bmp", 0), ("tif", 0), ("ppm", 0), ("jpg", 2), ("webp", 4)]
)
def test_plain_formats(tmp_path: Path, suffix: str, tolerance: float):
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(photo()))
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous
    assert near(image, photo(), tolerance)
    assert np.array_equal(read_image(str(path)), image)
    assert why_unreadable(path) is None


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str):
    stored_from_upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),  # shown after a turn by 90 degrees clockwise
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(stored_from_upright[orientation](photo())))
    path = saved(tmp_path / f"a.{suffix}", stored, exif=exif)
    assert near(read_image(path), photo(), 5)


def test_damaged_exif_leaves_the_pixels_readable(tmp_path: Path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(photo()), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert near(read_image(path), photo(), 2)
    assert why_unreadable(path) is None


@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("L", "jpg"), ("1", "png")])
def test_grey_becomes_three_channels(tmp_path: Path, mode: str, suffix: str):
    grey = Image.fromarray(photo()).convert(mode)
    image = read_image(saved(tmp_path / f"a.{suffix}", grey))
    assert image.shape == (40, 60, 3)
    assert (image == image[..., :1]).all()
    assert near(image[..., 0], np.asarray(grey.convert("L")), 2)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_from_the_full_range(tmp_path: Path, suffix: str):
    values = np.array([[0, 128, 129, 257], [25700, 32768, 65534, 65535]], np.uint16)
    image = read_image(saved(tmp_path / f"a.{suffix}", Image.fromarray(values)))
    assert image[..., 0].tolist() == [[0, 0, 1, 1], [100, 128, 255, 255]]
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize("inverted", [True, False], ids=["adobe", "plain tiff"])
def test_cmyk(tmp_path: Path, inverted: bool):
    cmyk = Image.fromarray(photo()).convert("CMYK")
    path = saved(tmp_path / ("a.jpg" if inverted else "a.tif"), cmyk)
    if inverted:
        assert b"Adobe" in path.read_bytes()
    assert near(read_image(path), photo(), 3)
    assert why_unreadable(path) is None


def test_transparency_is_put_on_white(tmp_path: Path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[:, 1] = 200, 100, 0, 255
    rgba[:, 2] = 0, 0, 0, 128
    expected = [[[255, 255, 255], [200, 100, 0], [127, 127, 127]]] * 2
    picture = Image.fromarray(rgba)
    for name in ("a.png", "a.webp", "a.tif"):
        options = {"lossless": True} if name == "a.webp" else {}
        assert near(read_image(saved(tmp_path / name, picture, **options)), np.array(expected), 0.5), name
    grey = Image.fromarray(np.array([[[0, 0], [80, 255]]], np.uint8), "LA")
    assert read_image(saved(tmp_path / "grey.png", grey)).tolist() == [[[255] * 3, [80] * 3]]


def test_palettes(tmp_path: Path):
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0])
    plain = read_image(saved(tmp_path / "plain.png", palette))
    assert plain.tolist() == [[[10, 20, 30], [200, 0, 0], [0, 200, 0]]]
    one = read_image(saved(tmp_path / "one.png", palette, transparency=1))
    assert one.tolist() == [[[10, 20, 30], [255, 255, 255], [0, 200, 0]]]
    several = read_image(saved(tmp_path / "several.png", palette, transparency=bytes([0, 255, 128])))
    assert several.tolist() == [[[255, 255, 255], [200, 0, 0], [127, 227, 127]]]
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert read_image(saved(tmp_path / "rgb.png", rgb, transparency=(4, 5, 6))).tolist() == [[[1, 2, 3], [255] * 3]]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    assert read_image(path).reshape(-1, 3).tolist() == [[255, 0, 0]] * 64


def test_one_pixel(tmp_path: Path):
    path = saved(tmp_path / "a.png", Image.new("RGB", (1, 1), (1, 2, 3)))
    assert read_image(path).tolist() == [[[1, 2, 3]]]


def test_decoding_at_a_fraction(tmp_path: Path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(photo(1200, 1600)), quality=95)
    sizes = {1201: 1200, 601: 1200, 600: 600, 300: 300, 299: 300, 150: 150, 1: 150}
    assert {side: read_image(path, short_side=side).shape[0] for side in sizes} == sizes
    half = np.asarray(Image.fromarray(photo(1200, 1600)).resize((400, 300), Image.Resampling.BOX))
    assert near(read_image(path, short_side=300), half, 1)


def test_unicode_name(tmp_path: Path):
    path = saved(tmp_path / "Kätzchen 猫 🐈.png", Image.fromarray(photo()))
    assert np.array_equal(read_image(path), photo())


def why_unreadable(path: Path | str) -> str | None:
    found = glimpse(path)
    return found if isinstance(found, str) else None


def unreadable(path: Path) -> str:
    """The error of ``read_image``, which names the path and contains what ``glimpse`` says."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError) as error:
            read_image(path)
        reason = why_unreadable(path)
    assert reason is not None
    assert str(error.value) == f"{path}: {reason}; replace it by a readable image or remove it"
    return reason


def test_no_image(tmp_path: Path):
    assert "no such file" in unreadable(tmp_path / "absent.jpg")
    assert "folder" in unreadable(tmp_path)
    (tmp_path / "empty.jpg").touch()
    assert "empty (0 bytes)" in unreadable(tmp_path / "empty.jpg")
    (tmp_path / "text.png").write_text("no image")
    assert "not an image" in unreadable(tmp_path / "text.png")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert "convert it to JPEG" in unreadable(tmp_path / "photo.heic")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "absent.jpg")
    assert "link" in unreadable(tmp_path / "link.jpg")
    # Pillow would hand this to Ghostscript, whatever the file is called.
    (tmp_path / "program.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    assert "not an image" in unreadable(tmp_path / "program.jpg")


def test_pixels_without_a_range(tmp_path: Path):
    assert "floating-point" in unreadable(saved(tmp_path / "a.tif", Image.fromarray(np.ones((4, 4), np.float32))))
    wide = Image.fromarray(np.full((4, 4), 70_000, np.int32))
    assert "32-bit" in unreadable(saved(tmp_path / "b.tif", wide))


@pytest.mark.parametrize("suffix", ["jpg", "progressive.jpg", "png", "webp", "gif", "bmp", "tif"])
def test_truncated_at_any_byte(tmp_path: Path, suffix: str):
    """Both readers agree on every cut, and what has lost more than its last bytes is an error."""
    options = {"progressive": True} if suffix.startswith("progressive") else {}
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    whole = saved(tmp_path / f"whole.{suffix}", Image.fromarray(noise), **options).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for length in (*range(1, len(whole), 31), *range(len(whole) - 8, len(whole))):
        path.write_bytes(whole[:length])
        try:
            read_image(path)
            assert why_unreadable(path) is None
            assert length > len(whole) - 32
        except DataError:
            unreadable(path)


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + checksum + struct.pack(">I", 0) + b"IDAT"


@pytest.mark.parametrize("width", [17_000, 60_000])
def test_memory_bomb(tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(width, 12_000))
    assert "more than 178 megapixels" in unreadable(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # a program around us may have switched Pillow's check off
    assert "more than 178 megapixels" in unreadable(path)


def test_no_warning_for_a_large_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow warns from half its limit on."""
    path = saved(tmp_path / "large.png", Image.new("L", (300, 200), 7))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (200, 300, 3)
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(path)


def test_files_are_closed(tmp_path: Path):
    """An unclosed file would be a ResourceWarning, which is an error here; and Windows could not delete it."""
    path = saved(tmp_path / "a.gif", Image.new("P", (4, 4)), save_all=True, append_images=[Image.new("P", (4, 4), 1)])
    opened: list[Image.Image] = []
    original = Image.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_module.Image, "open", lambda *a, **k: opened.append(original(*a, **k)) or opened[-1])
        read_image(path)
        why_unreadable(path)
    assert len(opened) == 2
    assert all(picture.fp is None or picture.fp.closed for picture in opened)  # type: ignore[attr-defined]


def test_sample_reference():
    assert read_image("sample:digits/0").shape == (32, 32, 3)
    assert why_unreadable("sample:digits/0") is None
