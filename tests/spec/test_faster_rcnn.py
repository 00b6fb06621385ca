"""Faster R-CNN as data: where it taps which backbone, its forms, and what is refused."""

from dataclasses import replace

import pytest

from pocketvision.errors import ConfigurationError
from pocketvision.spec.cost import cost
from pocketvision.spec.faster_rcnn import stage_taps, with_faster_rcnn
from pocketvision.spec.heads import FasterRCNNHead, Selection, Tap
from pocketvision.spec.model import from_json, to_json
from pocketvision.zoo import MODELS, model_spec

LARGE = model_spec("mobilenet_v3_large")


def test_torchvisions_taps_and_more_stages():
    """FACTS H11, C-15: torchvision's stages of MobileNetV3-Large are rows 0, 2, 4, 7, 13 and 16."""
    assert [tap.row for tap in stage_taps(LARGE.backbone)] == [13, 16]
    assert [tap.row for tap in stage_taps(LARGE.backbone, 6)] == [0, 2, 4, 7, 13, 16]


@pytest.mark.parametrize("name", MODELS)
def test_every_backbone_carries_it(name: str):
    spec = with_faster_rcnn(model_spec(name), ("cat", "dog"), stages=3)
    assert spec.head.classes == 2
    assert (spec.preprocessing.size, spec.preprocessing.fit) == (320, "stretch")
    assert from_json(to_json(spec)) == spec


def test_published_parameters():
    """FACTS C-16: 19.39 M are those without the affine BatchNorms; the forms differ in no weight."""
    assert cost(with_faster_rcnn(LARGE, 90)).params == 19_410_754
    assert cost(with_faster_rcnn(LARGE, 90, form="high")).params == 19_410_754


def test_forms_and_tuning():
    """FACTS H15: 150 proposals against 1000."""
    low, untuned = with_faster_rcnn(LARGE, 3), with_faster_rcnn(LARGE, 3, tuned=False)
    high = with_faster_rcnn(LARGE, 3, form="high")
    assert [spec.preprocessing.size for spec in (low, untuned, high)] == [320, 320, 800]
    heads = [spec.head for spec in (low, untuned, high)]
    found = [(head.proposals.most, head.proposals.min_score) for head in heads if isinstance(head, FasterRCNNHead)]
    assert found == [(150, 0.05), (1000, 0), (1000, 0.05)]
    assert cost(untuned).madds - cost(low).madds == 850 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * 5 * 4)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"classes": 0}, "classes"),
        ({"taps": ()}, "taps"),
        ({"taps": (Tap(99),)}, "Tap.row"),
        ({"sizes": ()}, "sizes"),
        ({"ratios": (0.5, -1)}, "ratios"),
        ({"channels": 0}, "channels"),
        ({"proposals": None}, "proposals"),
        ({"selection": {"most": 3}}, "selection"),
    ],
)
def test_nonsense_is_refused(fields: dict, says: str):
    spec = with_faster_rcnn(LARGE, 3)
    with pytest.raises(ConfigurationError, match=says):
        replace(spec, head=replace(spec.head, **fields))


def test_wrong_arguments_name_a_valid_one():
    with pytest.raises(ConfigurationError, match="low"):
        with_faster_rcnn(LARGE, 3, form="lo")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="1 to 6"):
        with_faster_rcnn(LARGE, 3, stages=7)
    assert Selection(iou=0.7).iou == 0.7
