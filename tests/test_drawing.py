import numpy as np
import pytest

from pocketvision.report.drawing import Drawn, colour, draw, drawn, side_by_side

GREY = 128


def blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def rgb(label: int) -> list[int]:
    return [int(colour(label)[i : i + 2], 16) for i in (1, 3, 5)]


def coloured(picture: np.ndarray, label: int) -> np.ndarray:
    """Where the colour of a class is: [H, W]."""
    return (picture == rgb(label)).all(2)


@pytest.mark.parametrize("side", [500, 1600])
def test_line_on_the_edge_of_the_box_and_grows_with_the_picture(side):
    box = (0.2 * side, 0.4 * side, 0.6 * side, 0.8 * side)
    picture = draw(blank(side, side), [Drawn(box, "", 0)])
    rows, columns = np.nonzero(coloured(picture, 0))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == tuple(map(round, box))
    middle = coloured(picture, 0)[round(0.6 * side), : side // 2]
    assert middle.sum() == max(2, round(side / 320))


def test_a_small_picture_is_enlarged_by_a_whole_number():
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    picture = draw(image, [Drawn((16, 12, 32, 24), "", 3)])
    assert picture.shape == (48 * 8, 64 * 8, 3)
    np.testing.assert_array_equal(picture[::8, ::8][30:], image[30:])
    rows, columns = np.nonzero(coloured(picture, 3))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (16 * 8, 12 * 8, 32 * 8 - 1, 24 * 8 - 1)


@pytest.mark.parametrize("corner", [(0, 0, 60, 40), (440, 0, 500, 40), (0, 460, 60, 500), (440, 460, 500, 500)])
def test_labels_stay_within_the_picture(corner):
    picture = draw(blank(500, 500), [Drawn(corner, "platelets 0.97", 1)])
    filled = coloured(picture, 1)
    letters = (picture < 60).all(2)
    assert filled.sum() > 500
    assert letters.sum() > 30  # dark letters on a light blue


def test_labels_do_not_cover_each_other_where_there_is_room():
    boxes = [(100, 100, 200, 200), (104, 103, 210, 205), (98, 110, 190, 190)]
    together = draw(blank(500, 500), [Drawn(box, "cell 0.90", label) for label, box in enumerate(boxes)])
    for label, box in enumerate(boxes):
        alone = coloured(draw(blank(500, 500), [Drawn(box, "cell 0.90", label)]), label).sum()
        assert coloured(together, label).sum() > 0.7 * alone


def test_drawn_best_first_with_names_and_scores():
    boxes, labels = np.array([[0, 0, 9, 9], [1, 1, 5, 5.5]]), np.array([1, 0])
    found = drawn(boxes, labels, ("cat", "dog"), np.array([0.3, 0.904]))
    assert [mark.text for mark in found] == ["cat 0.90", "dog 0.30"]
    assert found[0].corners == (1, 1, 5, 5.5)
    assert [mark.text for mark in drawn(boxes, labels, ("cat", "dog"))] == ["dog", "cat"]


def test_the_image_itself_stays_as_it_is():
    image = blank(500, 600)
    draw(image, [Drawn((10, 10, 100, 100), "x", 0)])
    assert (image == GREY).all()


@pytest.mark.parametrize("corners", [(-50, -50, 900, 900), (499, 499, 499, 499), (30, 30, 30.2, 30.1)])
def test_boxes_beyond_the_picture_and_tiny_ones(corners):
    assert coloured(draw(blank(500, 500), [Drawn(corners, "", 2)]), 2).any()


def test_faint_marks_have_thin_lines_and_no_text():
    box = (500, 500, 1500, 1500)
    strong, faint = (draw(blank(2000, 2000), [Drawn(box, "cell", 0, faint)]) for faint in (False, True))
    assert 0 < coloured(faint, 0).sum() < 0.6 * coloured(strong, 0).sum()


def test_colours_of_ninety_classes_differ():
    assert len({colour(label) for label in range(90)}) == 90


def test_side_by_side():
    left, right = blank(200, 300), blank(200, 300) // 2
    both = side_by_side((left, right), ("Truth", "Prediction"))
    assert both.shape[1] > 600 and both.shape[0] > 200
    assert (both[-100, :300] == GREY).all() and (both[-100, -300:] == GREY // 2).all()
