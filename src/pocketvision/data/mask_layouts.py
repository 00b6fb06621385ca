"""Segmentation sets: folders of images beside folders of masks, found by looking."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .boxes import Note
from .layouts import SPLIT_NAMES, SPLITS, Found, Record, images_below, normal, subfolders
from .mask_classes import read_legend

_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit")
_MASKS = ("masks", "mask", "labels", "label", "annotations", "annots", "annot", "segmentationclass", "gtfine")
_BESIDE = ("annot", "_annot", "_annotations", "_labels", "_masks", "_mask", "masks")  # train -> trainannot
_MASK_ENDS = (
    "_gtfine_labeltrainids", "_gtfine_labelids", "_mask", "_masks", "_label", "_labels", "_seg", "_gt", "_l",
)  # fmt: skip
_OTHER_ENDS = ("_gtfine_color", "_gtfine_instanceids")
_IMAGE_ENDS = ("_leftimg8bit", "_image")
_LISTS = ("ImageSets/Segmentation", "")
EXPECTED = (
    "expected are images and masks of the same names in FOLDER/train/images and FOLDER/train/masks, "
    "FOLDER/images/train and FOLDER/masks/train, FOLDER/images and FOLDER/masks, or VOC's folders"
)


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder of images and one of their masks; ``only``: the names (without suffix) that belong to this split."""

    split: str
    images: Path
    masks: Path
    only: frozenset[str] | None = None

    def read(self, root: Path) -> tuple[list[Record], list[tuple[str, str]], list[Note]]:
        """Images with their masks, images that are left out with the reason, and masks without an image."""
        images, masks = _names(self.images, _IMAGE_ENDS), _names(self.masks, _MASK_ENDS)
        named = dict[str, str]()
        for which in (0, 1):  # a mask's own name counts before that without its end
            for file, names in masks.items():
                named.setdefault(names[which], file)
        records, skipped = list[Record](), list[tuple[str, str]]()
        for image, names in images.items():
            if self.only is None or Path(image).stem in self.only:
                key = normal(Path(image).relative_to(root).as_posix())
                if mask := next((named[name] for name in names if name in named), None):
                    records.append(Record(image, "", self.split, key, mask_file=mask))
                else:
                    skipped.append((image, "it has no mask"))
        if self.only is not None:
            absent = sorted(self.only - {Path(image).stem for image in images})
            skipped += [(str(self.images / n), f"it is listed in {self.split}.txt but not there") for n in absent]
            return records, skipped, []
        known = {name for names in images.values() for name in names}
        alone = [file for file, names in masks.items() if known.isdisjoint(names)]
        return records, skipped, [Note(file, "alone", "there is no image of this name") for file in alone]


def find_masks(root: Path) -> Found | None:
    """The segmentation set in a folder, not yet looked into; None where there is none.

    Images and masks lie in ``{train,val,test}/{images,masks}``, ``{images,masks}/{train,val,test}``, ``{images,masks}``
    (also JPEGImages and SegmentationClass), or in train and trainannot. Of folders that are not divided,
    ImageSets/Segmentation/{train,val,test}.txt says which split a name belongs to, if it is there. A mask has the name
    of its image, or that and _mask, _label, ... Raises DataError for a damaged set.
    """
    if not root.is_dir():
        return None
    places, unused = _places(root)
    places.sort(key=lambda place: SPLITS.index(place.split))
    records, skipped, notes = list[Record](), list[tuple[str, str]](), list[Note]()
    for place in places:
        for whole, part in zip((records, skipped, notes), place.read(root), strict=True):
            whole += part
    if not records:
        return None
    present = {record.split for record in records}
    layout = f"masks in {', '.join(dict.fromkeys(p.masks.relative_to(root).as_posix() for p in places))}"
    layout += " (split by lists of names)" if any(place.only is not None for place in places) else ""
    layout += f" ({', '.join(unused)} without masks not used)" if unused else ""
    above = [folder for place in places for folder in (place.masks, place.masks.parent, place.masks.parent.parent)]
    legend = read_legend([root, *(folder for folder in above if folder.is_relative_to(root))])
    splits = tuple(split for split in SPLITS if split in present)
    if "train" not in present:
        raise DataError(f"{root}: {layout}: has {', '.join(splits)}, but nothing to train on; {EXPECTED}")
    return Found(
        root, layout, legend.names if legend else (), splits, tuple(records), tuple(skipped), tuple(notes), "segment",
        legend,
    )  # fmt: skip


def unmatched(root: Path) -> str:
    """Why folders that are called like images and masks are no set: no image has a mask. "" where there are none."""
    places = _places(root)[0] if root.is_dir() else []
    for place in sorted(places, key=lambda place: SPLITS.index(place.split)):
        image, mask = (next(images_below(folder, set()), "") for folder in (place.images, place.masks))
        if image and (mask or "mask" in place.masks.name.lower()):  # labels may be of boxes
            example = f"; for example {Path(image).name} beside {Path(mask).name}" if mask else ", it is empty"
            return f"no mask in {place.masks.relative_to(root)} has the name of an image{example}; {EXPECTED}"
    return ""


def of_masks(folders: Iterable[str]) -> bool:
    """Whether folders are called like those of images and of masks, and nothing else."""
    names = {folder.lower() for folder in folders}
    return not names.isdisjoint(_IMAGES) and not names.isdisjoint(_MASKS) and names <= {*_IMAGES, *_MASKS}


def _places(root: Path) -> tuple[list[_Place], list[str]]:
    """Where images and masks lie, by the first layout that fits, and folders of splits that have no masks."""
    folders = subfolders(root)
    splits = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
    pairs = {name: _pair(subfolders(folders[name])) for name in splits}
    if not any(pairs.values()):
        lower = {name.lower(): folder for name, folder in folders.items()}
        beside = {
            name: [lower[name.lower() + end] for end in _BESIDE if name.lower() + end in lower] for name in splits
        }
        pairs = {name: (folders[name], masks[0]) if masks else None for name, masks in beside.items()}
    if any(pairs.values()):
        places = [_Place(splits[name], *pair) for name, pair in pairs.items() if pair]
        return places, [name for name, pair in pairs.items() if not pair]
    places, unused = list[_Place](), list[str]()
    for base in _bases(root):
        if pair := _pair(subfolders(base)):
            images, masks = (subfolders(folder) for folder in pair)
            divided = {name: SPLIT_NAMES[name.lower()] for name in images if name.lower() in SPLIT_NAMES}
            of_masks = {SPLIT_NAMES.get(name.lower()): folder for name, folder in masks.items()}
            both = [_Place(split, images[n], of_masks[split]) for n, split in divided.items() if split in of_masks]
            places += both or _listed(base, *pair)
            unused += [name for name, split in divided.items() if both and split not in of_masks]
    return places, unused


def _bases(root: Path) -> Iterator[Path]:
    """The folder itself, and those of VOC below it."""
    yield root
    for name, folder in subfolders(root).items():
        if name.lower().startswith("voc"):
            yield from _bases(folder)


def _pair(folders: dict[str, Path]) -> tuple[Path, Path] | None:
    """The folder of images and that of masks among ``folders``."""
    lower = {name.lower(): folder for name, folder in folders.items()}
    images, masks = (next((lower[name] for name in names if name in lower), None) for names in (_IMAGES, _MASKS))
    return (images, masks) if images and masks else None


def _listed(base: Path, images: Path, masks: Path) -> list[_Place]:
    for folder in (base / name for name in _LISTS):
        lists = {split: folder / f"{split}.txt" for split in (*SPLITS, "trainval")}
        names = {split: _list(path) for split, path in lists.items() if path.is_file()}
        if "train" not in names and "trainval" in names:
            names["train"] = names["trainval"]
        names.pop("trainval", None)
        if "train" in names:
            return [_Place(split, images, masks, only) for split, only in names.items()]
    return [_Place("train", images, masks)]


def _list(path: Path) -> frozenset[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return frozenset(Path(line.split()[0]).stem for line in lines if line.strip())


def _names(folder: Path, ends: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Image files below ``folder``, and the path below it without suffix, as it is and without one of ``ends``; those
    with the earliest of these first."""
    found = list[tuple[int, str, tuple[str, str]]]()
    for file in images_below(folder, set()):
        own = normal(Path(file).relative_to(folder).with_suffix("").as_posix())
        if not own.lower().endswith(_OTHER_ENDS):
            rank = next((rank for rank, end in enumerate(ends) if own.lower().endswith(end)), None)
            short = own if rank is None else own[: -len(ends[rank])]
            found.append((-1 if rank is None else rank, file, (own, short)))
    return {file: names for _, file, names in sorted(found)}
