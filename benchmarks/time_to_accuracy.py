"""Minutes until a fine-tuned MobileNetV2 is as good on clothing10 as the best of timm, torchvision and fastai.

    python benchmarks/time_to_accuracy.py peers    # accuracies of each peer's epochs, three seeds: hours, restartable
    python benchmarks/time_to_accuracy.py ours     # the same of `pocketvision train` with its default recipe
    python benchmarks/time_to_accuracy.py timing   # seconds per epoch, on a quiet machine, everyone in turn
    python benchmarks/time_to_accuracy.py join     # both together: benchmarks/results/time_to_accuracy.json

Accuracy does not depend on the machine's load, time does. So the long runs may be done beside other work, and
seconds are measured apart: each system in its own default form, in rounds, a whole epoch of training and its evaluation
(for ours a whole run, whose epochs differ); the fastest round counts. A peer's minutes are its epochs times these.
``finetune_peers.py`` says what the peers do. fastai runs in an environment of its own (``--fastai-python``).
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "time_to_accuracy.json"
CURVES = HERE / "results" / "time_to_accuracy_curves"
TIMES = CURVES / "times.json"
SHARED = Path(os.environ.get("POCKETVISION_SHARED") or HERE.parent.parent / "shared") / "data"
WEIGHTS = "mobilenet_v2_torchvision_imagenet1k_v1_fp16.safetensors"
SEEDS = (0, 1, 2)
PEERS = ("timm", "torchvision", "fastai")


def curve(path: Path) -> dict[str, Any] | None:
    """A finished run's curve."""
    return json.loads(path.read_text()) if path.exists() else None


def path_of(system: str, setting: str, seed: int) -> Path:
    """Where a run's curve is kept."""
    return CURVES / f"{system}_{setting}_seed{seed}.json"


def final(run: dict[str, Any]) -> float:
    """Accuracy of the last epoch, with the evaluation crop that suits the run better."""
    last = run["epochs"][-1]
    return max(last["top1"], last.get("top1_whole", 0.0))


def run_peer(arguments: argparse.Namespace, system: str, setting: str, *options: str) -> None:
    """Start a peer's process."""
    python = arguments.fastai_python if system == "fastai" else sys.executable
    command = [python, str(HERE / "finetune_peers.py"), system, str(arguments.data), "--setting", setting]
    print(f"{datetime.now(UTC):%H:%M:%S}", *command[2:], *options, flush=True)
    subprocess.run([*command, f"--weights={arguments.weights / WEIGHTS}", *options], check=True)


def peers(arguments: argparse.Namespace) -> None:
    """Some settings with the first seed, in the order of promise; the best ones with all seeds."""
    from finetune_peers import SETTINGS

    def run(system: str, setting: str, seed: int) -> None:
        path = path_of(system, setting, seed)
        if not path.exists():
            run_peer(arguments, system, setting, f"--seed={seed}", "--cheap", f"--out={path}")

    CURVES.mkdir(parents=True, exist_ok=True)
    settings = {system: list(SETTINGS[system]) for system in PEERS}
    for place in range(arguments.settings):
        for system in PEERS:
            run(system, settings[system][place], 0)
    for seed in SEEDS[1:]:
        for system in PEERS:
            run(system, best_setting(system), seed)


def best_setting(system: str) -> str:
    """The setting that ended best with the first seed, of those tried."""
    runs = [run for path in sorted(CURVES.glob(f"{system}_*_seed0.json")) if (run := curve(path))]
    return max(runs, key=final)["setting"]


def ours_once(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One `pocketvision train` in a process of its own: its accuracy and seconds at the end of each epoch."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pocketvision", "train", str(arguments.data), "--model=mobilenet_v2"]
        command += [f"--seed={seed}", f"--project={folder}", "--name=run"]
        start, before = time.perf_counter(), os.times()
        subprocess.run(
            command, check=True, env=os.environ | {"POCKETVISION_WEIGHTS": str(arguments.weights)}, stdout=sys.stderr
        )
        wall, after = time.perf_counter() - start, os.times()
        (results,) = Path(folder).rglob("results.csv")
        with results.open() as file:
            rows = list(csv.DictReader(file))
        recipe = next(Path(folder).rglob("args.yaml")).read_text()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    outside = wall - float(rows[-1]["seconds"])  # starting, reading the data, loading weights
    return {
        "system": "pocketvision",
        "setting": "default",
        "recipe": recipe,
        "seed": seed,
        "commit": _commit(),
        "wall_s": round(wall, 1),
        "processor_s": round(used),
        "epochs": [
            {
                "epoch": int(row["epoch"]),
                "top1": round(float(row["val_top1"]), 4),
                "end_s": round(outside + float(row["seconds"]), 1),
            }
            for row in rows
        ],
    }


def _commit() -> str:
    command = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def ours(arguments: argparse.Namespace) -> None:
    """All seeds of the recipe as it stands; curves of an older commit are replaced. ``timing`` leaves one of seed 0."""
    CURVES.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        path = path_of("pocketvision", "default", seed)
        done = curve(path)
        if not done or done["commit"] != _commit():
            _write(path, ours_once(arguments, seed))


def timing(arguments: argparse.Namespace) -> None:
    """Seconds of an epoch and of an evaluation, everyone in turn."""
    from pocketvision.measuring.machine import load_average, this_machine

    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        os.environ.pop(name, None)  # everyone's own default
    load, rounds = load_average(), dict[str, list[Any]]()
    for _ in range(arguments.rounds):
        own = ours_once(arguments, SEEDS[0])
        _write(path_of("pocketvision", "default", SEEDS[0]), own)
        rounds.setdefault("pocketvision", []).append(own["epochs"])
        for system in PEERS:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "curve.json"
                epochs = 2 if system == "fastai" else 1  # its first epoch has a frozen body
                run_peer(arguments, system, best_setting(system), f"--epochs={epochs}", f"--out={out}")
                rounds.setdefault(system, []).append(json.loads(out.read_text())["epochs"])
    times: dict[str, Any] = {"rounds": rounds, "load_before": load, "machine": this_machine().to_dict()}
    _write(TIMES, times | {"date": datetime.now(UTC).isoformat(timespec="seconds")})


def seconds_at(system: str, epochs: int, times: dict[str, Any]) -> list[float]:
    """Seconds from the start to the end of each epoch's evaluation, from the fastest round."""
    rounds = times["rounds"][system]
    if system == "pocketvision":
        fastest = min(rounds, key=lambda rows: rows[-1]["end_s"])
        return [row["end_s"] for row in fastest]
    best = min(rounds, key=lambda rows: sum(row["train_s"] + row["eval_s"] for row in rows))
    seconds = [row["train_s"] + row["eval_s"] for row in best]
    seconds += [seconds[-1]] * (epochs - len(seconds))
    return [sum(seconds[: number + 1]) for number in range(epochs)]


def join(_: argparse.Namespace) -> None:
    """Curves and seconds as one table."""
    times = curve(TIMES)
    rows = dict[str, dict[str, Any]]()
    runs = {system: runs for system in (*PEERS, "pocketvision") if (runs := _runs(system))}
    means = {system: statistics.mean(map(_reported(runs[system]), runs[system])) for system in runs}
    best = max((system for system in PEERS if system in means), key=means.__getitem__)
    target = means[best]
    for system, own in runs.items():
        value = _reported(own)
        row: dict[str, Any] = {
            "setting": own[0]["setting"],
            "seeds": [run["seed"] for run in own],
            "final_top1": [value(run) for run in own],
            "mean_top1": round(means[system], 4),
            "epochs": len(own[0]["epochs"]),
        }
        if times:
            seconds = seconds_at(system, len(own[0]["epochs"]), times)
            row["minutes_whole"] = round(seconds[-1] / 60, 2)
            row["minutes_to_target"] = [_reached(run, seconds, target, own) for run in own]
        rows[system] = row
    tried = [_tried(path) for path in sorted(CURVES.glob("*_seed0.json"))]
    result: dict[str, Any] = {"what": "MobileNetV2 fine-tuned on clothing10 (341 validation photos), 224 px, batch 32"}
    result |= {"target_top1": round(target, 4), "best_peer": best, "systems": rows, "settings_tried_with_seed_0": tried}
    if times:
        result |= {key: times[key] for key in ("machine", "load_before", "date")}
    _write(RESULTS, result)
    print(json.dumps(rows, indent=1))


def _runs(system: str) -> list[dict[str, Any]]:
    """Finished runs of the system's best setting, by seed."""
    if not list(CURVES.glob(f"{system}_*_seed0.json")):
        return []
    setting = best_setting(system)
    return [run for seed in SEEDS if (run := curve(path_of(system, setting, seed)))]


def _reported(runs: list[dict[str, Any]]) -> Any:
    """A function from a run to the final accuracy with the crop that suits all its seeds best."""
    key = max(("top1", "top1_whole"), key=lambda name: sum(run["epochs"][-1].get(name, 0.0) for run in runs))
    return lambda run: run["epochs"][-1][key]


def _reached(run: dict[str, Any], seconds: list[float], target: float, own: list[dict[str, Any]]) -> float | None:
    """Minutes to the first epoch that is as good as ``target``; None when none is."""
    value = _reported(own)
    for row, end in zip(run["epochs"], seconds, strict=True):
        if value({"epochs": [row]}) >= target:
            return round(end / 60, 2)
    return None


def _tried(path: Path) -> dict[str, Any]:
    run = json.loads(path.read_text())
    last = run["epochs"][-1]
    return {"system": run["system"], "setting": run["setting"], "top1": last["top1"]} | (
        {"top1_whole": last["top1_whole"]} if "top1_whole" in last else {}
    )


def _write(path: Path, data: object) -> None:
    from pocketvision.files import write_text

    print(write_text(path, json.dumps(data, indent=1) + "\n"))


COMMANDS = {"peers": peers, "ours": ours, "timing": timing, "join": join}


def main() -> None:
    """Do one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=COMMANDS)
    parser.add_argument("--data", type=Path, default=SHARED / "clothing10")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="folder of the shared weights")
    parser.add_argument("--fastai-python", default=sys.executable, help="an environment that has fastai")
    parser.add_argument("--settings", type=int, default=3, help="how many of each peer's settings to try")
    parser.add_argument("--rounds", type=int, default=2, help="of the timing")
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE))
    COMMANDS[arguments.part](arguments)


if __name__ == "__main__":
    main()
