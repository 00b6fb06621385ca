"""The folder that ``predict --out`` writes."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..data.image import read_image
from ..errors import ConfigurationError
from ..exporting.artifact import Artifact
from ..files import check_writable, write_bytes, write_text
from ..report.drawing import draw, drawn
from ..report.masks import colours, overlay, palette_png
from .predicted import BoxedImage, Moment, Prediction, Result, SegmentedImage, SkippedFile, light
from .video import Frame, VideoWriter, is_video

PICTURES, MASKS, JSON_NAME, CSV_NAME = "pictures", "masks", "predictions.json", "predictions.csv"
DRAWN = (PICTURES, MASKS)  # folders of an album that hold images
COLUMNS = {
    "classify": ("label", "score"),
    "detect": ("label", "score", "x1", "y1", "x2", "y2"),
    "segment": ("label", "share"),
}
QUALITY = 90


class Album:
    """``predictions.json`` and ``predictions.csv`` of what is added, written when the album is left, also early; of a
    detector and a segmenter also each image and video with what is found drawn, in ``pictures``, and of a segmenter
    each image's and frame's mask of its size, in ``masks``.

    ``files``: all that may come; their pictures lie as they do below the folder that they share. A detector's JSON has
    ``images``, ``categories`` and ``annotations`` as COCO has; the annotations, which have scores, are also what
    COCO's tools take as results. A segmenter's has ``classes`` with the value and the colour that each has in the
    masks. Raises ConfigurationError for a folder that cannot be written, or has masks of another origin.
    """

    def __init__(self, folder: Path, artifact: Artifact, files: list[str]) -> None:
        self.folder, self.task = folder, artifact.task
        if self.task == "segment" and (folder / MASKS).is_dir() and not (folder / JSON_NAME).is_file():
            raise ConfigurationError(
                f"{folder / MASKS} is not of `predict`, and may hold a data set's masks: choose another --out"
            )
        with self._writing():
            for name in (JSON_NAME, CSV_NAME, f"{PICTURES}/picture.jpg"):
                check_writable(folder / name)
        self.labels = artifact.class_names
        places = [os.path.abspath(file) for file in files]
        shared = os.path.commonpath([os.path.dirname(place) for place in places]) if places else ""
        self._places = {file: os.path.relpath(place, shared) for file, place in zip(files, places, strict=True)}
        self._stems = Counter(os.path.splitext(place)[0] for place in self._places.values())
        self._results = list[Result]()
        self._video: tuple[str, VideoWriter] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_video()
        if not self._results:
            return  # what was there before stays
        skipped = [result.to_dict() for result in self._results if isinstance(result, SkippedFile)]
        content = {"classify": self._labelled, "detect": self._coco, "segment": self._segmented}[self.task]()
        with self._writing():
            write_text(self.folder / JSON_NAME, json.dumps(content | {"skipped": skipped}) + "\n")
            write_text(self.folder / CSV_NAME, self._csv())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say what to do when the folder, or something in it, cannot be written."""
        try:
            yield
        except OSError as error:
            what = f"cannot write {error.filename or self.folder}: {error.strerror}"
            raise ConfigurationError(f"{what}; make room, or choose another --out") from None

    def picture(self, pixels: np.ndarray, result: BoxedImage | SegmentedImage) -> np.ndarray:
        """``pixels`` of the whole image with what is found drawn; may be called from any thread."""
        if isinstance(result, SegmentedImage):
            assert result.found is not None
            return overlay(pixels, result.found, self.labels)
        boxes = np.array([box.corners for box in result.boxes]).reshape(-1, 4)
        labels, scores = (np.array([getattr(box, name) for box in result.boxes]) for name in ("index", "score"))
        return draw(pixels, drawn(boxes, labels, self.labels, scores))

    def save_mask(self, result: BoxedImage | SegmentedImage) -> None:
        """Write a segmented image's mask; may be called from any thread."""
        if isinstance(result, SegmentedImage):
            with self._writing():
                write_bytes(self._mask_place(result), palette_png(result.mask, self.labels))

    def _mask_place(self, result: SegmentedImage) -> Path:
        """photo.jpg -> photo.png, or photo.jpg.png where there is another photo; clip.mp4 -> clip.mp4/000007.png."""
        name = self._places[result.file]
        stem = os.path.splitext(name)[0]
        if result.moment:
            name = f"{name}/{result.moment.frame:06}.png"
        else:
            name = (stem if self._stems[stem] == 1 else name) + ".png"
        return self.folder / MASKS / name.replace(":", "-")

    def save_picture(self, result: BoxedImage | SegmentedImage) -> None:
        """Write an image file's picture; may be called from any thread."""
        from PIL import Image

        buffer = BytesIO()
        Image.fromarray(self.picture(read_image(result.file), result)).save(buffer, "JPEG", quality=QUALITY)
        with self._writing():
            write_bytes(self.place(result.file, ".jpg"), buffer.getvalue())

    def place(self, file: str, suffix: str) -> Path:
        """Where the picture of ``file`` lies: photo.jpg -> photo.jpg, photo.png -> photo.png.jpg."""
        name = self._places[file].replace(":", "-")
        return self.folder / PICTURES / (name if name.lower().endswith(suffix) else name + suffix)

    def add(self, result: Result, frame: Frame | None) -> None:
        """Keep ``result``; ``frame``: a video's, its pixels with the boxes drawn, to be written."""
        self._results.append(light(result))
        if self._video and self._video[0] != result.file:
            self._end_video()
        if frame:
            if not self._video:
                with self._writing():
                    self._video = result.file, VideoWriter(self.place(result.file, ".mp4"), frame.rate)
            self._video[1].add(frame.pixels, frame.moment)

    def _end_video(self) -> None:
        if self._video:
            self._video[1].close()
            self._video = None

    def _labelled(self) -> dict[str, Any]:
        return {"predictions": [result.to_dict() for result in self._results if isinstance(result, Prediction)]}

    def _segmented(self) -> dict[str, Any]:
        classes = [
            {"value": index, "name": name, "colour": colour}
            for index, (name, colour) in enumerate(zip(self.labels, colours(self.labels), strict=True))
        ]
        predictions = [
            result.to_dict() | {"mask": self._mask_place(result).relative_to(self.folder).as_posix()}
            for result in self._results
            if isinstance(result, SegmentedImage)
        ]
        return {"classes": classes, "predictions": predictions}

    def _coco(self) -> dict[str, Any]:
        images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
        for result in self._results:
            if not isinstance(result, BoxedImage):
                continue
            where = {key: value for key, value in result.to_dict().items() if key not in ("file", "boxes")}
            images.append({"id": len(images) + 1, "file_name": result.file} | where)
            for box in result.boxes:
                x1, y1, x2, y2 = box.corners
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": box.index + 1,
                        "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                        "area": round((x2 - x1) * (y2 - y1), 2),
                        "iscrowd": 0,
                        "score": round(box.score, 6),
                    }
                )
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(self.labels)]
        return {"images": images, "categories": categories, "annotations": annotations}

    def _csv(self) -> str:
        """A line for each label, box or class; an image without boxes has none."""
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        video = any(is_video(file) for file in self._places)
        when = ["frame", "seconds"] if video else []
        writer.writerow(["file", *when, *COLUMNS[self.task]])
        for result in self._results:
            if isinstance(result, SkippedFile):
                continue
            begin = [result.file, *(_moment(result.moment) if video else [])]
            if isinstance(result, Prediction):
                writer.writerow([*begin, result.label, round(result.score, 6)])
            elif isinstance(result, SegmentedImage):
                writer.writerows([*begin, *one.to_dict().values()] for one in result.classes)
            else:
                writer.writerows([*begin, *_flat(box.to_dict())] for box in result.boxes)
        return text.getvalue()


def _moment(moment: Moment | None) -> list[Any]:
    return list(moment.to_dict().values()) if moment else ["", ""]


def _flat(box: dict[str, Any]) -> list[Any]:
    return [box["label"], box["score"], *box["box"]]
