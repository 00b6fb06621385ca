"""What every test shares: the real data beside the repository, and no silent skips in continuous integration."""

import os
import tempfile
from pathlib import Path

# Before anything imports torch, and for subprocesses too: sums in one order, and parallel tests do not fight for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
import pytest

# Nobody's own cache is filled or read; processes that tests start share this one.
_CACHE = tempfile.TemporaryDirectory(prefix="pocketvision-cache-")
os.environ.setdefault("POCKETVISION_CACHE", _CACHE.name)
ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` with real data: $POCKETVISION_SHARED, or beside the repository.

    Where it is absent the test is skipped; with CI=true it fails.
    """
    folder = Path(os.environ.get("POCKETVISION_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"{folder} holds no real data; put it there, or name its folder in POCKETVISION_SHARED")
    return folder


@pytest.fixture(scope="session")
def detector():
    """An SSDLite of three rows and three classes for 96 pixels, whose scores differ from place to place; eval mode."""
    import torch

    from pocketvision.nn.model import build
    from pocketvision.spec.detectors import with_ssd
    from pocketvision.spec.heads import ClassifierHead
    from pocketvision.spec.model import BackboneSpec, ModelSpec
    from pocketvision.spec.rows import Conv

    torch.manual_seed(3)
    rows = (Conv(8, stride=4), Conv(16, stride=4), Conv(24, stride=2))
    spec = ModelSpec(BackboneSpec("tiny", rows), ClassifierHead(3))
    model = build(with_ssd(spec, ("ant", "bee", "cow"), size=96, extras=(16,)))
    for predictions, spread in ((model.head.classes, 3.0), (model.head.boxes, 1.0)):
        for prediction in predictions:
            torch.nn.init.normal_(prediction[-1].weight, std=spread)
    return model.eval()


@pytest.fixture(scope="session")
def detector_file(detector, tmp_path_factory: pytest.TempPathFactory):
    """``detector`` exported with its selection and NMS."""
    from pocketvision.exporting.onnx import export

    return export(detector, out=tmp_path_factory.mktemp("detector") / "tiny.onnx")


@pytest.fixture(scope="session")
def segmenter():
    """An LR-ASPP of three rows and four classes for 96 pixels that sees each of them; eval mode."""
    import torch

    from pocketvision.nn.model import build
    from pocketvision.spec.heads import ClassifierHead
    from pocketvision.spec.model import BackboneSpec, ModelSpec
    from pocketvision.spec.rows import Conv
    from pocketvision.spec.segmentation import with_lraspp

    torch.manual_seed(1)
    rows = (Conv(8, stride=4), Conv(16, stride=2), Conv(24, stride=2))
    spec = ModelSpec(BackboneSpec("tiny", rows), ClassifierHead(4))
    model = build(with_lraspp(spec, ("background", "ant", "bee", "cow"), size=96, channels=16))
    for layer in (model.head.low_classes, model.head.high_classes):
        torch.nn.init.normal_(layer.weight)
    for _ in range(20):  # running statistics
        model(torch.randn(4, 3, 96, 96))
    return model.eval()


@pytest.fixture(scope="session")
def segmenter_file(segmenter, tmp_path_factory: pytest.TempPathFactory):
    """``segmenter`` exported with the choice of each pixel's class."""
    from pocketvision.exporting.onnx import export

    return export(segmenter, out=tmp_path_factory.mktemp("segmenter") / "tiny.onnx")


@pytest.fixture(scope="session")
def scenes_in_shapes(tmp_path_factory: pytest.TempPathFactory):
    """Twelve items of three classes in several shapes: scenes of scanned digits, in colours, with edges that alias."""
    from PIL import Image

    from pocketvision.data.image import read_image
    from pocketvision.data.sources import Item

    folder, items = tmp_path_factory.mktemp("scenes"), list[Item]()
    for number in range(12):
        width, height = ((160, 120), (120, 160), (160, 100), (150, 150))[number % 4]
        scene = Image.fromarray(read_image(f"sample:digit-scenes/{600 + number}"))
        scene.crop((0, 0, width, height)).save(folder / f"{number}.png")
        items.append(Item(str(folder / f"{number}.png"), number % 3))
    return items


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """With CI=true a skipped test is a failed one."""
    return _no_skip_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """The same for a whole file that skips itself."""
    return _no_skip_in_ci((yield))


def _no_skip_in_ci(report):
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true does not allow: {report.longrepr}"
    return report
