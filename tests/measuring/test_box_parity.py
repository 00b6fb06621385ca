import numpy as np
import pytest
from onnx import numpy_helper

from pocketvision.errors import ConfigurationError, ExportError
from pocketvision.measuring.box_parity import compare_boxes
from pocketvision.measuring.parity import check_parity, failed_path
from pocketvision.measuring.runtimes import open_detector
from pocketvision.spec.heads import Selection
from pocketvision.tasks.coco import Found

SELECTION = Selection(min_score=0.1, iou=0.5, most=4)
A, NEAR_A, B, C, D = [0, 0, 40, 40], [0, 0, 40, 30], [50, 50, 90, 90], [0, 60, 30, 90], [60, 0, 90, 30]


def found(*boxes: tuple[list[float], float, int]) -> Found:
    corners = np.array([box for box, _, _ in boxes], np.float64).reshape(-1, 4)
    return Found(corners, np.array([s for _, s, _ in boxes]), np.array([label for _, _, label in boxes], np.int64))


def compare(one: Found, other: Found):
    there, back = compare_boxes([one], [other], SELECTION), compare_boxes([other], [one], SELECTION)
    assert there == back  # neither side is the truth
    return there


def test_order_does_not_matter():
    result = compare(found((A, 0.9, 0), (B, 0.9, 1)), found((B, 0.9, 1), (A, 0.9004, 0)))
    assert (result.boxes, result.unmatched, result.ties, result.min_iou) == (2, 0, 0, 1)
    assert result.max_error == pytest.approx(4e-4)
    assert result.holds


def test_scores_boxes_and_classes_that_differ():
    assert not compare(found((A, 0.9, 0)), found((A, 0.8985, 0))).holds
    assert not compare(found((A, 0.9, 0)), found((A, 0.9, 1))).holds
    assert not compare(found((A, 0.9, 0)), found()).holds
    moved = compare(found((A, 0.9, 0)), found(([1, 0, 41, 40], 0.8, 0)))  # IoU of 0.95
    assert (moved.boxes, moved.unmatched, moved.holds) == (0, 2, False)
    assert compare(found((A, 0.9, 0)), found(([0.1, 0, 40.1, 40], 0.9, 0))).holds


def test_nan_does_not_hold():
    assert not compare_boxes([found((A, 0.9, 0))], [found((A, float("nan"), 0))], SELECTION).holds
    assert not compare_boxes([found((A, 0.9, 0))], [found(([0, 0, 40, float("nan")], 0.9, 0))], SELECTION).holds


def test_tiny_boxes_are_the_same_within_a_hundredth_of_a_pixel():
    assert compare(found(([5, 5, 5.1, 5.1], 0.9, 0)), found(([5, 5, 5.105, 5.1], 0.9, 0))).holds
    assert compare(found(([5, 5, 5, 9], 0.9, 0)), found(([5, 5, 5, 9], 0.9, 0))).holds  # of no area


@pytest.mark.parametrize(
    ("one", "other", "ties"),
    [
        (found((A, 0.9, 0), (B, 0.10005, 0)), found((A, 0.9, 0)), 1),  # at the threshold
        (found((A, 0.9, 0)), found((NEAR_A, 0.9005, 0)), 2),  # rivals of one score
        (
            found((A, 0.9, 0), ([0, 0, 40, 80.02], 0.8, 0)),
            found((A, 0.9, 0)),
            1,
        ),  # an overlap of 0.5 as near as it gets
        (
            found((A, 0.9, 0), (B, 0.8, 0), (C, 0.7, 0), (D, 0.5, 0)),
            found((A, 0.9, 0), (B, 0.8, 0), (C, 0.7, 0), (D, 0.5002, 1)),
            2,
        ),  # the end of a full list
    ],
)
def test_what_rounding_decides_is_a_tie(one, other, ties):
    result = compare(one, other)
    assert (result.ties, result.unmatched, result.holds) == (ties, 0, True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (found((A, 0.9, 0), (B, 0.102, 0)), found((A, 0.9, 0))),
        (found((A, 0.9, 0)), found((NEAR_A, 0.92, 0))),
        (found((A, 0.9, 0)), found((NEAR_A, 0.9005, 1))),
        (found((A, 0.9, 0), (B, 0.8, 0)), found((A, 0.9, 0), (D, 0.8, 0))),
        (found((A, 0.9, 0), (B, 0.8, 0), (C, 0.7, 0), (D, 0.6, 0)), found((A, 0.9, 0), (B, 0.8, 0), (C, 0.7, 0))),
    ],
)
def test_what_rounding_does_not_decide_is_none(one, other):
    result = compare(one, other)
    assert result.unmatched > 0 and not result.holds


def test_what_follows_from_a_tie_is_one():
    """Two rivals of one score change places, and each suppresses another box."""
    left, right = [0, 0, 30, 40], [14, 0, 44, 40]
    one = found(([0, 0, 40, 40], 0.9, 0))
    other = found(([4, 0, 44, 40], 0.9004, 0), (left, 0.5, 0))
    result = compare(one, other)
    assert right and (result.unmatched, result.ties) == (0, 3)


def test_a_spoilt_detector_is_found_and_moved_away(detector, detector_file, tmp_path):
    import onnx

    from pocketvision.exporting.artifact import Artifact

    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    path = tmp_path / "copy.onnx"
    path.write_bytes(detector_file.path.read_bytes())
    artifact = Artifact.load(path)
    assert check_parity(artifact, detector, images).holds
    proto = onnx.load(path)
    weight = next(tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.05), weight.name))
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ExportError, match=r"boxes are the same .* are not"):
        check_parity(artifact, detector, images)
    assert failed_path(path).exists() and not path.exists()


def test_images_of_another_size_are_refused(detector_file):
    with pytest.raises(ConfigurationError, match=r"\[N, 96, 96, 3\]"):
        open_detector(detector_file)(np.zeros((1, 64, 64, 3), np.uint8))
