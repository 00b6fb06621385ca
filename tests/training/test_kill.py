"""SIGKILL at random moments, in a process of its own: the resumed run ends with the same file, bit for bit."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pocketvision.nn.model import build
from pocketvision.tasks.classification import Classification
from pocketvision.training import checkpoint
from pocketvision.training.loop import fit, resume

from .conftest import RECIPE, SPEC

PROGRAM = """
import sys
from pocketvision.tasks.classification import Classification
from pocketvision.training.loop import resume
for event in resume(sys.argv[1], Classification()):
    print(event, flush=True)
"""


def begin(run: Path, data) -> None:
    """A run that has only its first checkpoint; checkpoints follow after every step."""
    torch.manual_seed(0)
    events = fit(build(SPEC), Classification(), data, replace(RECIPE, epochs=8, save_every_s=0), run)
    next(events)
    events.close()  # type: ignore[attr-defined]  (a generator)


def resume_and_kill(run: Path, saves: int, seconds: float) -> None:
    """Go on in another process and kill it ``seconds`` after so many checkpoints."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, run], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        saves -= line.startswith("Saved")
        if not saves:
            break
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def final_hash(run: Path) -> str:
    return hashlib.sha256((run / checkpoint.LAST).read_bytes()).hexdigest()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_and_resumed_ends_with_the_same_file(data, tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    begin(whole, data)
    begin(killed, data)
    list(resume(whole, Classification()))
    chance, steps = random.Random(0), [0]
    for _ in range(3):
        resume_and_kill(killed, chance.randint(2, 8), chance.uniform(0, 0.05))
        steps.append(checkpoint.read_state(killed)[0].progress.step)
    assert all(first < second for first, second in pairwise(steps)) and steps[-1] < 40
    list(resume(killed, Classification()))
    assert final_hash(killed) == final_hash(whole)
    assert checkpoint.read_state(killed)[0].progress.step == 40
