"""The report says what was measured, shows it as one file that needs nothing else, and survives hostile names."""

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pocketvision.data.sources import Dataset, Item, Skipped
from pocketvision.data.transforms import load_prepared
from pocketvision.errors import ConfigurationError
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.contract import Created, image_input, outputs_of
from pocketvision.measuring.latency import Latency
from pocketvision.measuring.machine import Machine
from pocketvision.measuring.parity import Parity
from pocketvision.report import BuildReport, Candidate, Promise, write_report
from pocketvision.report.card import card
from pocketvision.report.classification import ClassificationView
from pocketvision.report.content import duration
from pocketvision.report.markdown import text
from pocketvision.report.page import page
from pocketvision.report.plots import LIGHT, axis_labels, confusion_plot
from pocketvision.report.use import snippet
from pocketvision.spec.model import Interpolation, Preprocessing
from pocketvision.spec.transform import with_classes
from pocketvision.training.evaluate import ClassificationResult, Mistake, wilson
from pocketvision.zoo import model_spec

HOSTILE = (
    "<script>alert(1)</script>",
    "a|b`c`*d*_e_",
    "犬 $x^2$ & \\n",
    "\"quoted\" 'name'",
    "- # 1. x",
    "[l](http://x)",
)
CONFUSION = np.array([[8, 1, 1], [0, 10, 0], [0, 0, 0]])


def make_report(
    folder: Path,
    classes: tuple[str, ...] = ("cat", "dog", "eel"),
    confusion: np.ndarray = CONFUSION,
    mistakes: tuple[Mistake, ...] | None = None,
    **changes,
) -> BuildReport:
    """A small but complete report; its model file is only a name and a size."""
    (folder / "model.onnx").write_bytes(b"0" * 1_230_000)
    spec = replace(with_classes(model_spec("mobilenet_v2"), classes), preprocessing=Preprocessing(96, 110))
    created = Created("0.1.0", "2.15.0", "2026-11-20")
    outputs = image_input(96), outputs_of("scores", len(classes), 96)
    artifact = Artifact(folder / "model.onnx", "onnx", "float32", spec, *outputs, created, "ab" * 32)
    machine = Machine("a chip", 2, 4096, "Linux 6", "x86_64", "3.11.7")
    figures = (1.0, 1.25, (1.2, 1.3), 15.5, 16.0)
    latency = Latency("m", "onnxruntime", "1.31", 1, *figures, 99, 0.0, 1.0, False, 0.1, "2026-11-20", machine)
    Image.new("RGB", (40, 30), "red").save(folder / "wrong.png")
    mistakes = (Mistake(str(folder / "wrong.png"), 0, 1, 0.75),) if mistakes is None else mistakes
    items = tuple(Item(f"photos/{index}.jpg", index % len(classes)) for index in range(12))
    facts = {
        "title": "pets",
        "command": "pocketvision build photos --max-ms 6",
        "data": Dataset("photos", classes, items, items[:6], (), (Skipped("photos/bad.jpg", "truncated"),), "folders"),
        "artifact": artifact,
        "measured_on": "val split",
        "result": ClassificationResult(classes, confusion, None, mistakes),
        "latency": (latency,),
        "parity": Parity(6, 5, 1.5e-6, 1.0),
        "budget": (Promise("latency", "at most 6 ms", "1.25 ms", True),),
        "curve": ({"epoch": 1, "train_loss": 2.0, "val_top1": 0.5, "lr": 0.1}, {"epoch": 2, "train_loss": 1.0}),
        "candidates": (Candidate("mobilenet_v2", 1.25, 0.9, "measured", "the best", True),),
        "findings": ("few images",),
        "seconds": {"train": 75.0},
        "versions": {"torch": "2.15.0"},
        "weights": "ImageNet",
    }
    return BuildReport(**facts | changes)


class Reader(HTMLParser):
    """Collects the tags, texts and addresses of a page, and fails on tags that do not match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags, self.texts, self.addresses, self.open = list[str](), list[str](), list[str](), list[str]()
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "srcset", "href")]
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_page_is_one_file_with_everything(tmp_path: Path):
    path = write_report(make_report(tmp_path), tmp_path / "out")
    assert path == tmp_path / "out" / "report.html"
    source = path.read_text()
    assert not re.search(r"url\(|@import|<script|<link|https?:", source)
    reader = Reader(source)
    assert len(reader.addresses) == 9  # three curves and the confusion matrix, light and dark; one thumbnail
    for address in reader.addresses:
        kind, _, data = address.partition(";base64,")
        assert kind in ("data:image/png", "data:image/jpeg")
        Image.open(BytesIO(base64.b64decode(data))).load()
    words = " ".join(reader.texts)
    facts = [
        *("90.0%", "69.9% to 97.2%", "20 images", "1.25 ms", "15.5 ms", "1.23 MB", "✓ Meets the budget"),
        *("few images", "truncated", "pocketvision build photos --max-ms 6", "torch", "1 min 15 s", "96 × 96", "0.485"),
        *("5 of 5 images", "a chip, 2 cores", "chosen: ", "the best", "Started from: ImageNet", "ab" * 32),
    ]
    assert [fact for fact in facts if fact not in words] == []


def test_hostile_names_stay_text(tmp_path: Path):
    confusion = np.eye(len(HOSTILE), dtype=int) + 1
    report = make_report(tmp_path, HOSTILE, confusion=confusion, title=HOSTILE[0], command="x ``` <b> && y")
    reader = Reader(page(report))
    assert not {"script", "b>", "a"} & set(reader.tags)
    assert set(HOSTILE) <= set(reader.texts)


def test_hostile_names_stay_text_in_the_card(tmp_path: Path):
    from markdown_it import MarkdownIt

    confusion = np.eye(len(HOSTILE), dtype=int) + 1
    report = make_report(tmp_path, HOSTILE, confusion=confusion, title=HOSTILE[0], command="x ``` <b> && y")
    _, matter, body = card(report).split("---\n", 2)
    assert yaml.safe_load(matter)["model-index"][0]["name"] == HOSTILE[0]
    reader = Reader(MarkdownIt("commonmark", {"html": True}).enable("table").render(body))
    assert not {"script", "em", "a", "b"} & set(reader.tags)
    assert set(HOSTILE) <= set(reader.texts)


@pytest.mark.parametrize(
    "value", ["- x", "# x", "1. x", "3.2 s", "a_b", "_a_", "x-y", "a < b & c", "`", "$x$", "~~a~~", ""]
)
def test_markdown_shows_the_text_itself(value: str):
    from markdown_it import MarkdownIt

    shown = Reader(MarkdownIt("commonmark", {"html": True}).enable("strikethrough").render(text(value)))
    assert "".join(shown.texts).strip() == value
    assert set(shown.tags) <= {"p"}


def test_numbers(tmp_path: Path):
    report = make_report(tmp_path)
    view = ClassificationView(report, report.result)
    assert (report.result.n, report.result.top1, view.majority) == (20, 0.9, 0.5)
    cat, dog, eel = report.result.table()
    assert (cat["precision"], cat["recall"], cat["n"]) == (1, 0.8, 10)
    assert (dog["precision"], dog["recall"]) == (10 / 11, 1)
    assert (eel["precision"], eel["recall"], eel["n"]) == (0, None, 0)
    assert view.confusions() == [("cat", "dog", 1, 10), ("cat", "eel", 1, 10)]
    assert {name: split.total() for name, split in report.counts().items()} == {"train": 12, "val": 6}


@pytest.mark.parametrize(("right", "n"), [(8, 10), (0, 20), (20, 20), (310, 341)])
def test_interval_is_scipys(right: int, n: int):
    from scipy.stats import binomtest

    reference = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right, n) == pytest.approx((reference.low, reference.high), abs=1e-6)


def test_durations():
    assert [duration(s) for s in (0.42, 59.94, 75, 3600 * 2 + 61)] == ["0.4 s", "59.9 s", "1 min 15 s", "2 h 1 min"]


@pytest.mark.parametrize(
    ("met", "verdict"), [((True, None), True), ((True, False), False), ((None,), None), ((), None)], ids=str
)
def test_verdict(tmp_path: Path, met: tuple[bool | None, ...], verdict: bool | None):
    report = make_report(tmp_path, budget=tuple(Promise("size", "", "", kept) for kept in met))
    assert report.met is verdict
    assert ("Misses the budget" in page(report)) is (verdict is False)
    assert ("misses its budget" in card(report)) is (verdict is False)


def test_a_report_of_the_least(tmp_path: Path):
    least = {"budget": (), "curve": (), "mistakes": (), "candidates": (), "findings": (), "parity": None, "latency": ()}
    report = make_report(tmp_path, **least, seconds={}, versions={})
    source = page(report)
    assert "worst mistakes" not in source
    assert "Training" not in source
    Reader(source)
    assert "Not measured." in card(report)


def test_result_that_does_not_fit(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="0 images of 3 classes"):
        make_report(tmp_path, confusion=np.zeros((3, 3), int))
    other = ClassificationResult(("cat", "dog"), np.ones((2, 2), int), None, ())
    with pytest.raises(ConfigurationError, match=r"4 images of 2 classes.*the 3 classes of photos"):
        make_report(tmp_path, result=other)


def test_notes_on_candidates_are_whole_and_wrap(tmp_path: Path):
    path = "/weights" * 30
    lines = (
        Candidate("mobilenet_v2 at 96 px", 1.25, None, "", "asked for with --model", chosen=True),
        Candidate("mobilenet_v3_large at 224 px", None, None, "", f"no weights in {path}"),
    )
    report = make_report(tmp_path, candidates=lines)
    source = page(report)
    assert '<td class="text"><b>chosen: asked for with --model</b></td>' in source
    assert f'<td class="num">–</td><td class="num">–</td><td class="text">no weights in {path}</td>' in source
    assert re.search(r"td\.text[^{]*:last-child {[^}]*overflow-wrap: anywhere", source)
    assert "| 1.25 ms | – | chosen: asked for with --model |" in card(report)


def test_mistakes_are_shown_or_explained(tmp_path: Path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    Image.new("RGB", (800, 600), "red").save(tmp_path / "good.jpg")
    names = [str(tmp_path / name) for name in ("good.jpg", "bad.jpg")] + ["sample:digits/3"]
    mistakes = tuple(Mistake(name, 0, 1, score) for name, score in zip(names, (0.5, 0.6, 0.9), strict=True))
    source = page(make_report(tmp_path, mistakes=mistakes))
    assert source.count("is <b>cat</b>, taken for <b>dog</b>") == 3
    assert source.count("This image cannot be shown") == 1
    assert source.count('<img class="photo"') == source.count('<img class="tiny"') == 1
    assert source.index("(90%)") < source.index("(60%)") < source.index("(50%)")


@pytest.mark.parametrize("classes", [1, 3, 26, 200])
def test_confusion_plot_of_any_size(classes: int):
    confusion = np.random.default_rng(0).integers(0, 9, (classes, classes))
    picture = Image.open(
        BytesIO(confusion_plot(confusion, [f"class number {index}" for index in range(classes)], LIGHT))
    )
    picture.load()
    assert min(picture.size) > 200
    assert max(picture.size) < 3000


def test_axis_labels():
    names = ["cat", "犬", "собака", "a very long name that goes on", " ", "$x$", "a\nb"]
    assert axis_labels(names) == ["cat", "class 1", "собака", "a very long name that…", "class 4", "$x$", "class 6"]


def photos(folder: Path) -> Iterator[Path]:
    """Files of several shapes and modes, among them transparent ones and one that lies on its side."""

    def noise(height: int, width: int) -> Image.Image:
        pixels = np.random.default_rng(height).integers(0, 256, (4, height // 4, width // 4), dtype=np.uint8)
        return Image.merge("RGBA", [Image.fromarray(channel).resize((width, height)) for channel in pixels])

    turned = Image.Exif()
    turned[0x0112] = 6
    some = noise(150, 190)
    shapes = {f"{h}.png": noise(h, w).convert("RGB") for h, w in ((110, 110), (301, 200), (97, 463), (300, 333))}
    modes = {f"{mode}.png": some.convert("RGB").convert(mode) for mode in ("L", "P", "1")}
    clear = {"RGBA.png": some, "LA.png": some.convert("LA"), "palette.png": some.convert("RGB").convert("P")}
    inks = {"turned.jpg": some.convert("RGB"), "ink.jpg": some.convert("RGB").convert("CMYK")}
    options = {"palette.png": {"transparency": bytes(range(256))}, "turned.jpg": {"exif": turned}}
    for name, image in (shapes | modes | clear | inks).items():
        image.save(folder / name, **options.get(name, {}))
        yield folder / name


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_snippet_prepares_as_evaluation_does(tmp_path: Path, interpolation: Interpolation):
    """The preprocessing that readers copy is the one that the numbers were measured with."""
    report = make_report(tmp_path)
    p = Preprocessing(96, 110, interpolation=interpolation)
    report = replace(report, artifact=replace(report.artifact, spec=replace(report.spec, preprocessing=p)))
    code = snippet(report).partition("session =")[0]
    for path in photos(tmp_path):
        names: dict = {}
        exec(code.replace("photo.jpg", str(path)), names)  # noqa: S102
        expected = load_prepared(path, p)
        assert np.asarray(names["photo"]).shape == expected.shape
        difference = np.abs(np.asarray(names["photo"]).astype(int) - expected)
        assert difference.mean() < 0.5, path  # of 255 levels: the two resizers round differently
        assert difference.max() <= 3, path


def test_snippet_runs_the_exported_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    from pocketvision.exporting.onnx import export
    from pocketvision.nn.model import build

    spec = with_classes(model_spec("mobilenet_v1", width=0.25, imgsz=32), ("cat", "dog", "eel"))
    artifact = export(build(spec).eval(), out=tmp_path / "model.onnx")
    Image.new("RGB", (80, 60), "red").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(snippet(make_report(tmp_path / "..", artifact=artifact)), {})  # noqa: S102
    name, score = capsys.readouterr().out.split()
    assert name in ("cat", "dog", "eel")
    assert 1 / 3 <= float(score) <= 1
