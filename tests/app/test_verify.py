"""`export --golden` and `verify`: what they print, and what they say where a pack does not fit."""

import json
import shutil
from pathlib import Path

import pytest

import pocketvision
from pocketvision.app.deploy import golden_pack
from pocketvision.errors import ConfigurationError, ExportError, PocketvisionError
from pocketvision.exporting.artifact import Artifact
from pocketvision.exporting.golden import write_pack
from pocketvision.exporting.runners.steps import FAULTS, own_stages, prepare, write_stages
from pocketvision.measuring.runtimes import open_file
from pocketvision.measuring.verify import open_pack, verify_file

from .test_commands import answer, documented


@pytest.fixture(scope="module")
def files(detector_file, segmenter_file, scenes_in_shapes, tmp_path_factory) -> dict[str, Path]:
    """A detector and a segmenter with their golden packs."""
    written = dict[str, Path]()
    for file in (detector_file, segmenter_file):
        path = tmp_path_factory.mktemp("golden") / f"{file.task}.onnx"
        shutil.copy(file.path, path)
        artifact = Artifact.load(path)
        write_pack(artifact, scenes_in_shapes, open_file(artifact), "onnxruntime")
        written[file.task] = path
    return written


def test_export_and_verify(run: Path, tmp_path: Path):
    """The whole way of a classifier of grey digits."""
    path = tmp_path / "digits.onnx"
    exported = answer("export", run, "--golden", "--out", path)
    assert set(exported) == documented("export")
    assert exported["golden"] == {"path": f"{path}.golden", "n": 8, "blind": ["bgr", "no-antialias", "crop-first"]}
    result = pocketvision.verify(path)
    assert (result.verdict.passed, result.verdict.first, result.n) == (True, None, 8)
    assert {check.state for check in result.verdict.checks} == {"passed"}

    pack = open_pack(Artifact.load(path))
    write_stages(tmp_path / "app", pack, own_stages(pack, None, "mean"))
    result = answer("verify", path, "--stages", tmp_path / "app", code=1)
    assert set(result) == documented("verify")
    assert (result["passed"], result["first"]) == (False, "normalised")
    assert "the normalisation has other constants" in result["guess"]


@pytest.mark.parametrize("task", ["detect", "segment"])
@pytest.mark.parametrize("fault", ["bgr", "no-antialias", "crop-first", "mean", "layout"])
def test_another_preprocessing_than_ours(files, task, fault):
    artifact = Artifact.load(files[task])
    contract = open_pack(artifact).contract
    assert verify_file(artifact).verdict.passed
    found = verify_file(artifact, preprocess=lambda pixels: prepare(pixels, contract, fault)).verdict
    stage = {"bgr": "decoded", "mean": "normalised", "layout": "input"}.get(fault, "resized")
    assert (found.passed, found.first) == (False, stage)
    assert FAULTS[fault].split(" (")[0] in found.guess


def test_the_text_says_what_was_compared(files, tmp_path: Path):
    pack = open_pack(Artifact.load(files["segment"]))
    text = str(pocketvision.verify(files["segment"]))
    assert "preprocessing of pocketvision, model in onnxruntime" in text
    assert text.endswith("every stage that was given passed")
    (tmp_path / "3.decision.json").write_text(json.dumps(pack.images[3]["decision"]))
    text = str(pocketvision.verify(files["segment"], stages=tmp_path))
    assert "1 of 8 images" in text and "not given" in text


def changed(files, tmp_path: Path) -> Path:
    """A copy of a file and its pack, to be damaged."""
    path = tmp_path / "net.onnx"
    shutil.copy(files["segment"], path)
    shutil.copytree(f"{files['segment']}.golden", f"{path}.golden")
    return path


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda pack: shutil.rmtree(pack), r"has no golden pack .*export RUN --golden"),
        (lambda pack: (pack / "manifest.json").unlink(), r"manifest.json is no manifest of a golden pack.*--golden"),
        (lambda pack: (pack / "manifest.json").write_text("{}"), r"manifest.json is no manifest .*--golden"),
        (lambda pack: (pack / "images" / "2.png").unlink(), r"2.png cannot be read \(No such file.*--golden"),
        (lambda pack: (pack / "expected" / "2.outputs.bin").write_bytes(b"1"), r"2.outputs.bin is not the file that"),
    ],
)
def test_damaged_packs(files, tmp_path, damage, said):
    path = changed(files, tmp_path)
    damage(Path(f"{path}.golden"))
    with pytest.raises(ExportError, match=said):
        pocketvision.verify(path)


def test_the_pack_of_another_file(files, tmp_path):
    path = changed(files, tmp_path)
    shutil.copy(files["detect"], path)
    with pytest.raises(ExportError, match="is the pack of another file than"):
        pocketvision.verify(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("0.decision.json", b"{", "stage decision of image 0 cannot be read"),
        ("0.resized.png", b"no image", "stage resized of image 0 cannot be read"),
        ("0.outputs.bin", b"123", "3 bytes of outputs, where 9216 are expected"),
        ("notes.txt", b"", "has no stage files, such as"),
    ],
)
def test_damaged_stage_files(files, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=said):
        pocketvision.verify(files["segment"], stages=tmp_path)


def test_sources_and_options_that_do_not_fit(files, run: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="is no exported file, which is what verify takes"):
        pocketvision.verify(run)
    with pytest.raises(PocketvisionError, match="cannot read"):
        pocketvision.verify(tmp_path / "gone.onnx")
    with pytest.raises(ConfigurationError, match="valid: onnxruntime"):
        pocketvision.verify(files["segment"], runtime="litert")
    with pytest.raises(ConfigurationError, match="is no folder; --stages names"):
        pocketvision.verify(files["segment"], stages=tmp_path / "gone")
    with pytest.raises(ConfigurationError, match="needs images of the validation split"):
        golden_pack("weights.safetensors", None, Artifact.load(files["segment"]))
    with pytest.raises(ExportError, match=r"has no golden pack \(.*moved.onnx.golden\)"):
        pocketvision.verify(changed(files, tmp_path).rename(tmp_path / "moved.onnx"))
