"""The run folder: whole or refused, and always one checkpoint that works."""

import csv
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pocketvision.errors import ConfigurationError, TrainingError, WeightsError
from pocketvision.nn.load import save_model
from pocketvision.tasks.classification import Classification
from pocketvision.training import checkpoint
from pocketvision.training.checkpoint import Progress, Snapshot, create_run, load_model, read_state, write_state
from pocketvision.training.events import Saved, Started, Stopped
from pocketvision.training.loop import resume

from .conftest import RECIPE, SPEC


def snapshot(step: int) -> Snapshot:
    progress = Progress(step, 9, 0.1 + 0.2, rows=[{"epoch": 1, "lr": 1 / 3}])
    return Snapshot(SPEC, RECIPE, "classify", progress, {"model.w": torch.full((300,), float(step))})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def test_run_folders_are_numbered(tmp_path: Path):
    assert create_run(tmp_path, "classify", "net") == tmp_path / "classify" / "net-1"
    assert create_run(tmp_path, "classify", "net") == tmp_path / "classify" / "net-2"
    assert create_run(tmp_path, "classify", "other") == tmp_path / "classify" / "other-1"


def test_run_folders_are_never_shared(tmp_path: Path):
    made = list[Path]()
    threads = [threading.Thread(target=lambda: made.append(create_run(tmp_path, "t", "n"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 16


def test_run_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="choose another folder"):
        create_run(tmp_path / "file", "classify", "net")


def test_state_there_and_back(run: Path):
    write_state(run, snapshot(3))
    read, warning = read_state(run)
    assert warning == ""
    assert (read.spec, read.recipe, read.task, read.progress) == (SPEC, RECIPE, "classify", snapshot(3).progress)
    assert torch.equal(read.tensors["model.w"], torch.full((300,), 3.0))


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lambda path: path.write_bytes(b"")])
def test_damaged_state_names_the_file_and_the_older_one(run: Path, damage):
    write_state(run, snapshot(3))
    write_state(run, snapshot(4))
    damage(run / checkpoint.STATE)
    read, warning = read_state(run)
    assert read.progress.step == 3
    assert f"{run / checkpoint.STATE} is damaged" in warning
    assert f"going on from {run / checkpoint.PREVIOUS}, step 3" in warning
    damage(run / checkpoint.PREVIOUS)
    with pytest.raises(WeightsError) as error:
        read_state(run)
    assert all(str(run / name) in str(error.value) for name in (checkpoint.STATE, checkpoint.PREVIOUS, checkpoint.LAST))


@pytest.mark.parametrize("moment", range(3))
def test_kill_while_the_state_is_written(run: Path, monkeypatch: pytest.MonkeyPatch, moment: int):
    """After each of the three renames that a second write makes, the folder holds a whole state."""
    write_state(run, snapshot(3))
    renames, replace_file = 0, checkpoint.os.replace

    def killed(source: Path, target: Path) -> None:
        nonlocal renames
        if renames == moment:
            raise KeyboardInterrupt
        renames += 1
        replace_file(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_state(run, snapshot(4))
    monkeypatch.undo()
    assert read_state(run)[0].progress.step == (3 if moment == 0 else 4)
    write_state(run, snapshot(5))
    assert read_state(run)[0].progress.step == 5


def test_no_state(run: Path):
    with pytest.raises(TrainingError, match="holds no checkpoint"):
        next(resume(run, Classification()))


def results(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "results.csv").read_text().splitlines()))


def test_run_folder_after_training(started, run: Path):
    events = list(started())
    assert isinstance(events[-1], Stopped)
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    weights = {"weights/best.safetensors", "weights/last.safetensors"}
    assert names == weights | {
        "args.yaml",
        "split.json",
        "results.csv",
        "state/last.safetensors",
        "state/previous.safetensors",
        "state/lock",
    }
    rows = results(run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"step", "lr", "train_loss", "val_top1", "val_loss"} <= rows[0].keys()
    assert json.loads((run / "split.json").read_text())["classes"] == list(SPEC.labels)


def test_results_have_each_epoch_once_after_a_resume(started, run: Path):
    next(event for event in started() if isinstance(event, Saved) and event.step == 10)
    with (run / "results.csv").open("a") as file:
        file.write("a line of an epoch whose checkpoint was never written\n")
    list(resume(run, Classification()))
    assert [row["epoch"] for row in results(run)] == ["1", "2", "3"]


def test_truncated_checkpoint_resumes_from_the_older_one(started, run: Path):
    list(started())
    expected = load_file(run / checkpoint.LAST)
    cut(run / checkpoint.STATE)
    (run / "state" / ".0123456789ab-next.safetensors").write_text("left by a kill")
    events = list(resume(run, Classification()))
    assert isinstance(events[0], Started)
    assert "is damaged" in events[0].warning and events[0].step == 10
    actual = load_file(run / checkpoint.LAST)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert not list(run.rglob(".*"))


def test_load_model(started, run: Path, model, tmp_path: Path):
    list(started(epochs=1))
    best = load_model(run)
    assert best.spec == SPEC and not best.training
    state = load_model(run / checkpoint.BEST).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in best.state_dict().items())
    with pytest.raises(WeightsError, match="not a run with weights"):
        load_model(tmp_path)
    cut(run / checkpoint.BEST)
    with pytest.raises(WeightsError) as error:
        load_model(run)
    assert f"{run / checkpoint.BEST} is damaged" in str(error.value)
    assert f"{run / checkpoint.LAST} still works" in str(error.value)


class Bomb:
    """What a hostile pickle holds: a call that is made on loading."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, suffix: str):
    path, target = tmp_path / f"weights{suffix}", tmp_path / "was-run"
    torch.save({"model": Bomb(target)}, path)
    with pytest.raises(WeightsError, match=str(path)):
        load_model(path)
    assert not target.exists()
    (tmp_path / "weights").mkdir()
    path.rename(tmp_path / checkpoint.BEST)
    with pytest.raises(WeightsError):
        load_model(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / checkpoint.BEST).rename(tmp_path / checkpoint.STATE)
    with pytest.raises(WeightsError, match="is damaged"):
        read_state(tmp_path)
    assert not target.exists()


def test_state_of_another_format(run: Path):
    save_model(load_spec(), run / checkpoint.STATE)
    with pytest.raises(WeightsError, match="is damaged"):
        read_state(run)


def load_spec():
    from pocketvision.nn.model import build

    return build(replace(SPEC, labels=()))
