"""Small detection sets in each format, as tests need them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pocketvision.data.sources import Dataset

Box = tuple[float, float, float, float]  # x1, y1, x2, y2
SIZE = (40, 30)
CAT, DOG = ("cat", (2, 3, 12, 13)), ("dog", (20, 5, 40, 30))
EXPECTED = {"train": {"a.png": [CAT, DOG], "b.png": []}, "val": {"c.png": [DOG]}, "test": {"d.png": [CAT]}}


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """An image that looks like no other one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([*path.name.encode(), len(path.parts)])
    Image.fromarray(rng.integers(0, 256, (*size[::-1], 3)).astype(np.uint8)).save(path)
    return path


def coco(
    path: Path,
    images: dict[str, Sequence[tuple[str, Box]]],
    classes: Sequence[str] = ("cat", "dog"),
    size: tuple[int, int] = SIZE,
) -> dict:
    """A COCO file; returns what it says, to be changed and written again with ``write``."""
    data: dict = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 10 + i, "name": n} for i, n in enumerate(classes)],
    }
    for number, (name, boxes) in enumerate(images.items()):
        data["images"].append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        for label, (x1, y1, x2, y2) in boxes:
            entry = {"id": len(data["annotations"]), "image_id": number, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            data["annotations"].append(entry | {"category_id": 10 + list(classes).index(label), "iscrowd": 0})
    write(path, data)
    return data


def write(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def voc(
    path: Path, boxes: Sequence[tuple[str, Box]], *, size: tuple[int, int] = SIZE, said: str = "", extra: str = ""
) -> None:
    """An XML file; ``extra`` stands in each object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{name}</name>{extra}<bndbox>"
        + "".join(
            f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>"
        for name, box in boxes
    )
    shape = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    path.write_text(f"<annotation><filename>{said}</filename>{shape}{objects}</annotation>")


def yolo(path: Path, boxes: Sequence[tuple[int, Box]], size: tuple[int, int] = SIZE) -> None:
    """A text of boxes in shares of the sides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    w, h = size
    lines = [
        f"{c} {(x1 + x2) / 2 / w} {(y1 + y2) / 2 / h} {(x2 - x1) / w} {(y2 - y1) / h}" for c, (x1, y1, x2, y2) in boxes
    ]
    path.write_text("\n".join(lines) + "\n")


def said(dataset: Dataset) -> dict[str, dict[str, list[tuple[str, Box]]]]:
    """split -> file name -> (class, corners to a thousandth) of each box."""
    return {
        split: {
            Path(item.image).name: [
                (dataset.classes[label], tuple(round(value, 3) for value in corners))
                for label, corners in zip(item.boxes.labels, item.boxes.corners, strict=True)
            ]
            for item in getattr(dataset, split)
        }
        for split in ("train", "val", "test")
    }


def coco_files(root: Path) -> None:
    for split, images in EXPECTED.items():
        for name in images:
            picture(root / "images" / name)
        coco(root / f"annotations/instances_{split}2017.json", images)


def coco_in_splits(root: Path) -> None:
    for split, images in EXPECTED.items():
        folder = root / {"val": "valid"}.get(split, split)
        for name in images:
            picture(folder / name)
        coco(folder / "_annotations.coco.json", images)


def coco_2017(root: Path) -> None:
    coco_files(root)
    for split, images in EXPECTED.items():
        (root / f"{split}2017").mkdir()
        for name in images:
            shutil.move(root / "images" / name, root / f"{split}2017" / name)
        write(root / f"annotations/captions_{split}2017.json", {"images": [], "annotations": []})
        coco(root / f"annotations/person_keypoints_{split}2017.json", images)
    (root / "images").rmdir()


def voc_lists(root: Path, lists: str = "ImageSets/Main") -> None:
    (root / lists).mkdir(parents=True, exist_ok=True)
    for split, images in EXPECTED.items():
        for name, boxes in images.items():
            picture(root / "JPEGImages" / name)
            voc(root / "Annotations" / f"{name[0]}.xml", boxes, said="stale.jpg")
        (root / lists / f"{split}.txt").write_text("\n".join(name[0] for name in images) + "\n")
    (root / lists / "trainval.txt").write_text("a\nb\nc\n")


def voc_devkit(root: Path) -> None:
    voc_lists(root / "VOCdevkit/VOC2007")


def voc_in_splits(root: Path) -> None:
    for split, images in EXPECTED.items():
        for name, boxes in images.items():
            picture(root / split / name)
            voc(root / split / f"{name[0]}.xml", boxes)


def yolo_yaml(root: Path) -> None:
    for split, images in EXPECTED.items():
        for name, boxes in images.items():
            picture(root / "images" / split / name)
            if boxes:
                yolo(root / "labels" / split / f"{name[0]}.txt", [(("cat", "dog").index(n), box) for n, box in boxes])
    text = "path: .\ntrain: images/train\nval: images/val\ntest: images/test\nnc: 2\nnames: {0: cat, 1: dog}\n"
    (root / "data.yaml").write_text(text)


def yolo_roboflow(root: Path) -> None:
    for split, images in EXPECTED.items():
        for name, boxes in images.items():
            picture(root / split / "images" / name)
            yolo(root / split / f"labels/{name[0]}.txt", [(("cat", "dog").index(n), box) for n, box in boxes])
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../val/images\ntest: ../test/images\nnames: ['cat', 'dog']\n"
    )


def yolo_lists(root: Path) -> None:
    yolo_yaml(root)
    for split, images in EXPECTED.items():
        (root / f"{split}.txt").write_text("".join(f"./images/{split}/{name}\n" for name in images))
    (root / "data.yaml").write_text("train: train.txt\nval: [val.txt]\ntest: test.txt\nnames: [cat, dog]\n")


def yolo_folders(root: Path) -> None:
    yolo_yaml(root)
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("cat\ndog\n")
