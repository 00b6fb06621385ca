"""SSD heads: anchors, shapes and counts against torchvision and the rows."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from pocketvision.errors import ConfigurationError
from pocketvision.nn.heads.ssd import SSDOutputs, anchor_boxes, decode, detections
from pocketvision.nn.model import Model, build
from pocketvision.spec.cost import cost
from pocketvision.spec.detectors import default_anchors, with_ssd
from pocketvision.spec.heads import Selection, SSDHead, Tap
from pocketvision.spec.model import BackboneSpec, ModelSpec, from_json, to_json
from pocketvision.spec.rows import Conv
from pocketvision.spec.transform import as_folded, dilated
from pocketvision.zoo import MODELS, model_spec


def counts(spec: ModelSpec, size: tuple[int, int]) -> tuple[int, float]:
    """Parameters and multiply-adds of the built module."""
    with torch.device("meta"), torch.inference_mode():
        model = Model(spec).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, *size))
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 2


@pytest.mark.parametrize("name", MODELS)
def test_every_backbone_carries_an_ssd(name: str):
    spec = with_ssd(model_spec(name), ("cat", "dog", "cow"), size=96)
    assert from_json(to_json(spec)) == spec
    assert isinstance(spec.head, SSDHead)
    first, last = spec.head.taps
    strides = spec.backbone.strides()
    assert strides[first.row - first.expansion] == 16 and strides[first.row - first.expansion + 1] == 32
    assert last == Tap(len(strides) - 1)
    assert (spec.head.classes, spec.labels[2], spec.preprocessing.size, spec.preprocessing.resize) == (3, "cow", 96, 96)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v3_small", "mobileone_mu0"])
def test_counts(name: str):
    spec = with_ssd(model_spec(name, width=0.35), 3)
    for variant in (spec, as_folded(spec), with_ssd(model_spec(name, width=0.35), 3, separable=False)):
        total = cost(variant, (97, 160))
        assert (total.params, total.madds) == counts(variant, (97, 160))


@pytest.mark.parametrize(
    ("name", "taps", "channels"),
    [
        ("mobilenet_v1", (Tap(11), Tap(13)), (512, 1024)),
        ("mobilenet_v2", (Tap(14, expansion=True), Tap(18)), (576, 1280)),
        ("mobilenet_v3_large", (Tap(13, expansion=True), Tap(16)), (672, 960)),
        ("mobilenet_v3_small", (Tap(9, expansion=True), Tap(12)), (288, 576)),
        ("mnasnet_a1", (Tap(12), Tap(17)), (112, 1280)),
        ("mobileone_s0", (Tap(20), Tap(21)), (256, 1024)),
        ("efficientnet_lite0", (Tap(11), Tap(17)), (112, 1280)),
    ],
)
def test_taps(name: str, taps: tuple[Tap, Tap], channels: tuple[int, int]):
    spec = with_ssd(model_spec(name), 2)
    assert isinstance(spec.head, SSDHead)
    assert spec.head.taps == taps
    model = build(spec).eval()
    features = model.backbone.tapped(torch.randn(1, 3, 64, 96), taps)
    assert [tuple(map_.shape) for map_ in features] == [(1, channels[0], 4, 6), (1, channels[1], 2, 3)]


def test_tapping_does_not_change_the_backbone():
    model = build(with_ssd(model_spec("mobilenet_v2", width=0.35), 2)).eval()
    x_BCHW = torch.randn(2, 3, 64, 64)
    plain = model.backbone(x_BCHW)
    inside, last, stage = model.backbone.tapped(x_BCHW, [Tap(14, expansion=True), Tap(18), Tap(13)])
    assert torch.equal(last, plain[32]) and torch.equal(stage, plain[16])
    assert torch.equal(inside, model.backbone.rows[14].expand(stage))


@pytest.mark.parametrize("maps", [2, 6])
def test_anchors_are_torchvisions(maps: int):
    theirs = DefaultBoxGenerator([[2, 3]] * maps, min_ratio=0.2, max_ratio=0.95)
    grids = [(20, 30), (10, 15), (5, 8), (3, 4), (2, 2), (1, 1)][:maps]
    features = [torch.zeros(1, 1, *grid) for grid in grids]
    expected = theirs(ImageList(torch.zeros(1, 3, 320, 480), [(320, 480)]), features)[0]
    torch.testing.assert_close(anchor_boxes(default_anchors(maps), grids, (320, 480)), expected, rtol=0, atol=1e-4)


def tiny(**changes: object) -> SSDHead:
    return SSDHead(**{"classes": 2, "taps": (Tap(0),), "anchors": (((0.5, 0.5),),), "extras": ()} | changes)


def outputs(logits: list[list[float]], codes: list[list[float]] | None = None, **changes: object) -> SSDOutputs:
    """One image of 100 x 200 pixels with as many equal anchors as rows; columns: background, two classes."""
    anchors = torch.tensor([[50.0, 20, 100, 60]]).repeat(len(logits), 1)
    given = torch.tensor(codes) if codes else torch.zeros(len(logits), 4)
    return SSDOutputs(torch.tensor(logits)[None], given[None], anchors, (100, 200), tiny(**changes))


def test_decoding():
    boxes, scores = decode(outputs([[0.0, 1.0, 0.0]] * 3, [[0.0] * 4, [2.0, 0, 5 * 0.6931472, 0], [-30.0, 0, 90, 0]]))
    expected = [[50, 20, 100, 60], [35, 20, 135, 60], [0, 20, 200, 60]]  # 75 + 2 * 0.1 * 50 wide as 2 * 50
    torch.testing.assert_close(boxes[0], torch.tensor(expected, dtype=torch.float32))
    torch.testing.assert_close(scores[0, 0], torch.tensor([0.0, 1.0, 0.0]).softmax(0)[1:])
    sigmoids = decode(outputs([[9.0, 1.0, 0.0]], scores="sigmoid"))[1]
    torch.testing.assert_close(sigmoids[0, 0], torch.tensor([1.0, 0.0]).sigmoid())


class Decoded(nn.Module):
    """What an exported detector is: images in, boxes and scores out."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return decode(self.model(x_BCHW))


def test_exports_for_any_batch():
    head = SSDHead(2, (Tap(0),), default_anchors(2), extras=(8,))
    spec = ModelSpec(BackboneSpec("test", (Conv(4, stride=2),)), head)
    detector = Decoded(build(spec).eval())
    example, batch = torch.randn(2, 3, 16, 24), torch.export.Dim("N")
    program = torch.export.export(detector, (example,), dynamic_shapes={"x_BCHW": {0: batch}}).module()
    for images in (1, 3):
        x_BCHW = torch.randn(images, 3, 16, 24)
        with torch.inference_mode():
            for got, expected in zip(program(x_BCHW), detector(x_BCHW), strict=True):
                torch.testing.assert_close(got, expected)


def test_selection():
    # anchors 0 and 1 agree on class 0, 2 lies elsewhere, 3 is certain of class 1 at the place of 0
    logits = [[0.0, 3, -9], [0.0, 4, -9], [0.0, 2, -9], [0.0, -9, 5]]
    codes = [[0.0] * 4, [0.5, 0, 0, 0], [20.0, 0, 0, 0], [0.0] * 4]
    found = detections(outputs(logits, codes, selection=Selection(min_score=0.5)))[0]
    assert found.labels.tolist() == [1, 0, 0]
    assert found.boxes[:, 0].tolist() == [50, 52.5, 150]
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert len(detections(outputs(logits, codes, selection=Selection(min_score=0.5, most=1)))[0].boxes) == 1
    assert len(detections(outputs(logits, codes, selection=Selection(min_score=0.9, iou=1.0)))[0].boxes) == 3
    assert len(detections(outputs([[9.0, 0, 0]], selection=Selection(min_score=0.5)))[0].boxes) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 0}, "classes=0 must be a whole number of 1 or more"),
        ({"taps": ()}, "taps=.* must be a list of at least one Tap"),
        ({"taps": (Tap(3), Tap(1))}, "in the order of the backbone's rows"),
        ({"extras": (8,)}, "for each of the 2 feature maps"),
        ({"anchors": (((0.5, 0.0),),)}, r"\(width, height\), shares of the input above 0"),
        ({"extras": (0,), "anchors": (((0.5, 0.5),),) * 2}, r"extras\[0\]=0 must"),
        ({"scores": "softmx"}, "did you mean 'softmax'"),
        ({"variances": (0.1, 0.0)}, "two numbers above 0"),
        ({"separable": "yes"}, "SSDHead.separable='yes' must be true or false"),
        ({"selection": None}, "must be a Selection"),
    ],
)
def test_mistakes_in_a_head(changes: dict[str, object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        tiny(**changes)


def test_mistakes_in_a_detector():
    with pytest.raises(ConfigurationError, match="output strides 16 and 32; mobilenet_v2 has 2, 4, 8, 16;"):
        with_ssd(dilated(model_spec("mobilenet_v2")), 3)
    spec = with_ssd(model_spec("mobilenet_v2"), 3)
    assert isinstance(spec.head, SSDHead)
    for tap, message in ((Tap(19), "nearest valid: 18"), (Tap(1, expansion=True), "has no expansion layer")):
        with pytest.raises(ConfigurationError, match=message):
            ModelSpec(spec.backbone, SSDHead(3, (tap,), (((1.0, 1.0),),), ()))
    with pytest.raises(ConfigurationError, match="only a classifier can be changed so"):
        _ = spec.classifier
    with pytest.raises(ConfigurationError, match="iou=0"):
        Selection(iou=0)
