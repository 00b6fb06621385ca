"""Training for int8 and the quantisation doctor, from a run to a file."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from pocketvision.app import int8
from pocketvision.app.cli import app
from pocketvision.app.deploy import export
from pocketvision.app.options import TrainOptions
from pocketvision.app.qat import train_for_int8
from pocketvision.errors import ConfigurationError, ExportError
from pocketvision.exporting.artifact import Artifact
from pocketvision.nn.model import Model
from pocketvision.quant.choice import Int8
from pocketvision.training.checkpoint import load_model

from .test_commands import CLI_PAGE


@pytest.fixture(scope="module")
def trained(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = TrainOptions(project=tmp_path_factory.mktemp("qat"), epochs=2, name="tiny")
    result = train_for_int8(run, options)
    assert result.precision == "int8" and f"pocketvision export {result.run} --int8" in str(result)
    assert result.value is not None and result.value > 0.8
    return result.run


def test_a_run_trained_for_int8_is_a_run(run: Path, trained: Path):
    assert (trained / "split.json").read_text() == (run / "split.json").read_text()
    assert f"- {run}" in (trained / "args.yaml").read_text()  # the teacher
    model = load_model(trained)
    assert model.rounding is not None and not model.rounding.on
    (file,) = export(trained, precision="int8").files
    assert file.parity is not None and file.parity.to_dict()["agreement"] > 0.9


def test_the_doctor_takes_the_first_remedy_that_is_enough(run: Path, tmp_path: Path):
    out = tmp_path / "new" / "good.onnx"
    (file,) = export(run, precision="int8", max_drop=50.0, out=out).files
    diagnosis = file.diagnosis
    assert diagnosis is not None and diagnosis.met
    assert [step.remedy for step in diagnosis.steps] == ["ranges of everything seen"]
    assert diagnosis.chosen.ms is not None and diagnosis.chosen.ms > 0
    assert Artifact.load(out).precision == "int8" and not [p for p in out.parent.iterdir() if p.is_dir()]
    keys = set(json.loads(json.dumps(diagnosis.to_dict()))) | {"layer", "cause", *diagnosis.chosen.to_dict()}
    row = next(line for line in CLI_PAGE.read_text().splitlines() if line.startswith("| `diagnosis`"))
    assert keys <= set(re.findall(r"\w+", row))


def test_the_doctor_tries_everything_and_says_that_it_is_not_enough(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    tried = list[str]()

    def step(remedy: str, *_: object) -> int8.Step:
        tried.append(remedy)
        return int8.Step(remedy, 0.5, 5.0 if "squared" in remedy else 10.0, 1.0, 2.0)

    def one_file(patient: int8.Patient, model: Model, how: Int8, out: Path) -> Artifact:
        first = out.with_name("float32.onnx")  # which way they differ is the exporters' matter
        return Artifact.load(shutil.copy(first, out))

    monkeypatch.setattr(int8, "_tried", step)
    monkeypatch.setattr(int8.Patient, "export", one_file)
    monkeypatch.setattr(int8, "_trained", lambda patient: patient.model)
    arguments = ["export", str(run), "--int8", "--max-drop", "0.5", "--out", str(tmp_path / "best.onnx")]
    assert app(arguments, standalone_mode=False) == 2
    said = capsys.readouterr().out
    assert "NOT ENOUGH: the best, ranges of the least squared error, loses 5.00 points" in said
    assert tried[3] == "ranges of the least squared error, biases corrected"
    assert tried[-1] == "a short training for int8" and len(tried) >= 8
    assert (tmp_path / "best.onnx").is_file()


def test_a_remedy_that_fails_is_a_skipped_step(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def export_or_fail(patient: int8.Patient, model: Model, how: Int8, out: Path) -> Artifact:
        if out.stem == "1":
            return Artifact.load(shutil.copy(out.with_name("float32.onnx"), out))
        raise ExportError("no such operator")

    monkeypatch.setattr(int8.Patient, "export", export_or_fail)
    monkeypatch.setattr(int8, "_tried", lambda remedy, *_: int8.Step(remedy, 0.5, 5.0, 1.0, 2.0))
    monkeypatch.setattr(int8, "_trained", lambda patient: patient.model)
    out = tmp_path / "best.onnx"
    patient = int8.Patient(load_model(run), run, run / "split.json", "onnx", None, np.zeros((2, 32, 32, 3), np.uint8))
    _, parity, diagnosis = int8.within_drop(patient, 1.0, out)
    assert diagnosis.chosen.remedy == "ranges without the outermost 0.01%" and parity.n > 0
    assert str(diagnosis.steps[0]) == "  ranges of everything seen: skipped, no such operator"
    assert "ranges without the outermost 0.01%, biases corrected" in [step.remedy for step in diagnosis.steps]
    assert not diagnosis.met and Artifact.load(out).format == "onnx"
    monkeypatch.setattr(int8, "check_parity", ruined)
    with pytest.raises(ExportError, match="is ruined"):  # and the good file is still there
        int8.within_drop(patient, 1.0, tmp_path / "other.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["best.onnx"]


def ruined(artifact: Artifact, *_: object) -> None:
    raise ExportError(f"{artifact.path} is ruined")


def test_a_limit_without_int8_is_refused(run: Path):
    with pytest.raises(ConfigurationError, match="--int8"):
        export(run, max_drop=1.0)


def test_its_training_stays_beside_the_run(tmp_path: Path):
    assert int8._project_of(tmp_path / "runs" / "classify" / "net-1", "classify") == tmp_path / "runs"
    assert int8._project_of(tmp_path / "net-1", "classify") == tmp_path
