"""Networks for segmentation in the training loop: they learn, are resumed, taught, and share batches."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pocketvision.data.loader import ImageLoader
from pocketvision.data.sources import Dataset, open_dataset
from pocketvision.data.transforms import Augment
from pocketvision.errors import ConfigurationError
from pocketvision.nn.layers import Normalize
from pocketvision.nn.load import save_model
from pocketvision.nn.model import Model, build
from pocketvision.spec.heads import ClassifierHead
from pocketvision.spec.model import BackboneSpec, ModelSpec
from pocketvision.spec.rows import Conv, InvertedResidual
from pocketvision.spec.segmentation import with_fcn, with_lraspp, with_raspp
from pocketvision.tasks.segmentation import Segmentation
from pocketvision.training.checkpoint import LAST, load_model
from pocketvision.training.evaluate_segmentation import evaluate_segmenter, torch_segmenter
from pocketvision.training.events import Saved, Stopped
from pocketvision.training.loop import fit, resume
from pocketvision.training.recipe import Recipe
from pocketvision.training.training import prepare

ROWS = (
    Conv(16, stride=2),
    InvertedResidual(24, stride=2, expand=48),
    InvertedResidual(32, stride=2, expand=96),
    InvertedResidual(48, stride=2, kernel=5, expand=96),
    Conv(96, kernel=1),
)
BACKBONE = ModelSpec(BackboneSpec("tiny", ROWS), ClassifierHead(3))
RECIPE = Recipe(
    epochs=9,
    batch=8,
    optimizer="adamw",
    lr=0.01,
    bn_momentum=0.1,
    ema=0.9,
    label_smoothing=0.0,
    device="cpu",
    save_every_s=1000,
    augment=Augment(flip=0, zoom=(0.8, 1.5), distort=0.2),
)
FEW = replace(RECIPE, epochs=2, progressive=((0.0, 0.5, 1.0), (0.5, 1.0, 1.0)), save_every_s=0)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Scenes in which only background, 0 and 1 count; the other digits are void."""
    scenes, known = open_dataset("sample:digit-scenes", task="segment"), (0, 1, 2)

    def few(items):
        return tuple(replace(item, mask=replace(item.mask, values=known)) for item in items)

    classes = tuple(scenes.classes[value] for value in known)
    return replace(scenes, classes=classes, train=few(scenes.train[:96]), val=few(scenes.val[:24]))


@pytest.fixture
def small(data: Dataset) -> Dataset:
    return replace(data, train=data.train[:20], val=data.val[:6])


def model(spec: ModelSpec) -> Model:
    torch.manual_seed(0)
    return build(spec)


def lraspp(data: Dataset, size: int = 64) -> Model:
    return model(with_lraspp(BACKBONE, data.classes, size=size, output_stride=8, channels=32))


def test_it_learns_more_than_that_most_is_background(data: Dataset, tmp_path: Path):
    *_, last = fit(lraspp(data, size=96), Segmentation(), data, RECIPE, tmp_path / "run")
    assert isinstance(last, Stopped) and last.best is not None
    learned = load_model(tmp_path / "run")
    result = evaluate_segmenter(torch_segmenter(learned), data.val, learned.spec.preprocessing, data.classes)
    assert result.value == pytest.approx(last.best, abs=1e-6)
    background = result.confusion[0].sum() / result.confusion.sum() / 3
    assert background > 0.3
    assert result.value > background + 0.05


def test_a_run_is_resumed_bit_for_bit(small: Dataset, tmp_path: Path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    list(fit(lraspp(small), Segmentation(), small, FEW, whole))
    for event in fit(lraspp(small), Segmentation(), small, FEW, part):
        if isinstance(event, Saved) and event.step == 2:  # of 3 in an epoch
            break
    *_, last = resume(part)
    assert isinstance(last, Stopped) and last.metric == "miou"
    assert (part / LAST).read_bytes() == (whole / LAST).read_bytes()


def test_a_teacher_is_imitated_by_another_head(small: Dataset, tmp_path: Path):
    """A teacher that always says 1 is believed, though the masks say otherwise."""
    teacher = model(with_raspp(BACKBONE, tuple(reversed(small.classes)), size=96, channels=32))
    with torch.no_grad():
        *_, last = (m for m in teacher.head.modules() if isinstance(m, torch.nn.Conv2d))
        assert last.bias is not None and last.out_channels == 3
        last.weight.zero_()
        last.bias.copy_(torch.tensor([6.0, 0, 0]))
    save_model(teacher, tmp_path / "teacher.safetensors")
    recipe = replace(RECIPE, epochs=8, teachers=(str(tmp_path / "teacher.safetensors"),))
    *_, last_event = fit(lraspp(small), Segmentation(), small, recipe, tmp_path / "run")
    assert isinstance(last_event, Stopped)
    learned = load_model(tmp_path / "run" / LAST)
    result = evaluate_segmenter(torch_segmenter(learned), small.val, learned.spec.preprocessing, small.classes)
    assert result.confusion[:, 2].sum() > 0.95 * result.confusion.sum()


@pytest.mark.parametrize("head", ["lraspp", "raspp", "fcn"])
def test_a_process_without_images_adds_nothing(small: Dataset, head: str):
    """Its loss is 0, and every parameter has a gradient of 0, so that all processes exchange the same tensors."""
    make = {"lraspp": with_lraspp, "raspp": with_raspp, "fcn": with_fcn}[head]
    network = model(make(BACKBONE, small.classes, size=64))
    p = network.spec.preprocessing
    shares = [ImageLoader(small.train[:2], p, augment=Augment(zoom=(1, 1)), share=(number, 2)) for number in (0, 1)]
    whole, empty = (next(iter(loader.epoch())) for loader in shares)
    assert (len(whole.items), len(empty.items)) == (2, 0)
    for batch in (whole, empty):
        outputs = network(Normalize(p)(batch.images))
        loss = Segmentation().loss(outputs, batch, FEW)
        loss.backward()
        assert (loss.item() > 0) == bool(batch.items)
        grads = [parameter.grad for parameter in network.parameters()]
        assert all(grad is not None for grad in grads)
        assert any(bool(grad.any()) for grad in grads) == bool(batch.items)
        network.zero_grad()


def test_mixup_and_other_networks_are_refused(small: Dataset, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="mixup is for classification"):
        prepare(lraspp(small), Segmentation(), small, replace(FEW, mixup=0.2), tmp_path)
    with pytest.raises(ConfigurationError, match="the network is made to classify, digit-scenes is to segment"):
        prepare(model(BACKBONE), Segmentation(), small, FEW, tmp_path)
