"""How long a user waits before anything happens: imports and help pages, ours beside two peers'.

Each command runs in a process of its own, all of them in turn, so that a change of the machine's speed meets every one
alike; the first round warms the disk cache and is not counted. A peer whose interpreter or package is absent is
left out, and the table and the results say so.

    python benchmarks/startup.py --yolo-python OTHER_ENVIRONMENT/bin/python

Prints a table and writes benchmarks/results/startup.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from pocketvision.files import write_text
from pocketvision.measuring.machine import load_average, this_machine

RESULTS = Path(__file__).parent / "results" / "startup.json"
TARGET_S = 0.5  # for each of our own rows


def commands(python: str, timm_python: str, yolo_python: str) -> dict[str, list[str]]:
    """What is timed: name -> command. The scripts stand beside the interpreter that they were installed with."""
    return {
        "import pocketvision": [python, "-c", "import pocketvision"],
        "pocketvision --help": [str(Path(python).with_name("pocketvision")), "--help"],
        "import timm": [timm_python, "-c", "import timm"],
        "yolo --help": [str(Path(yolo_python).with_name("yolo")), "--help"],
        "python (nothing)": [python, "-c", "pass"],
    }


def version(python: str, package: str) -> str | None:
    """The version of ``package`` that the interpreter ``python`` has, None where it has none."""
    program = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def why_absent(command: list[str]) -> str | None:
    """None where ``command`` works, else its error in one line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed"])[-1]


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def measure(timed: dict[str, list[str]], repeats: int) -> dict[str, dict[str, float | int]]:
    """Rows of the table: name -> min, median, p90 in seconds, and n."""
    runs: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(repeats):
        for name, command in timed.items():
            runs[name].append(seconds(command))
    return {name: summary(times) for name, times in runs.items()}


def summary(times: list[float]) -> dict[str, float | int]:
    """Minimum, median and 90th percentile (nearest rank)."""
    times = sorted(times)
    p90 = times[max(0, -(-len(times) * 9 // 10) - 1)]
    row = {"min_s": times[0], "median_s": statistics.median(times), "p90_s": p90}
    return {key: round(value, 4) for key, value in row.items()} | {"n": len(times)}


def main() -> int:
    """Measure, print, write; 1 where one of our own rows misses the target or does not run at all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter that has pocketvision")
    parser.add_argument("--timm-python", default=sys.executable, help="interpreter that has timm")
    parser.add_argument("--yolo-python", default=sys.executable, help="interpreter that has ultralytics")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()

    every = commands(options.python, options.timm_python, options.yolo_python)
    absent = {name: reason for name, command in every.items() if (reason := why_absent(command))}
    rows = measure({name: command for name, command in every.items() if name not in absent}, options.repeats)
    for name, row in rows.items():
        print(
            f"{name:22} median {row['median_s']:.3f} s   min {row['min_s']:.3f}   p90 {row['p90_s']:.3f}   n {row['n']}"
        )
    for name, reason in absent.items():
        print(f"{name:22} LEFT OUT: {reason}", file=sys.stderr)
    result = {
        "what": "wall time of a whole process, seconds",
        "date": date.today().isoformat(),
        "target_s": TARGET_S,
        "command": "python benchmarks/startup.py, peers' interpreters by options",
        "versions": {
            "pocketvision": version(options.python, "pocketvision"),
            "timm": version(options.timm_python, "timm"),
            "ultralytics": version(options.yolo_python, "ultralytics"),
        },
        "rows": rows,
        "left_out": absent,
        "machine": this_machine().to_dict() | {"load": load_average()},
    }
    print(write_text(RESULTS, json.dumps(result, indent=2) + "\n"))
    ours = [rows.get(name, {"median_s": float("inf")})["median_s"] for name in every if "pocketvision" in name]
    return 0 if max(ours) < TARGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
