"""Processes that torchrun starts, with gloo: the curve of one process, who writes, and what happens when one dies."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pocketvision.data.loader import ImageLoader
from pocketvision.data.sources import Dataset, save_split
from pocketvision.errors import ConfigurationError
from pocketvision.files import write_text
from pocketvision.nn.model import build
from pocketvision.spec.model import to_json
from pocketvision.tasks.classification import Classification
from pocketvision.training import checkpoint, distributed, loop, training
from pocketvision.training.checkpoint import read_state
from pocketvision.training.events import Step, Stopped
from pocketvision.training.loop import fit, resume
from pocketvision.training.sync_batchnorm import SyncBatchNorm2d

from .conftest import RECIPE, SPEC

PROGRAM = Path(__file__).with_name("together.py")
PLAIN = replace(RECIPE, dropout=0.0, epochs=2)  # dropout draws other numbers in each process
CLIPPED = {"momentum": 0.8, "clip_norm": 0.5, "average_best": 2, "freeze": 1}
VARIANTS = {"sgd": {}, "clipped": CLIPPED, "unsynced": {"sync_bn": False}}
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
TRAIN = ["-m", "pocketvision", "train"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def launch(processes: int, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """``torchrun --nproc-per-node PROCESSES ARGUMENTS`` to its end."""
    command = [*LAUNCH, str(processes), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=240, env=ENVIRONMENT | environment
    )


@pytest.fixture(scope="module")
def few(data: Dataset) -> Dataset:
    """67 images in batches of 16: of the last batch, 3 images, only the first process has some."""
    return replace(data, train=data.train[:67], val=data.val[:33])


@pytest.fixture(scope="module", params=[2, 3])
def runs(request: pytest.FixtureRequest, few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of VARIANTS trained by so many processes; beside the folders, what each process saw (see together.py)."""
    folder = tmp_path_factory.mktemp(f"of-{request.param}")
    write_text(folder / "spec.json", to_json(SPEC))
    save_split(few, folder / "data.json")
    recipes = {name: replace(PLAIN, **changes).to_dict() for name, changes in VARIANTS.items()}
    write_text(folder / "recipes.json", json.dumps(recipes))
    done = launch(request.param, PROGRAM, folder)
    assert done.returncode == 0, done.stderr
    return folder


def losses_of_one(few: Dataset, run: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[float]:
    """The loss of each step of one process."""
    monkeypatch.setattr(loop, "STEP_EVENTS_S", 0)
    torch.manual_seed(0)
    events = fit(build(SPEC), Classification(), few, replace(PLAIN, **changes), run)
    return [event.loss for event in events if isinstance(event, Step)]


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / checkpoint.LAST)


@pytest.mark.parametrize("variant", ["sgd", "clipped"])
def test_the_curve_and_the_weights_are_those_of_one_process(runs: Path, variant, few, run: Path, monkeypatch):
    expected = losses_of_one(few, run, monkeypatch, **VARIANTS[variant])
    for path in runs.glob(f"{variant}-*.json"):
        assert json.loads(path.read_text()) == pytest.approx(expected, rel=1e-4)
    for name, tensor in weights(run).items():
        torch.testing.assert_close(weights(runs / variant)[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    rows, rows_of_one = (read_state(folder)[0].progress.rows for folder in (runs / variant, run))
    assert len(rows) == PLAIN.epochs
    for row, expected_row in zip(rows, rows_of_one, strict=True):
        assert row == pytest.approx(expected_row | {"seconds": row["seconds"]}, rel=1e-4)


def test_unsynchronised_batchnorm_learns_otherwise_but_everywhere_the_same(runs: Path, few, run: Path, monkeypatch):
    expected = losses_of_one(few, run, monkeypatch)
    curves = [json.loads(path.read_text()) for path in sorted(runs.glob("unsynced-*.json"))]
    assert len(curves) > 1 and all(curve == curves[0] for curve in curves)
    assert curves[0] != pytest.approx(expected, rel=1e-4)
    assert curves[0] == pytest.approx(expected, rel=0.3)
    assert all(tensor.isfinite().all() for tensor in weights(runs / "unsynced").values())


def test_all_processes_end_with_the_same_weights_and_the_first_alone_wrote(runs: Path):
    hashes = [path.read_text() for path in sorted(runs.glob("hash-*"))]
    assert len(hashes) > 1 and len(set(hashes)) == 1
    assert {path.read_text() for path in runs.glob("wrote-0")} == {"True"}
    assert {path.read_text() for path in runs.glob("wrote-[1-9]")} == {"False"}


def test_gradients_through_synchronised_batchnorm_are_those_of_the_whole_batch(runs: Path):
    """Forward, gradients and running statistics in float64, with parts of several sizes, one of them empty."""
    errors = [json.loads(path.read_text()) for path in runs.glob("norm-*")]
    assert len(errors) > 1
    for found in errors:
        assert found.keys() == {"output", "input", "weight", "bias", "running_mean", "running_var"}
        assert max(found.values()) < 1e-10, found


def test_every_process_has_what_each_one_gathered(runs: Path):
    """Process n has n numbers; the first one has none."""
    found = [json.loads(path.read_text()) for path in runs.glob("gathered-*")]
    assert len(found) > 1
    for parts in found:
        assert parts == [list(map(float, range(number))) for number in range(len(found))]


def test_resume_with_another_number_of_processes(runs: Path, few, run: Path, monkeypatch):
    """together.py leaves a run that was stopped by a SIGTERM to one of its processes."""
    expected = losses_of_one(few, run, monkeypatch)
    stopped = read_state(runs / "stopped")[0].progress.step
    assert 0 < stopped < len(expected)
    events = list(resume(runs / "stopped", Classification()))
    assert isinstance(events[-1], Stopped) and events[-1].reason == "finished"
    assert [event.loss for event in events if isinstance(event, Step)] == pytest.approx(expected[stopped:], rel=1e-4)


def test_parts_make_up_each_batch(few: Dataset):
    def batches(**options: Any) -> list[list[str]]:
        loader = ImageLoader(few.train, SPEC.preprocessing, batch=16, augment=RECIPE.augment, **options)
        return [[item.image for item in batch.items] for batch in loader.epoch(1)]

    whole = batches()
    for count in (2, 3, 5):
        parts = list(zip(*(batches(share=(number, count)) for number in range(count)), strict=True))
        assert [sorted(chain(*part)) for part in parts] == [sorted(batch) for batch in whole]
        assert all(len(part) != 1 for step in parts for part in step)


def test_a_process_that_is_alone_has_nothing_to_agree_upon():
    assert (distributed.world(), distributed.rank(), distributed.first()) == (1, 0, True)
    assert distributed.any_of(True, False) == (True, False)
    assert distributed.from_first(lambda: b"x") == b"x"
    x_BCHW = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(SyncBatchNorm2d(3)(x_BCHW), torch.nn.BatchNorm2d(3)(x_BCHW), rtol=0, atol=0)


def test_a_batch_too_small_for_the_processes(few: Dataset, run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distributed, "world", lambda: 9)
    with pytest.raises(ConfigurationError, match=r"batch=16 is too small for 9 processes.*batch=18"):
        training.prepare(build(SPEC), Classification(), few, PLAIN, run)


def test_more_processes_than_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    distributed.use_device("cpu")
    with pytest.raises(ConfigurationError, match="--nproc-per-node 1"):
        distributed.use_device("cuda")


def test_half_an_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigurationError, match="start with torchrun"), distributed.joined():
        pass


def process_of(launcher: int, number: int) -> int:
    """The process of rank ``number`` below torchrun's."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"\0RANK={number}\0" in Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError(f"no process of rank {number}")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a training that is slow enough to be killed, and with so low a learning rate that rounding stays small."""
    folder = tmp_path_factory.mktemp("killed")
    model = write_text(folder / "model.json", to_json(replace(SPEC, head=replace(SPEC.head, dropout=0.0))))
    return ["sample:digits", f"--model={model}", "--imgsz=16", "--epochs=4", "--lr=0.003", f"--project={folder}"]


@pytest.fixture(scope="module")
def curve(options: list[str]) -> list[float]:
    """Of one process."""
    subprocess.run([sys.executable, *TRAIN, *options, "--name=one"], check=True, env=ENVIRONMENT)
    return curve_of(project(options) / "one-1")


def project(options: list[str]) -> Path:
    return Path(options[-1].partition("=")[2]) / "classify"


def curve_of(run: Path) -> list[float]:
    return [row["train_loss"] for row in read_state(run)[0].progress.rows]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_with_one_error_and_the_run_goes_on(victim: int, options, curve):
    run = project(options) / f"killed {victim}-1"
    command = [*LAUNCH, "2", *TRAIN, *options, f"--name=killed {victim}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as both:
        assert both.stderr is not None
        for line in both.stderr:
            if line.startswith("epoch 1/"):
                os.kill(process_of(both.pid, victim), signal.SIGKILL)
                break
        output, messages = both.communicate(timeout=60)
    assert both.returncode != 0 and not output
    errors = [line for line in messages.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "another process of this training has ended" in errors[0]
    assert errors[0].endswith(f"pocketvision train --resume {run}")
    assert 0 < read_state(run)[0].progress.step < 180
    processes = 1 + victim  # with another number than before, and with the same
    again = launch(processes, *TRAIN, "--resume", run, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["reason"] == "finished"
    assert curve_of(run) == pytest.approx(curve, rel=1e-4)


def test_other_commands_refuse(tmp_path: Path):
    done = launch(2, "-m", "pocketvision", "build", "sample:digits", f"--project={tmp_path}")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "run `pocketvision build` as one process" in errors[0]
    assert not list(tmp_path.iterdir())
