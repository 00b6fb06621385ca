"""Boxes go where their pixels go, whatever is drawn; what is left of them follows a clear rule."""

import json
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as reference

from pocketvision.data.box_transforms import (
    Scene,
    View,
    _cropped,
    _rendered,
    augmented_scene,
    colour_matrix,
    mosaic,
    placed,
)
from pocketvision.data.boxes import Boxes
from pocketvision.data.transforms import Augment, prepare
from pocketvision.errors import ConfigurationError
from pocketvision.exporting.contract import describe_input
from pocketvision.spec.model import Preprocessing, from_json, to_json
from pocketvision.training.recipe import Recipe, from_dict

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
VIEWS = {
    "flip": Augment(flip=1),
    "zoom out": Augment(flip=0, zoom_out=1),
    "crop": Augment(flip=0, iou_crop=1),
    "all": Augment(zoom_out=0.5, iou_crop=1),
}


def painted(height: int = 90, width: int = 120) -> Scene:
    """Three rectangles, each with a colour of its own, on black."""
    image = np.zeros((height, width, 3), np.uint8)
    boxes = np.array([(10, 12, 42, 40), (60, 8, 110, 36), (30, 50, 100, 84)])
    for (x1, y1, x2, y2), colour in zip(boxes, COLOURS, strict=True):
        image[y1:y2, x1:x2] = colour
    image.flags.writeable = False  # as pixels in the cache
    return Scene(image, boxes.astype(np.float32), np.arange(3), np.array([False, False, True]))


def found(image: np.ndarray, label: int) -> tuple[float, float, float, float] | None:
    """Where the colour of ``label`` is."""
    colour = image[..., label].astype(int) - image[..., [c for c in range(3) if c != label]].max(axis=2)
    rows, columns = np.nonzero(colour > 120)
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None


@pytest.mark.parametrize("name", VIEWS)
def test_boxes_enclose_their_pixels(name: str):
    torch.manual_seed(1)
    whole = painted()
    for _ in range(60):
        scene = augmented_scene(whole, 64, VIEWS[name])
        assert scene.image.shape == (64, 64, 3)
        assert scene.image.dtype == np.uint8
        assert (scene.boxes.dtype, scene.labels.dtype, scene.ignored.dtype) == (np.float32, np.int64, bool)
        assert len(scene.boxes) == len(scene.labels) == len(scene.ignored) > 0
        assert scene.boxes.min() >= 0
        assert scene.boxes.max() <= 64
        for label in range(3):
            place, mine = found(scene.image, label), scene.boxes[scene.labels == label]
            if len(mine):
                assert place is not None
                assert np.abs(mine[0] - place).max() <= 1.5
            else:
                assert place is None or min(place[2] - place[0], place[3] - place[1]) <= 3


def test_nothing_is_drawn_where_nothing_is_asked():
    scene = augmented_scene(painted(), 64, Augment(flip=0))
    resized = reference.resize(torch.from_numpy(painted().image.copy()).permute(2, 0, 1), [64, 64], antialias=True)
    assert np.array_equal(scene.image, resized.permute(1, 2, 0).numpy())
    assert np.allclose(scene.boxes, painted().boxes * np.tile([64 / 120, 64 / 90], 2))
    assert scene.ignored.tolist() == [False, False, True]


def test_stretched_preprocessing_sees_the_whole_image():
    p = Preprocessing(64, 64, fit="stretch")
    assert np.array_equal(prepare(painted().image, p), augmented_scene(painted(), 64, Augment(flip=0)).image)
    assert "resize the whole image to 64 x 64 pixels, each side by itself" in describe_input(p)
    assert from_json(to_json(p)) == p
    with pytest.raises(ConfigurationError, match=r"Preprocessing.fit='strech' is unknown; did you mean 'stretch'\?"):
        Preprocessing(fit="strech")  # type: ignore[arg-type]


def test_what_is_left_of_a_box():
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array(
        [(0, 0, 20, 20), (36, 0, 56, 20), (32, 40, 52, 60), (38.5, 70, 58, 90), (60, 60, 80, 80)], np.float32
    )
    scene = Scene(image, boxes, np.arange(5), np.array([False, False, False, False, False]))
    seen = _rendered(scene, View(0, 0, 40, 100), 100, 40, "bilinear")
    assert seen.labels.tolist() == [0, 1, 2]  # of box 3 a pixel and a half are left, of box 4 nothing
    assert seen.ignored.tolist() == [False, True, False]  # of box 1 a fifth, of box 2 two fifths
    assert seen.boxes.tolist() == [[0, 0, 20, 20], [36, 0, 40, 20], [32, 40, 40, 60]]


def test_a_crop_has_a_box():
    torch.manual_seed(0)
    boxes = np.array([(5, 5, 9, 9), (100, 60, 110, 80)], np.float32)
    views = [_cropped(View(0, 0, 120, 90), boxes) for _ in range(200)]
    for view in views:
        assert 0 <= view.left <= view.left + view.width <= 120
        assert 0 <= view.top <= view.top + view.height <= 90
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 - (view.left, view.top)
        assert ((centres > -1) & (centres < (view.width + 1, view.height + 1))).all(axis=1).any()
    whole = sum(view == View(0, 0, 120, 90) for view in views)
    assert 20 < whole < 180  # these boxes are too small for most of the overlaps that are asked for
    assert len({_cropped(View(0, 0, 120, 90), boxes[:0]) for _ in range(20)}) > 10  # background is cropped too


@pytest.mark.parametrize("thin", [False, True])
def test_a_crop_beside_the_image_is_grey(thin: bool):
    """Zoomed out, a part may show nothing of an image without boxes, nor of one whose box is thinner than a pixel."""
    torch.manual_seed(0)
    boxes, image = np.array([(119.8, 0, 120, 90)][: int(thin)], np.float32).reshape(-1, 4), painted().image
    whole = Scene(image, boxes, np.zeros(len(boxes), np.int64), np.zeros(len(boxes), bool))
    for view in (View(-50, -40, 40, 40), View(120, 10, 30, 30), View(3, 90, 30, 20)):
        seen = _rendered(whole, view, 32, 48, "bilinear")
        assert seen.image.shape == (32, 48, 3)
        assert (seen.image == seen.image[0, 0]).all() and seen.image.min() > 0
        assert [len(column) for column in seen[1:]] == [0, 0, 0]
    for _ in range(400):
        assert augmented_scene(whole, 16, Augment(zoom_out=1, iou_crop=1)).image.shape == (16, 16, 3)


def test_a_function_of_torchs_generator_alone():
    def pixels(seed: int) -> list[bytes]:
        torch.manual_seed(seed)
        return [b"".join(column.tobytes() for column in augmented_scene(painted(), 48, everything)) for _ in range(5)]

    everything = Augment(zoom_out=0.5, iou_crop=1, distort=1)
    before = random.getstate(), np.random.get_state()[1].copy()  # type: ignore[union-attr]  # noqa: NPY002
    first = pixels(3)
    assert first == pixels(3)
    assert len(set(first)) == 5
    assert pixels(4) != first
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[arg-type]  # noqa: NPY002


@given(st.floats(-0.125, 0.125), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
@settings(max_examples=20, deadline=None)
def test_colours_as_torchvisions(brightness: float, contrast: float, saturation: float):
    """Colours in the middle, so that none is cut off: torchvision does that after each of the three, we once."""
    image = torch.from_numpy(np.random.default_rng(0).uniform(0.35, 0.6, (3, 16, 16)))
    expected = reference.adjust_brightness(image, 1 + brightness)
    expected = reference.adjust_contrast(expected, 1 + contrast)
    expected = reference.adjust_saturation(expected, 1 + saturation)
    pixels = image.numpy().reshape(3, -1)
    mean = float((np.array([0.299, 0.587, 0.114]) @ pixels).mean())
    matrix = colour_matrix(brightness, contrast, saturation, 0.0, mean)
    ours = matrix[:, :3] @ pixels + matrix[:, 3:]
    assert np.abs(ours - expected.numpy().reshape(3, -1)).max() < 1e-3


def test_hue_turns_colours_and_leaves_greys():
    matrix = colour_matrix(0, 0, 0, math.radians(120), 0)
    assert np.allclose(matrix[:, :3] @ [200, 0, 0], [0, 200, 0])
    assert np.allclose(colour_matrix(0, 0, 0, 0.3, 0)[:, :3] @ [90, 90, 90], 90)


def test_distortion_changes_colours_only():
    torch.manual_seed(0)
    plain = augmented_scene(painted(), 64, Augment(flip=0))
    changed = [augmented_scene(painted(), 64, Augment(flip=0, distort=1)) for _ in range(30)]
    assert all(np.array_equal(scene.boxes, plain.boxes) for scene in changed)
    same = sum(np.array_equal(scene.image, plain.image) for scene in changed)
    assert same < 10
    assert len({scene.image.tobytes() for scene in changed}) >= 30 - same


def test_mosaic_puts_four_scenes_together():
    torch.manual_seed(0)
    scenes = []
    for number in range(4):
        image = np.zeros((60, 80, 3), np.uint8)
        image[15:45, 20:60] = COLOURS[number % 3]
        scenes.append(
            Scene(image, np.array([[20, 15, 60, 45]], np.float32), np.array([number]), np.array([number == 3]))
        )
    scene = mosaic(scenes, 100, Augment(flip=0, zoom_out=1))
    assert scene.image.shape == (100, 100, 3)
    assert scene.labels.tolist() == [0, 1, 2, 3]
    assert scene.ignored.tolist() == [False, False, False, True]
    for label in (1, 2):
        assert np.abs(scene.boxes[label] - found(scene.image, label)).max() <= 1.5
    centres = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
    assert (centres[0] < centres[3]).all()
    assert centres[1, 0] > centres[2, 0]
    assert centres[1, 1] < centres[2, 1]


def test_boxes_are_placed_in_reduced_images():
    boxes = Boxes((400, 200), ((40.0, 20.0, 80.0, 100.0),), (1,), (True,))
    scene = placed(boxes, np.zeros((100, 100, 3), np.uint8))
    assert scene.boxes.tolist() == [[10, 10, 20, 50]]
    none = placed(Boxes((4, 4), (), (), ()), np.zeros((4, 4, 3), np.uint8))
    assert (none.boxes.shape, none.labels.shape, none.ignored.shape) == ((0, 4), (0,), (0,))
    assert augmented_scene(none, 32, VIEWS["all"]).boxes.shape == (0, 4)


def test_fields_are_checked_and_kept_by_a_recipe():
    for name in ("zoom_out", "iou_crop", "distort", "mosaic"):
        with pytest.raises(ConfigurationError, match=rf"Augment.{name}=1.5 is outside 0 to 1"):
            Augment(**{name: 1.5})
    recipe = Recipe(augment=Augment(zoom_out=0.5, iou_crop=1.0, distort=0.5, mosaic=0.1))
    assert from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
