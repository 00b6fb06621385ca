"""What is wrong with masks is said: the image is left out with the reason, or one error says what to do."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketvision.data.masks import look_at_mask, read_mask
from pocketvision.data.sources import Dataset, open_dataset
from pocketvision.errors import DataError

from .boxed import picture
from .masked import make, said, save, values, voc


def reasons(dataset: Dataset) -> dict[str, str]:
    return {Path(skipped.image).stem: skipped.reason for skipped in dataset.skipped}


def _jpeg(path: Path) -> None:
    Image.fromarray(values("a")).save(path.with_suffix(".jpg"))
    path.unlink()


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (Path.unlink, "it has no mask"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty (0 bytes)"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:200]), "the image is truncated or damaged"),
    "text": (lambda path: path.write_text("mask"), "it is not an image of a known format"),
    "link": (_link, "it is a link to a file that does not exist"),
    "other size": (lambda path: save(path, values("a")[:, :20]), "has 20 x 30 pixels, the image 40 x 30"),
    "turned size": (lambda path: save(path, values("a").T), "has 30 x 40 pixels, the image 40 x 30"),
    "void": (lambda path: save(path, np.full((30, 40), 255, np.uint8)), "all of it is void"),
    "colours": (lambda path: save(path, values("a"), "RGB"), "it is in colours, and what they mean only a class_dict"),
    "jpeg": (_jpeg, "it is a JPEG file, whose compression changes values; save masks as PNG"),
    "float": (lambda path: Image.new("F", (40, 30)).save(path, "TIFF"), "its pixels are of Pillow's mode F"),
    "32 bits": (
        lambda path: Image.fromarray(np.full((30, 40), 1 << 20, np.int32)).save(path, "TIFF"),
        "it has 32-bit values",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_mask_is_left_out_with_the_reason(kind: str, tmp_path: Path):
    make(tmp_path)
    spoil, reason = BAD[kind]
    spoil(tmp_path / "train/masks/b.png")
    dataset = open_dataset(tmp_path)
    assert [Path(item.image).stem for item in dataset.train] == ["a", "c"]
    assert list(reasons(dataset)) == ["b"]
    assert reason in reasons(dataset)["b"]
    assert "1 skipped" in dataset.description


@pytest.mark.parametrize("kind", BAD)
def test_only_bad_masks_are_an_error(kind: str, tmp_path: Path):
    make(tmp_path)
    spoil, reason = BAD[kind]
    for path in (tmp_path / "train/masks").iterdir():
        spoil(path)
    with pytest.raises(DataError) as error:
        open_dataset(tmp_path)
    message = str(error.value)
    assert "\n" not in message
    if kind == "colours":
        assert f"add {tmp_path / 'class_dict.csv'} with the line name,r,g,b and one for each class" in message
        for colour in ("0,0,0", "128,0,0", "0,128,0", "255,255,255"):
            assert colour in message.partition("Found: ")[2]
    elif kind == "absent":
        assert "nothing to train on" in message
    elif kind == "void":
        assert "all of train's masks have only the value 255; 2 classes are needed" in message
    else:
        assert reason in message


def test_bad_images(tmp_path: Path):
    make(tmp_path)
    (tmp_path / "train/images/a.png").write_bytes(b"")
    (tmp_path / "val/images/d.png").unlink()
    dataset = open_dataset(tmp_path)
    assert reasons(dataset) == {"a": "the file is empty (0 bytes)"}
    (note,) = dataset.notes
    assert (Path(note.image).stem, note.kind) == ("d", "alone")
    assert "1 mask without an image, 1 skipped" in dataset.description
    for path in tmp_path.rglob("images/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of its 5 images can be read"):
        open_dataset(tmp_path)


def test_values_without_a_class_are_void_and_counted(tmp_path: Path):
    make(tmp_path)
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    dataset = open_dataset(tmp_path)
    assert "6 masks with values that no class has (void)" in dataset.description
    assert {note.kind for note in dataset.notes} == {"unlisted"}
    count = (values("a") == 2).sum()
    assert dataset.notes[0].text == f"{count} pixels of value 2"
    assert np.array_equal(said(dataset)["train"]["a"], np.where(values("a") == 2, 255, values("a")))


def test_values_that_only_validation_has_are_void(tmp_path: Path):
    make(tmp_path)
    save(tmp_path / "val/masks/d.png", values("d", 5))
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("0", "1", "2")
    assert [note.text for note in dataset.notes] == [f"{(values('d', 5) % 255 >= 3).sum()} pixels of value 3, 4"]
    assert set(np.unique(said(dataset)["val"]["d"])) == {0, 1, 2, 255}


def test_a_colour_without_a_class(tmp_path: Path):
    make(tmp_path, mode="RGB")
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nsky,0,0,0\nroad,128,0,0\n")
    dataset = open_dataset(tmp_path)
    assert dataset.notes[0].text.endswith("pixels of colour 0,128,0 ; 255,255,255")


def test_too_few_and_too_many_classes(tmp_path: Path):
    make(tmp_path)
    for path in (tmp_path / "train/masks").iterdir():
        save(path, np.zeros((30, 40), np.uint8))
    with pytest.raises(DataError, match="have only the value 0; 2 classes are needed, background is one of them"):
        open_dataset(tmp_path)
    (tmp_path / "classes.txt").write_text("sky\n")
    with pytest.raises(DataError, match=r"classes.txt: names 1 classes; masks have 2 to 255, background is one of"):
        open_dataset(tmp_path)
    (tmp_path / "classes.txt").unlink()
    for path in (tmp_path / "train/masks").iterdir():
        Image.fromarray(np.arange(1200).reshape(30, 40).astype(np.uint16)).save(path)
    with pytest.raises(DataError, match="they have 1200 values, so their classes cannot be told"):
        open_dataset(tmp_path)


def test_smoothed_edges(tmp_path: Path):
    make(tmp_path)
    for path in tmp_path.rglob("masks/*.png"):
        mask = np.zeros((30, 40), np.uint8)
        mask[:, 10:], mask[:2, 9] = 255, (40, 90)
        mask[2:27, 9] = np.arange(2, 252, 10)
        save(path, mask)
    with pytest.raises(DataError, match="0 and 255 with all values between: their edges are smoothed, so"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("classes.txt", "sky\nsky\n", "two classes have the name 'sky'"),
        ("class_dict.csv", "name,r,g,b\na,0,0,0\nb,0,0,0\n", "two classes have the value '0'"),
        ("class_dict.csv", "name,r,g,b\na,0,0,0\nb,0,300,0\n", "the colour 0,300,0 is outside 0 to 255"),
        ("class_dict.csv", "name,r,g,b\na\nb,1,2\n", "no classes can be read"),
        ("labelmap.txt", "a\nb\n", "no classes can be read"),
        ("classes.json", "[1, 2]", "1 is no name of a class"),
        ("classes.json", '["a", ', "no classes can be read"),
        ("classes.txt", "a\x07\nb", "control character"),
    ],
)
def test_damaged_class_files(name: str, text: str, said: str, tmp_path: Path):
    make(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as error:
        open_dataset(tmp_path)
    assert said in str(error.value)
    assert str(tmp_path / name) in str(error.value)


def test_class_file_in_another_encoding(tmp_path: Path):
    make(tmp_path)
    (tmp_path / "classes.txt").write_bytes("café\nthé\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        open_dataset(tmp_path)


def test_lists_name_what_is_not_there(tmp_path: Path):
    voc(tmp_path)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\nb\nghost\nwithout\n")
    dataset = open_dataset(tmp_path)
    assert [Path(item.image).stem for item in dataset.train] == ["a", "b"]
    assert reasons(dataset) == {"ghost": "it is listed in train.txt but not there", "without": "it has no mask"}
    assert "masks in SegmentationClass (split by lists of names)" in dataset.description


def test_no_split_for_training(tmp_path: Path):
    make(tmp_path)
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(DataError, match="has val, test, but nothing to train on; expected are"):
        open_dataset(tmp_path)


def turned(path: Path, orientation: int) -> None:
    """A photo stored lying down, 40 x 30 pixels, which EXIF turns."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(path.with_suffix(".png"))
    Image.open(path.with_suffix(".png")).save(path, exif=exif, quality=95)
    path.with_suffix(".png").unlink()


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_images_that_exif_turns(orientation: int, tmp_path: Path):
    """A mask for the image as it is shown counts as it stands; one for the image as it is stored is turned like it."""
    make(tmp_path)
    turn = {5: np.transpose, 6: lambda m: np.rot90(m, -1), 7: lambda m: np.rot90(m, 2).T, 8: np.rot90}[orientation]
    for name in ("a", "b"):
        (tmp_path / f"train/images/{name}.png").unlink()
        turned(tmp_path / f"train/images/{name}.jpg", orientation)
    save(tmp_path / "train/masks/a.png", turn(values("a")))
    dataset = open_dataset(tmp_path)
    masks = said(dataset)["train"]
    assert np.array_equal(masks["a"], turn(values("a")))
    assert np.array_equal(masks["b"], turn(values("b")))
    assert [Path(note.image).stem for note in dataset.notes if note.kind == "turned"] == ["b"]
    assert "1 mask turned as EXIF turns the image" in dataset.description
    assert [item.mask.size for item in dataset.train if item.mask] == [(30, 40), (30, 40), (40, 30)]


def test_a_photo_is_no_mask(tmp_path: Path):
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3)).astype(np.uint8)).save(photo)
    assert look_at_mask(str(photo), True) == "it has more than 4096 colours: it is a photo, or was saved with losses"


def test_masks_that_change_after_they_were_found(tmp_path: Path):
    dataset = open_dataset(make(tmp_path))
    mask = dataset.train[0].mask
    assert mask
    save(Path(mask.file), values("a")[:10])
    with pytest.raises(DataError, match="it has 40 x 10 pixels, when it was found it had 40 x 30; replace it"):
        read_mask(mask)
    Path(mask.file).unlink()
    with pytest.raises(DataError, match=r"there is no such file; put it back$"):
        read_mask(mask)
