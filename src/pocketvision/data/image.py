"""Any image file as RGB pixels, or an error that says why not."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import RLock

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import DataError
from . import samples

_JPEG_SUFFIXES, _HEIF_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif"}, {".heic", ".heif"}
_NETPBM_SUFFIXES = {".ppm", ".pgm", ".pbm", ".pnm"}
_OTHER_SUFFIXES = {".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".avif"}
SUFFIXES = frozenset(_JPEG_SUFFIXES | _HEIF_SUFFIXES | _NETPBM_SUFFIXES | _OTHER_SUFFIXES)
THUMB = 24  # side of a glimpse's picture
MAX_PIXELS = 178_956_970  # Pillow's own limit: 0.5 GB of RGB
# A fixed list, because some of Pillow's other readers start programs (EPS: Ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
_ORIENTATION_TAG = 0x0112
_CAMERA_TAGS, _EXIF_IFD, _TAKEN_TAG = (0x010F, 0x0110), 0x8769, 0x9003
UPRIGHT = {  # EXIF 2.32 §4.6.4: what brings each orientation back
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_warnings_lock = RLock()


class Unsupported(Exception):
    """An image that is whole, but of a kind that has no clear meaning as RGB."""


def read_image(image: str | Path, *, short_side: int | None = None) -> np.ndarray:
    """The pixels of an image as they should be looked at: uint8 [H, W, 3], RGB, writable.

    EXIF orientation is applied; grey becomes three equal channels; 16-bit grey is scaled from 0..65535;
    transparency is put on white; of an animation the first frame counts. ``image`` is a file, or
    ``sample:digits/N``. With ``short_side`` a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size (in the
    DCT domain, several times faster) as long as its short side keeps at least that many pixels.

    Raises DataError with the path and the cause: absent, empty, no image, truncated or damaged,
    more than 179 megapixels, floating-point pixels.
    """
    if str(image).startswith(samples.PREFIX):
        return samples.read_sample(str(image))
    try:
        with opened(image) as picture:
            if short_side:
                picture.draft(None, (short_side, short_side))
            picture.load()
            return np.array(_as_rgb(upright(picture)))
    except Exception as error:
        fix = "replace it by a readable image or remove it"
        raise DataError(f"{image}: {reason(image, error)}; {fix}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Glimpse:
    """An image at a glance. ``thumb``, uint8 [24, 24, 3], is all of it squeezed into a square; ``width`` and ``height``
    are the upright image's. From EXIF: the ``camera``, and when the photo was ``taken`` in seconds of its clock."""

    thumb: np.ndarray
    width: int
    height: int
    camera: str
    taken: float | None


def glimpse(image: str | Path) -> Glimpse | str:
    """A file at a glance, or why ``read_image`` cannot read it: every byte is decoded, but JPEGs at reduced size."""
    if str(image).startswith(samples.PREFIX):
        pixels = samples.read_sample(str(image))
        return Glimpse(_squeezed(Image.fromarray(pixels)), pixels.shape[1], pixels.shape[0], "", None)
    try:
        with opened(image) as picture:
            size = picture.size
            picture.draft("RGB", (3 * THUMB, 3 * THUMB))  # entropy-decodes all of it, but skips most of the inverse DCT
            picture.load()
            shown = _as_rgb(upright(picture))
            width, height = sorted(size, reverse=shown.width > shown.height)
            return Glimpse(_squeezed(shown), width, height, *_moment(picture))
    except Exception as error:  # noqa: BLE001  Pillow raises nearly every kind of exception on damaged files
        return reason(image, error)


def shown_size(image: str | Path) -> tuple[int, int] | str:
    """Width and height of an image as ``read_image`` gives it, or why it cannot be opened; mostly from its header."""
    if str(image).startswith(samples.PREFIX):
        height, width = samples.read_sample(str(image)).shape[:2]
        return width, height
    try:
        with opened(image) as picture:
            if _orientation(picture) < 5:
                return picture.size
            picture.load()  # which turns TIFF and AVIF
            return upright(picture).size
    except Exception as error:  # noqa: BLE001  as for a glimpse
        return reason(image, error)


def orientation(image: str | Path) -> int:
    """How EXIF says that the pixels of a file are to be turned, 1 (not at all) to 8; 1 where it does not say."""
    if str(image).startswith(samples.PREFIX):
        return 1
    try:
        with opened(image) as picture:
            return _orientation(picture)
    except Exception as error:
        raise DataError(f"{image}: {reason(image, error)}; replace it by a readable image or remove it") from error


def _squeezed(picture: Image.Image) -> np.ndarray:
    return np.array(picture.resize((THUMB, THUMB), Image.Resampling.BILINEAR, reducing_gap=2))


def _moment(picture: Image.Image) -> tuple[str, float | None]:
    """Camera and time of a photo, from its EXIF data (EXIF 2.32 §4.6.4, §4.6.5)."""
    try:
        with _quiet():
            exif = picture.getexif()
            taken = exif.get_ifd(_EXIF_IFD).get(_TAKEN_TAG)
            camera = " ".join(str(exif.get(tag, "")) for tag in _CAMERA_TAGS)
        return camera, datetime.strptime(str(taken), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except Exception:  # noqa: BLE001  damaged EXIF data, of whatever kind, does not make the pixels unreadable
        return "", None


@contextmanager
def opened(image: str | Path) -> Iterator[Image.Image]:
    """The picture of a file, its header read; ``reason`` words what this and ``load`` raise."""
    with _quiet():
        picture = Image.open(image, formats=_formats())
    with picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        yield picture


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings from Pillow; under a lock, because Python's warning filters are shared by all threads."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _unlock_in_child() -> None:
    global _warnings_lock  # noqa: PLW0603  another thread may have held it when the process was forked
    _warnings_lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def upright(picture: Image.Image) -> Image.Image:
    """A loaded picture, turned as its EXIF data says."""
    method = UPRIGHT.get(_orientation(picture))  # after load(), which turns TIFF and AVIF itself
    return picture if method is None else picture.transpose(method)


def _orientation(picture: Image.Image) -> int:
    try:
        with _quiet():
            found = picture.getexif().get(_ORIENTATION_TAG)
    except Exception:  # noqa: BLE001  damaged EXIF data, of whatever kind, does not make the pixels unreadable
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        return _from_integers(picture).convert("RGB")
    if picture.mode == "F":
        raise Unsupported("it has floating-point pixels, whose range is unknown; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        with _quiet():
            picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _from_integers(picture: Image.Image) -> Image.Image:
    """16-bit grey ("I;16", or "I" from some readers) as 8-bit grey: 0..65535 to 0..255, rounded."""
    values = np.array(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise Unsupported("it has 32-bit pixels, whose range is unknown; save it with 8 or 16 bits")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def reason(image: str | Path, error: Exception) -> str:
    """Why a file cannot be read, in words; ``error``: what opening or loading it raised."""
    path = Path(image)
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS // 1_000_000} megapixels"
    if not path.exists():
        return "there is no such file" if not path.is_symlink() else "it is a link to a file that does not exist"
    if path.is_dir():
        return "it is a folder, not an image"
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    if isinstance(error, OSError) and error.errno:
        return f"the file cannot be read ({error.strerror})"
    if path.stat().st_size == 0:
        return "the file is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        if path.suffix.lower() in _HEIF_SUFFIXES:
            return "HEIC images cannot be read; convert it to JPEG"
        return "it is not an image of a known format, or its header is damaged"
    return str(error) if isinstance(error, Unsupported) else f"the image is truncated or damaged ({error})"
