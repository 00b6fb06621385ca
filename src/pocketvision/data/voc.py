"""PASCAL VOC's XML: a file for each image, with ``bndbox`` (xmin, ymin, xmax, ymax) in ``object``."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from ..errors import DataError
from .boxes import Mark, Marks
from .layouts import SPLITS, Found, Record, entries, is_image, label_name, normal, split_of, subfolders

_DEPTH = 3  # folders below the data set's own: VOCdevkit/VOC2007/Annotations
_SNIFFED = 20  # files of a folder that tell whether its XML is of this kind: some may be broken
_BROKEN, _SHOWN = "its annotation is broken", 3
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "")


class _Broken(Exception):
    """An XML that cannot be read; the text says where and why."""


def find_voc(root: Path) -> list[Path]:
    """The folders with annotations in XML, ``root`` or up to three levels below."""
    found, level = list[Path](), [root]
    for _ in range(1 + _DEPTH):
        found += [folder for folder in level if _is_annotated(folder)]
        level = [below for folder in level for below in subfolders(folder).values()]
    return found


def read_voc(root: Path, folders: list[Path]) -> Found:
    """The images and boxes of XML files. Corners count as they stand, difficult boxes are ignored.

    An XML's image has its name, or the one that it says, and lies beside it or in JPEGImages or images beside its
    folder or in ``root``. A folder's split is in its name, or in lists of names, train.txt, val.txt and test.txt
    (without train.txt: trainval.txt), in ImageSets/Main, beside the images or in ``root``; what is on no list is not
    used. Classes are those of train by name. Raises DataError where no XML can be read.
    """
    records, skipped = list[Record](), list[tuple[str, str]]()
    given, unlisted = dict[str, None](), 0
    for folder in folders:
        lists, images = _lists(folder, root), _Images(folder, root)
        files = {path.stem: path for path in sorted(folder.glob("*.xml")) if not path.name.startswith(".")}
        whole = next(filter(None, map(split_of, folder.relative_to(root).parts)), None)
        if whole or not lists:
            wanted = [(whole or "train", stem) for stem in files]
            annotated = {images.of(stem, "") for stem in files}
            skipped += [(path, "it has no XML") for path in images.beside() if path not in annotated]
        else:
            wanted = [(split, stem) for split, stems in lists.items() for stem in stems]
            given |= dict.fromkeys(f"{split}.txt" for split in lists)
            unlisted += len(files.keys() - {stem for _, stem in wanted})
        for split, stem in wanted:
            if stem not in files:
                skipped.append((images.of(stem, f"{stem}.jpg"), f"it is listed in {split}.txt but has no XML"))
                continue
            try:
                marks, said = _parsed(files[stem])
            except _Broken as error:
                skipped.append((images.of(stem, f"{stem}.jpg"), f"{_BROKEN}: {files[stem]}: {error}"))
                continue
            key = normal(files[stem].relative_to(root).with_suffix("").as_posix())
            place = "train" if split == "trainval" else split
            records.append(Record(images.of(stem, said or f"{stem}.jpg"), "", place, key, marks))
    classes = sorted({mark.label for r in records if r.split == "train" and r.marks for mark in r.marks.boxes})
    where = ", ".join(folder.relative_to(root).as_posix() for folder in folders[:3]) + ", ..." * (len(folders) > 3)
    layout = "VOC XML" + (f" in {where}" if where != "." else "")
    layout += f" (split by {', '.join(given)}{f'; {unlisted} not listed' if unlisted else ''})" if given else ""
    if not records:
        broken = [reason for _, reason in skipped if reason.startswith(_BROKEN)] or [reason for _, reason in skipped]
        raise DataError(
            f"{root}: {layout}: no annotation can be used: {'; '.join(broken[:_SHOWN]) or 'none is listed'}"
        )
    present = {record.split for record in records}
    splits = tuple(split for split in SPLITS if split in present)
    return Found(root, layout, tuple(classes), splits, tuple(records), tuple(skipped), (), "detect")


def _is_annotated(folder: Path) -> bool:
    files = [entry.path for entry in entries(folder) if entry.name.lower().endswith(".xml")]
    return any(b"<annotation" in Path(path).read_bytes() for path in files[:_SNIFFED])


def _lists(folder: Path, root: Path) -> dict[str, list[str]]:
    """The names (of files, without suffix) that each split's list has; none where there are no lists."""
    for base in (folder.parent / "ImageSets/Main", folder, folder.parent, root, root / "ImageSets/Main"):
        lists = {path.stem: path for path in base.glob("*.txt") if path.stem in (*SPLITS, "trainval")}
        if "train" in lists:
            lists.pop("trainval", None)
        if "train" in lists or "trainval" in lists:
            return {split: _names(path) for split, path in sorted(lists.items(), key=_order)}
    return {}


def _order(entry: tuple[str, Path]) -> int:
    return ("trainval", *SPLITS).index(entry[0])


def _names(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.split()[0].replace("\\", "/").rpartition("/")[2] for line in lines if line.strip()]
    known = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".xml")
    stems = [name.rpartition(".")[0] if name.lower().endswith(known) else name for name in names]
    return list(dict.fromkeys(stems))


def _parsed(path: Path) -> tuple[Marks, str]:
    """The boxes of an XML file, and the image's name that it says. Raises _Broken."""
    try:
        tree = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise _Broken(f"line {error.position[0]}: {error}") from None
    except OSError as error:
        raise _Broken(f"it cannot be read ({error.strerror})") from None
    except (ValueError, LookupError) as error:  # an encoding that does not exist
        raise _Broken(str(error)) from None
    boxes = []
    for number, thing in enumerate(tree.iter("object"), 1):
        name = (thing.findtext("name") or "").strip()
        if not name:
            raise _Broken(f"object {number} has no name")
        label = label_name(name, str(path))
        ignored = (thing.findtext("difficult") or "0").strip() == "1"
        box = thing.find("bndbox")
        x1, y1, x2, y2 = (_number(box, side) for side in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append(Mark((x1, y1, x2, y2), label, ignored))
    width, height = (_number(tree.find("size"), side) for side in ("width", "height"))
    size = (int(width), int(height)) if width >= 1 and height >= 1 else None
    return Marks(tuple(boxes), size), (tree.findtext("filename") or "").strip()


def _number(element: ElementTree.Element | None, name: str) -> float:
    """A child's text as a number; not a number where there is none."""
    try:
        return float((element.findtext(name) if element is not None else None) or "nan")
    except ValueError:
        return float("nan")


@dataclass
class _Images:
    """The images that the XML files of ``folder`` may mean, by name and by name without suffix."""

    folder: Path
    root: Path
    by_name: dict[str, str] = field(default_factory=dict, init=False)
    by_stem: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        bases = dict.fromkeys((self.folder.parent, self.root))
        places = dict.fromkeys([self.folder, *(base / name for base in bases for name in _IMAGE_FOLDERS)])
        self.folders = [place for place in places if place.is_dir() and place != self.root.parent]
        for place in reversed(self.folders):  # the nearest counts
            images = [entry for entry in entries(place) if is_image(entry)]
            self.by_name |= {entry.name: entry.path for entry in images}
            self.by_stem |= {Path(entry.name).stem: entry.path for entry in images}

    def of(self, stem: str, said: str) -> str:
        """The path of an image; where there is none, the first that it could have."""
        said = said.replace("\\", "/").rpartition("/")[2]
        found = self.by_stem.get(stem) or self.by_name.get(said)
        return found or str((self.folders[1:] or self.folders)[0] / said)

    def beside(self) -> Iterator[str]:
        """All of these images that lie with the XML files or in a folder of images of their own."""
        own = {str(self.folder), *(str(self.folder.parent / name) for name in _IMAGE_FOLDERS if name)}
        yield from (path for path in sorted(self.by_name.values()) if str(Path(path).parent) in own)
