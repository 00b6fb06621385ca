"""What `export` refuses before it writes anything, and what it says while one waits."""

import hashlib
import sys
from pathlib import Path

import pytest

from pocketvision.app.deploy import export
from pocketvision.errors import ConfigurationError, ExportError


def made(run: Path) -> set[Path]:
    return set(run.rglob("*"))


def test_one_bad_target_is_told_before_the_first_file(run: Path, monkeypatch: pytest.MonkeyPatch):
    before = made(run)
    with pytest.raises(ExportError, match="timm has no"):
        export(run, to=("hub", "onnx", "timm"))
    monkeypatch.setitem(sys.modules, "pnnx", None)
    with pytest.raises(ConfigurationError, match=r'needs pnnx, which is not .*install "pocketvision\[ncnn'):
        export(run, to=("hub", "onnx", "ncnn"))
    assert made(run) == before


def test_each_file_is_told_and_a_target_counts_once(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "folder.hub"
    assert len(export(run, to=("hub", "hub"), out=out).files) == 1
    assert capsys.readouterr().err == f"hub: converting\nhub: wrote {out}\n"
    with pytest.raises(ConfigurationError, match="to is empty; name at least one of onnx, "):
        export(run, to=())


@pytest.mark.parametrize("name", ["hub", "timm", "web"])
def test_a_run_is_not_overwritten(run: Path, name: str):
    weights = run / "weights" / "best.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    for source, out in ((run, weights), (weights, weights), (run, run)):
        with pytest.raises(ConfigurationError, match="is what is exported, which would be lost"):
            export(source, to=(name,), out=out)
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == digest


def test_ncnn_shares_no_weights_with_openvino(run: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"must end in \.ncnn\.param; nearest valid: .*m\.ncnn\.param"):
        export(run, to=("ncnn",), out=tmp_path / "m.param")
