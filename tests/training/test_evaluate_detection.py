"""What an evaluation of a detector counts, against faster-coco-eval and counting by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from pocketvision.data.boxes import Boxes
from pocketvision.data.sources import Item
from pocketvision.errors import ConfigurationError, DataError
from pocketvision.report.plots import DARK, precision_recall_plot
from pocketvision.spec.model import Preprocessing
from pocketvision.tasks.coco import UNCOUNTED, WRONG, Found, matches
from pocketvision.training.evaluate_detection import compare, evaluate_detector

CLASSES = ("bolt", "nut")


def found(*boxes: tuple[list[float], float, int]) -> Found:
    corners = np.array([box for box, _, _ in boxes], np.float64).reshape(-1, 4)
    return Found(corners, np.array([s for _, s, _ in boxes]), np.array([label for _, _, label in boxes], np.int64))


def truth(*boxes: tuple[list[float], int], ignored: tuple[int, ...] = ()) -> Boxes:
    corners = tuple((b[0], b[1], b[2], b[3]) for b, _ in boxes)
    return Boxes((200, 100), corners, tuple(c for _, c in boxes), tuple(i in ignored for i in range(len(boxes))))


A, B, FAR = [0.0, 0, 40, 40], [50.0, 50, 90, 90], [150.0, 10, 190, 60]


def shifted(box: list[float], by: float) -> list[float]:
    return [box[0] + by, box[1], box[2] + by, box[3]]


def test_the_best_box_has_the_truth_and_the_second_is_wrong():
    there = truth((A, 0), (B, 0), (FAR, 1), ([100.0, 0, 140, 40], 0), ignored=(3,))
    said = found(
        (shifted(A, 2), 0.6, 0),
        (shifted(A, 8), 0.9, 0),  # worse, but surer
        (FAR, 0.9, 0),  # another class
        ([110.0, 10, 130, 30], 0.8, 0),  # within the ignored one
        (shifted(B, 20), 0.7, 0),  # IoU of 1/3
    )
    assert matches(there, said).tolist() == [WRONG, 0, WRONG, UNCOUNTED, WRONG]
    assert matches(there, said, iou=0.3).tolist() == [WRONG, 0, WRONG, UNCOUNTED, 1]
    assert matches(truth(), found((A, 0.5, 0))).tolist() == [WRONG]
    assert matches(there, found()).tolist() == []


def test_only_the_best_100_of_a_class_count():
    said = found(*(([2.0 * i, 0, 2.0 * i + 1, 5], 0.9 - i / 1000, 0) for i in range(120)), (A, 0.1, 1))
    result = matches(truth((A, 1)), said)
    assert (result == UNCOUNTED).sum() == 20 and result[-1] == 0


def test_counts_by_hand():
    truths = [truth((A, 0), (B, 0)), truth((A, 1)), truth()]
    said = [found((A, 0.9, 0), (FAR, 0.8, 0), (B, 0.7, 0)), found((A, 0.6, 0)), found()]
    result = compare(["one.jpg", "two.jpg", "three.jpg"], truths, said, CLASSES)
    bolt, nut = result.curves
    assert bolt.scores.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert bolt.recall.tolist() == [0.5, 0.5, 1, 1]
    assert bolt.precision == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert bolt.best == pytest.approx((0.7, 1, 2 / 3))
    assert (len(nut.scores), nut.boxes, nut.best) == (0, 1, (1.0, 0.0, 0.0))
    assert result.metrics["map"] == pytest.approx((51 + 50 * 2 / 3) / 101 / 2)
    assert [(e.image, e.missed, e.wrong) for e in result.worst] == [("two.jpg", (0,), ()), ("one.jpg", (), (1,))]
    assert result.n == 3 and (result.metric, result.value) == ("map", result.metrics["map"])
    row = {"class": "nut", "ap": 0, "ap50": 0, "precision": 0, "recall": 0, "score": 1, "boxes": 1}
    assert result.table()[1] == row
    data = json.loads(json.dumps(result.to_dict()))
    assert data["worst"][1]["wrong"] == [{"class": "bolt", "box": FAR, "score": 0.8}]
    assert data["worst"][0]["missed"] == [{"class": "nut", "box": A}]
    assert str(result).splitlines()[0] == ("mAP 41.7%, AP50 41.7%, AP75 41.7%, medium 41.7%; 3 images, 3 boxes")
    assert str(result).splitlines()[2].split() == ["bolt", "83.5%", "83.5%", "66.7%", "100.0%", "0.70", "2"]


def test_the_curves_are_those_of_faster_coco_eval():
    """100 random images with crowds: the AP50 of our curves is COCO's."""
    rng, truths, said = np.random.default_rng(0), [], []
    for _ in range(100):
        n, extra = rng.integers(0, 6), rng.integers(0, 6)
        corners = rng.uniform(0, 60, (n + extra, 4))
        corners[:, 2:] = corners[:, :2] + rng.uniform(10, 40, (n + extra, 2))
        labels = rng.integers(0, 2, n + extra)
        boxes = [(corner, int(label)) for corner, label in zip(corners.tolist(), labels, strict=True)]
        truths.append(truth(*boxes[:n], ignored=tuple(np.flatnonzero(rng.random(n) < 0.2))))
        moved = (corners + rng.normal(0, 4, corners.shape)).clip(0)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        said.append(Found(moved, rng.random(n + extra), labels))
    result = compare([str(i) for i in range(100)], truths, said, CLASSES)
    for label, curve in enumerate(result.curves):
        best = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0)
        precision = best[np.searchsorted(curve.recall, np.linspace(0, 1, 101), side="left")]
        assert 0.2 < precision.mean() < 0.95
        assert result.scores.ap(0.5, label=label) == pytest.approx(precision.mean(), abs=1e-9)


def test_boxes_are_compared_in_pixels_of_the_original(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "one.png")
    item = Item(str(tmp_path / "one.png"), -1, truth((FAR, 1)))

    def predict(pixels: np.ndarray) -> list[Found]:
        assert pixels.shape == (1, 64, 64, 3) and pixels.dtype == np.uint8
        return [found(([150 * 0.32, 6.4, 190 * 0.32, 38.4], 0.5, 1))]

    result = evaluate_detector(predict, [item], Preprocessing(size=64, resize=64, fit="stretch"), CLASSES)
    assert result.metrics == pytest.approx({"map": 1, "ap50": 1, "ap75": 1, "map_medium": 1})


def test_what_cannot_be_evaluated_is_refused(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "one.png")
    item, p = Item(str(tmp_path / "one.png"), -1, truth((A, 0))), Preprocessing(size=64, resize=64, fit="stretch")
    for wrong, reason in ((found((A, 0.5, 2)), "2 classes"), (found((A, float("nan"), 0)), "not finite")):
        with pytest.raises(ConfigurationError, match=reason):
            evaluate_detector(lambda _, wrong=wrong: [wrong], [item], p, CLASSES)
    with pytest.raises(DataError, match="no images"):
        evaluate_detector(lambda _: [], [], p, CLASSES)
    with pytest.raises(DataError, match="nothing says which boxes"):
        evaluate_detector(lambda _: [], [Item(item.image, 0)], p, CLASSES)


@pytest.mark.parametrize("count", [1, 3, 30])
def test_precision_recall_plot(count):
    recall = np.array([0.1, 0.5, 0.9])
    curve = (recall, np.array([1.0, 0.9, 0.4]))
    empty = (np.zeros(0), np.zeros(0))
    png = precision_recall_plot([curve] * (count - 1) + [empty], ["a$b"] * count, DARK)
    assert png.startswith(b"\x89PNG")
