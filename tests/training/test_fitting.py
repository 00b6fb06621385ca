"""What fits together is trained, and what does not is refused before the first step."""

from dataclasses import replace
from pathlib import Path

import pytest

from pocketvision.data.boxes import Boxes
from pocketvision.data.sources import Dataset, Item, TaskName
from pocketvision.data.transforms import Augment
from pocketvision.errors import ConfigurationError, DataError
from pocketvision.nn.model import Model
from pocketvision.spec.detectors import with_ssd
from pocketvision.spec.faster_rcnn import with_faster_rcnn
from pocketvision.spec.heads import SSDHead
from pocketvision.spec.segmentation import with_deeplabv3, with_lraspp
from pocketvision.tasks.classification import Classification
from pocketvision.training import recipes
from pocketvision.training.fitting import check_fit, check_teacher, unused_fields
from pocketvision.training.recipe import Recipe
from pocketvision.training.training import prepare
from pocketvision.zoo import model_spec

from .conftest import RECIPE

FOUND, CROWD = (Item("a.png", -1, Boxes((9, 9), ((1.0, 1.0, 5.0, 5.0),), (0,), (crowd,))) for crowd in (False, True))
SCENES = Dataset("scenes", ("cat",), (FOUND, CROWD), (FOUND,), (), (), task="detect")
MASKS = Dataset("masks", ("cat",), (Item("a.png", -1),), (), (), (), task="segment")
SSD = with_ssd(model_spec("mobilenet_v3_small", width=0.35), ("cat",), size=320)
OURS: dict[TaskName, list[Recipe]] = {
    "classify": [make(300, 3) for make in recipes.SMALL_DATA.values()] + [f() for f in recipes.PUBLISHED.values()],
    "detect": [make(300, 3) for make in recipes.SMALL_DETECTION.values()]
    + [make() for make in recipes.PUBLISHED_DETECTION.values()],
    "segment": [make(300, 3) for make in recipes.SMALL_SEGMENTATION.values()]
    + [make() for make in recipes.PUBLISHED_SEGMENTATION.values()],
}
FOR_CLASSES = [
    {"mixup": 0.2},
    {"head_first": True},
    *({"augment": Augment(**{name: value})} for name, value in {  # type: ignore[arg-type]
        "scale": (0.5, 1.0), "ratio": (1.0, 1.0), "jitter": 0.4, "policy": "autoaugment", "erase": 0.2,
    }.items()),
]  # fmt: skip
FOR_BOXES = [{"augment": Augment(**{name: 0.5})} for name in ("zoom_out", "iou_crop", "mosaic")]
FOR_TWO = [({"label_smoothing": 0.1}, "detect"), ({"augment": Augment(distort=0.5)}, "classify")]


@pytest.mark.parametrize("task", OURS)
def test_our_recipes_fit_their_task(task: TaskName):
    assert len(OURS[task]) > 4
    assert [unused_fields(recipe, task) for recipe in OURS[task]] == [{}] * len(OURS[task])


@pytest.mark.parametrize("changes", FOR_CLASSES, ids=str)
def test_fields_of_classifiers_are_refused_for_boxes(changes: dict):
    recipe = replace(recipes.finetune_detector(300, 3), **changes)
    assert not unused_fields(recipe, "classify").keys() & unused_fields(recipe, "detect").keys()
    with pytest.raises(ConfigurationError, match=" is for classification, scenes is to detect; nearest valid: "):
        check_fit(recipe, SCENES)


@pytest.mark.parametrize("changes", FOR_BOXES, ids=str)
def test_fields_of_detectors_are_refused_for_classes(changes: dict, model: Model, data: Dataset, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"augment\.\w+ is for detection, digits is to classify; .*=0.0$"):
        prepare(model, Classification(), data, replace(RECIPE, **changes), tmp_path)


@pytest.mark.parametrize("changes", [*FOR_CLASSES, *FOR_BOXES], ids=str)
def test_fields_of_others_are_refused_for_masks(changes: dict):
    recipe = replace(recipes.finetune_segmentation(300, 3), **changes)
    with pytest.raises(
        ConfigurationError, match=r" is for (classification|detection), masks is to segment; nearest valid: "
    ):
        check_fit(recipe, MASKS)


@pytest.mark.parametrize(("changes", "task"), FOR_TWO, ids=str)
def test_fields_of_two_tasks_are_refused_for_the_third(changes: dict, task: TaskName):
    for other in OURS:
        assert bool(unused_fields(replace(Recipe(label_smoothing=0.0), **changes), other)) == (other == task)
    zoomed = replace(Recipe(label_smoothing=0.0), augment=Augment(zoom=(0.5, 2.0)))
    assert [task for task in OURS if not unused_fields(zoomed, task)] == ["segment"]


def test_boxes_must_count():
    recipe = recipes.scratch_detector(300, 3)
    check_fit(recipe, SCENES)
    check_fit(recipe, replace(SCENES, val=()))
    with pytest.raises(DataError, match="scenes: its 1 training images have no boxes that count"):
        check_fit(recipe, replace(SCENES, train=(CROWD,)))
    with pytest.raises(DataError, match="scenes: its 1 validation images have no boxes that count"):
        check_fit(recipe, replace(SCENES, val=(CROWD,)))


def test_teachers_of_pixels_may_have_other_heads_and_sizes():
    backbone = model_spec("mobilenet_v3_small", width=0.35)
    student = with_lraspp(backbone, ("cat", "dog"), size=128)
    check_teacher(with_deeplabv3(backbone, ("cat", "dog"), size=256), student)
    with pytest.raises(ConfigurationError, match="has a ClassifierHead, the student a LRASPPHead"):
        check_teacher(backbone, student)


def test_teachers_that_cannot_teach_name_the_cause():
    check_teacher(SSD, with_ssd(model_spec("mobilenet_v2", width=0.35), ("cat",), size=320))
    assert isinstance(SSD.head, SSDHead)
    fitted = replace(SSD, head=replace(SSD.head, anchors=(((0.1, 0.2),), *SSD.head.anchors[1:])))
    regions = with_faster_rcnn(model_spec("mobilenet_v3_small", width=0.35), ("cat",), size=320)
    for teacher, student, cause in (
        (with_ssd(model_spec("mobilenet_v3_small"), ("cat",), size=256), SSD, "256 px, the student 320 px; train with"),
        (fitted, SSD, "other anchors than the student"),
        (replace(SSD, head=replace(SSD.head, scores="sigmoid")), SSD, "softmax scores, not sigmoid and softmax"),
        (model_spec("mobilenet_v3_small"), SSD, "has a ClassifierHead, the student a SSDHead"),
        (regions, regions, "nearest valid: --head ssdlite"),
    ):
        with pytest.raises(ConfigurationError, match=cause):
            check_teacher(teacher, student)
