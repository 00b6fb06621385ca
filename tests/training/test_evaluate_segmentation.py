"""What an evaluation of pixels counts, and several scales against doing each by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pocketvision.data.masks import VOID, Mask
from pocketvision.data.sources import Item
from pocketvision.errors import ConfigurationError, DataError
from pocketvision.nn.layers import Normalize
from pocketvision.nn.model import Model, build
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec, Preprocessing
from pocketvision.spec.rows import Conv
from pocketvision.spec.segmentation import with_lraspp
from pocketvision.training.evaluate_segmentation import SCALES, evaluate_segmenter, multi_scale, torch_segmenter

CLASSES = ("sky", "road", "car")
P = Preprocessing(size=32, resize=32, fit="stretch")


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Two images of 40 x 20 pixels: the left half sky and the right one road, and a car that is void at its edge."""
    halves = np.repeat(np.repeat(np.array([[0, 1]], np.uint8), 20, axis=1), 20, axis=0)
    car = halves.copy()
    car[5:15, 10:30] = VOID
    car[6:14, 12:28] = 2
    found = list[Item]()
    for name, mask in (("halves", halves), ("car", car)):
        Image.new("RGB", (40, 20)).save(tmp_path / f"{name}.jpg")
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        there = Mask(str(tmp_path / f"{name}.png"), (0, 1, 2), (40, 20))
        found.append(Item(str(tmp_path / f"{name}.jpg"), -1, mask=there))
    return found


def left_and_right(pixels: np.ndarray) -> np.ndarray:
    """Says sky of the left half of the input, road of the right one."""
    assert pixels.dtype == np.uint8 and pixels.shape[1:] == (32, 32, 3)
    return np.tile(np.repeat(np.array([0, 1], np.uint8), 16), (len(pixels), 32, 1))


def test_counts_by_hand(items: list[Item]):
    result = evaluate_segmenter(left_and_right, items, P, CLASSES, batch=1)
    void, car = 200 - 128, 128
    matrix = np.array([[800 - (void + car) // 2, 0, 0], [0, 800 - (void + car) // 2, 0], [car // 2, car // 2, 0]])
    assert result.confusion.tolist() == matrix.tolist()
    ious = [700 / 764, 700 / 764, 0]
    accuracy = 1400 / 1528
    assert result.metrics == pytest.approx({"miou": float(np.mean(ious)), "pixel_accuracy": accuracy})
    assert (result.n, result.metric, result.value) == (2, "miou", result.metrics["miou"])
    assert result.pixel_accuracy == accuracy
    rows = result.table()
    assert rows[0] == pytest.approx(
        {"class": "sky", "iou": ious[0], "precision": ious[0], "recall": 1, "share": 700 / 1528}
    )
    assert (rows[2]["iou"], rows[2]["precision"], rows[2]["recall"]) == (0, None, 0)
    [worst] = result.worst  # the other one is perfect
    assert worst.image == items[1].image and worst.mask == items[1].mask
    assert worst.iou == pytest.approx((300 / 364 + 300 / 364 + 0) / 3)
    assert (worst.found == left_and_right(np.zeros((1, 32, 32, 3), np.uint8))[0]).all()
    data = json.loads(json.dumps(result.to_dict()))
    assert data["confusion"] == matrix.tolist() and data["worst"] == [{"file": worst.image, "iou": worst.iou}]
    lines = str(result).splitlines()
    assert lines[0] == "mIoU 61.1%, pixel accuracy 91.6%; 2 images"
    assert lines[2].split() == ["sky", "91.6%", "91.6%", "100.0%", "45.8%"]
    assert lines[4].split() == ["car", "0.0%", "-", "0.0%", "8.4%"]


def test_masks_are_judged_in_their_own_size(items: list[Item]):
    """One column of 32 that is wrong covers 1.25 of the 40: those whose centre it holds."""

    def one_off(pixels: np.ndarray) -> np.ndarray:
        found = left_and_right(pixels)
        found[:, :, 16] = 0
        return found

    result = evaluate_segmenter(one_off, items[:1], P, CLASSES)
    assert result.confusion.tolist() == [[400, 0, 0], [20, 380, 0], [0, 0, 0]]


def test_what_cannot_be_evaluated_is_refused(items: list[Item]):
    wrong = np.full((1, 32, 32), 3, np.uint8)
    with pytest.raises(ConfigurationError, match="class number 3, the data has 3 classes"):
        evaluate_segmenter(lambda _: wrong, items[:1], P, CLASSES)
    with pytest.raises(ConfigurationError, match="of shape"):
        evaluate_segmenter(lambda _: wrong[:, :16], items[:1], P, CLASSES)
    with pytest.raises(DataError, match="no images"):
        evaluate_segmenter(left_and_right, [], P, CLASSES)
    with pytest.raises(DataError, match="it has no mask"):
        evaluate_segmenter(left_and_right, [Item(items[0].image, 0)], P, CLASSES)


@pytest.fixture(scope="module")
def model() -> Model:
    """A random network whose classes differ from place to place."""
    torch.manual_seed(0)
    rows = (Conv(8, stride=2), Conv(8, stride=2), Conv(16, stride=2), Conv(24, stride=2))
    spec = ModelSpec(BackboneSpec("tiny", rows), ClassifierHead(3))
    return build(with_lraspp(spec, CLASSES, size=64)).eval()


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)


def test_a_torch_model_says_its_highest_logit(model: Model):
    pixels = pictures()
    with torch.inference_mode():
        x = Normalize(model.spec.preprocessing)(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        logits = model(x).logits
    found = torch_segmenter(model)(pixels)
    assert found.dtype == np.uint8 and len(np.unique(found)) > 1
    assert (found == logits.argmax(1).numpy()).mean() > 0.999


def test_several_scales_are_the_mean_of_each_by_hand(model: Model):
    """One image, one scale and one mirror image at a time, in plain sums."""
    pixels, sizes = pictures(), [round(64 * scale) for scale in SCALES]
    assert sizes == [32, 48, 64, 80, 96, 112]
    means = []
    with torch.inference_mode():
        for picture in pixels:
            x = Normalize(model.spec.preprocessing)(torch.from_numpy(picture)[None].permute(0, 3, 1, 2))
            said = []
            for size in sizes:
                for mirrored in (False, True):
                    image = x.flip(3) if mirrored else x
                    scaled = F.interpolate(image, (size, size), mode="bilinear", antialias=True)
                    logits = F.interpolate(model(scaled).logits, (64, 64), mode="bilinear", align_corners=False)
                    said.append((logits.flip(3) if mirrored else logits).softmax(1)[0])
            means.append(torch.stack(said).mean(0).argmax(0).numpy())
    found = multi_scale(model)(pixels)
    assert (found == np.stack(means)).mean() > 0.999
    assert (found != torch_segmenter(model)(pixels)).any()
