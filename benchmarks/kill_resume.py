"""`pocketvision train` killed with SIGKILL at random moments and resumed: are the final weights the same?

    python benchmarks/kill_resume.py [--kills 10] [--model mobilenet_v3_small] [--epochs 30] [--seed 0]

Trains on sample:digits with one thread twice: once without a stop, once killed as soon as it has begun and then at a
random moment after each resume. Compares the sha256 of their weights, and writes what it saw to
benchmarks/results/kill_resume.json. Exit code 1 when the weights differ.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from pocketvision.files import write_text
from pocketvision.measuring.machine import this_machine

RESULTS = Path(__file__).parent / "results" / "kill_resume.json"
WEIGHTS = ("weights/last.safetensors", "weights/best.safetensors")
STARTED = "images to train"  # in the line that is printed when training begins


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """`pocketvision train` with one thread, in a process group of its own."""
    program = [sys.executable, "-m", "pocketvision", "train", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def kill(process: subprocess.Popen[str], seconds: float) -> str:
    """Kill with SIGKILL after so many seconds; returns what was printed."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[1]


def finish(arguments: list[str]) -> tuple[float, float]:
    """Run to the end; returns the seconds until training began and those until the end."""
    begin, began, text = time.monotonic(), 0.0, ""
    process = start(arguments)
    assert process.stderr is not None
    for line in process.stderr:
        text += line
        began = began or (time.monotonic() - begin if STARTED in line else 0.0)
    if process.wait():
        raise SystemExit(f"the training failed:\n{text}")
    return began, time.monotonic() - begin


def begin_and_kill(arguments: list[str]) -> None:
    """A new run, killed as soon as it has begun."""
    process = start(arguments)
    assert process.stderr is not None
    text = ""
    for line in process.stderr:
        text += line
        if STARTED in line:
            os.killpg(process.pid, signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit(f"the training did not begin:\n{text}")


def describe(text: str) -> str:
    """Where a killed process had begun, and the last epoch that it had finished."""
    lines = text.splitlines()
    begun = [line.rpartition(", ")[2] for line in lines if STARTED in line]
    epochs = [line.partition("  ")[0] for line in lines if line.startswith("epoch")]
    return "; ".join([*begun, *epochs[-1:]]) or "before training began"


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model", default="mobilenet_v3_small")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    kills, same = list[str](), True
    with tempfile.TemporaryDirectory() as folder:
        options = ["sample:digits", f"--model={arguments.model}", f"--epochs={arguments.epochs}", f"--project={folder}"]
        whole, killed = (Path(folder) / "classify" / f"{name}-1" for name in ("whole", "killed"))
        began, seconds = finish([*options, "--name=whole"])
        print(f"without a stop: {began:.1f} s to begin, {seconds:.1f} s in all", flush=True)
        begin_and_kill([*options, "--name=killed"])
        for number in range(1, arguments.kills + 1):
            moment = chance.uniform(0.2, 1) * began + chance.uniform(0, 1.6) * (seconds - began) / arguments.kills
            text = kill(start(["--resume", str(killed)]), moment)
            kills.append(f"after {moment:.1f} s: {describe(text)}")
            print(f"kill {number} {kills[-1]}", flush=True)
        finish(["--resume", str(killed)])
        for name in WEIGHTS:
            first, second = (hashlib.sha256((run / name).read_bytes()).hexdigest() for run in (whole, killed))
            same &= first == second
            print(f"{name}: sha256 {first[:16]} without a stop, {second[:16]} with {1 + arguments.kills} kills")
    result = {"identical": same, "kills": ["when it had begun", *kills], "machine": this_machine().to_dict()}
    result |= {"date": date.today().isoformat(), "command": " ".join(["python", *sys.argv])}
    write_text(RESULTS, json.dumps(result, indent=2) + "\n")
    print("identical" if same else "DIFFERENT")
    raise SystemExit(not same)


if __name__ == "__main__":
    main()
