"""Frames of a video, and a video of frames, through PyAV (the extra ``video``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from ..errors import ConfigurationError, DataError
from ..files import write_atomic
from .predicted import Moment

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".ts"})
_USUAL_RATE = Fraction(30)  # frames a second of a video that does not say


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame as it is shown: ``pixels`` uint8 [H, W, 3], RGB. ``rate``: frames a second of its video."""

    moment: Moment
    pixels: np.ndarray
    rate: Fraction


def is_video(file: str | Path) -> bool:
    """Whether the name of a file says that it is a video."""
    return Path(file).suffix.lower() in VIDEO_SUFFIXES


def check_video_support(file: str | Path) -> None:
    """Raise ConfigurationError where PyAV is missing."""
    _av(file)


def read_frames(file: str | Path) -> Iterator[Frame]:
    """The frames of the first video stream, turned upright, in order.

    Raises DataError, with the number of frames that were good, for a file that is damaged or holds no video.
    """
    av, number = _av(file), 0
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise DataError(f"{file}: it holds no video stream; give another file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = stream.average_rate or _USUAL_RATE
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise DataError(_damaged(file, number, "a frame is incomplete"))
                turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                seconds = frame.time if frame.time is not None else number / float(rate)
                yield Frame(Moment(number, float(seconds)), np.ascontiguousarray(turned), rate)
                number += 1
    except (av.FFmpegError, OSError) as error:
        raise DataError(_damaged(file, number, error.strerror or str(error))) from None
    if not number:
        raise DataError(_damaged(file, number, "it has no frames"))


def _damaged(file: str | Path, frames: int, reason: str) -> str:
    after = f" after {frames} good frames" if frames else ""
    return f"{file}: the video is damaged or of an unknown kind{after} ({reason}); replace it by one that plays"


class VideoWriter:
    """An MP4 (H.264) that appears under its name when it is complete, frame times as in its source, without sound."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = path.with_name(f".{uuid4().hex[:12]}-{path.name[-80:]}")
        self._av = _av(path)
        self._container = self._av.open(str(self._partial), "w", format="mp4")
        self._stream: Any = None
        self._rate = rate
        self._last = -1

    def add(self, pixels: np.ndarray, moment: Moment) -> None:
        """One frame, uint8 [H, W, 3]; all frames are as large as the first."""
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate, options={"preset": "veryfast"})
            height, width = (side + side % 2 for side in pixels.shape[:2])  # H.264 halves the colours' resolution
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, 90_000)
        height, width = pixels.shape[:2]
        even = np.pad(pixels, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")
        frame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        frame.time_base = Fraction(1, 90_000)
        frame.pts = self._last = max(round(moment.seconds * 90_000), self._last + 1)  # times must rise
        self._container.mux(self._stream.encode(frame))

    def close(self) -> Path:
        """Finish the file; of a video without frames there is none."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if self._stream is None:
            self._partial.unlink(missing_ok=True)
            return self._path
        return write_atomic(self._path, lambda temporary: os.replace(self._partial, temporary))

    def discard(self) -> None:
        """Leave nothing behind."""
        self._container.close()
        self._partial.unlink(missing_ok=True)


def _av(file: str | Path) -> Any:
    try:
        import av
    except ImportError:
        raise ConfigurationError(f"{file} is a video, which needs PyAV: pip install 'pocketvision[video]'") from None
    return av
