"""How often `measure` tells a network from itself, and from a slightly heavier one.

    python benchmarks/same_or_not.py [--pairs 200] [--n 40]

A/A: MobileNetV3-Small (random weights) beside itself in another session of ONNX Runtime, one thread; the share of pairs
that are told apart is the rate of false alarms, 5% wanted. A/B: the same network at 224 and at 232 pixels, some 7% more
multiply-adds: the share that is told apart. Writes benchmarks/results/same_or_not.json.
"""

import argparse
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pocketvision.exporting.onnx import export
from pocketvision.measuring.latency import timed_sessions
from pocketvision.measuring.machine import load_average, this_machine
from pocketvision.measuring.paired import LEVEL, compare
from pocketvision.measuring.runtimes import Session, open_file
from pocketvision.nn.model import stand_in
from pocketvision.zoo import model_spec

RESULTS = Path(__file__).parent / "results" / "same_or_not.json"
SIZES = {"first": 224, "same": 224, "heavier": 232}


def pair(first: Session[Any], second: Session[Any], n: int) -> dict[str, Any]:
    """One comparison."""
    _, turns = timed_sessions({"first": first, "second": second}, n=n)
    return compare("first", turns["first"], "second", turns["second"]).to_dict()


def told(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The share of pairs that are told apart, and what their ratios are."""
    ratios = [row["ratio"] for row in rows]
    return {
        "pairs": len(rows),
        "told_apart": sum(row["significant"] for row in rows) / len(rows),
        "ratio": float(np.median(ratios)),
        "ratio_5_to_95": [float(each) for each in np.percentile(ratios, (5, 95))],
        "interval_covers": sum(row["interval"][0] <= np.median(ratios) <= row["interval"][1] for row in rows)
        / len(rows),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--n", type=int, default=40)
    arguments = parser.parse_args()
    before = load_average()
    with tempfile.TemporaryDirectory() as folder:
        sessions = {
            name: open_file(
                export(stand_in(model_spec("mobilenet_v3_small", imgsz=size)), out=Path(folder) / f"{name}.onnx")
            )
            for name, size in SIZES.items()
        }
    same = [pair(sessions["first"], sessions["same"], arguments.n) for _ in range(arguments.pairs)]
    other = [pair(sessions["first"], sessions["heavier"], arguments.n) for _ in range(arguments.pairs // 4)]
    result = {
        "level": LEVEL,
        "n": arguments.n,
        "same": told(same),
        "heavier": told(other),
        "machine": this_machine().to_dict(),
        "load": [before, load_average()],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
