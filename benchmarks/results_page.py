"""docs/results.md from the files that the benchmarks leave: no figure of it is typed.

    python benchmarks/results_page.py

A claim "held" or "did not hold" only when the 95% interval of the paired difference leaves 0 on the claimed or on the
other side; else it is undecided here. What has not run says so.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"
HEAD = """# Results

Made by `python benchmarks/results_page.py` from the files in [benchmarks/results](../benchmarks/results): figures are
not typed, and a test compares this page with what that command writes. Negative results stay.
"""
CLAIMS = """## The papers' claims about training, at small scale

Does a component that helps on ImageNet help here? Each row is a pair of runs that differ in that component only (an
optimiser's form also has its own learning rate), repeated with {seeds} seeds; "here" is the mean difference in points
of top-1 on test images that chose nothing, or in percent of the training loss where the claim is about that, and its
95% interval (Student's t, over seeds). *Held* and *did not hold* need an interval without 0; of as many rows as
these, one may have that by chance. With so few images and epochs an effect of half a point can hardly be seen:
*undecided* means that, no more. What did not hold here may still hold at the papers' scale. T, K and C numbers are
entries of the fact sheet (see [CONTRIBUTING](../CONTRIBUTING.md)).
"""
SCALES = """CIFAR-10: networks from random weights, {cifar10}.
clothing10: MobileNetV3-Small from ImageNet's weights, {clothing10}.
Command: `{command}`, {hours} hours of one core so far.
The learning rates of the optimisers were chosen with a seed of their own on validation images. Rungs:
[ladder_rungs.py](../benchmarks/ladder_rungs.py).
"""
TIME = """## Time to accuracy

{what}. Every system starts from the same ImageNet weights; the peers' settings are in
[finetune_peers.py](../benchmarks/finetune_peers.py), of each the one that was best with the first seed. Top-1 is
that of the last epoch, not of the best one. The target is the best peer's mean final top-1{target}. "Minutes to
target" end with the first epoch that is as good, for each seed; seconds were measured apart from accuracies.
Command: `python benchmarks/time_to_accuracy.py peers`, then `ours`, `timing`, `join`.
"""
NOT_RUN = "not run"


def load(name: str) -> dict[str, Any] | None:
    """A result file's content; None when that benchmark has not been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Markdown; the first columns are ``words``, the others numbers."""
    lines = [head, ["---"] * words + ["--:"] * (len(head) - words), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def difference(line: dict[str, Any]) -> str:
    """Mean and interval, signed."""
    found = line["difference"]
    if not found:
        return NOT_RUN
    interval = "no interval" if found["low"] is None else f"{found['low']:+.2f} to {found['high']:+.2f}"
    return f"{found['mean']:+.2f}{_unit(line)} ({interval})"


def _unit(line: dict[str, Any]) -> str:
    return "%" if line["measure"] == "train_loss" else ""


def claims(ladder: dict[str, Any]) -> str:
    """The claims, and whether each held."""
    rows = [
        [
            line["what"],
            line["where"],
            line["data"],
            line["verdict"],
            "no figure" if line["claimed"] is None else f"{line['claimed']:+g}{_unit(line)}",
            difference(line),
            str(line["difference"]["n"] if line["difference"] else 0),
        ]
        for line in ladder["claims"]
    ]
    seeds = max(scale["seeds"] for scale in ladder["scales"].values())
    sizes = {
        name: f"{s['epochs']} epochs of at most {s['train']} images a class at {s['size']} pixels, "
        f"{s['test']} test images a class"
        for name, s in ladder["scales"].items()
    }
    text = CLAIMS.format(seeds=seeds) + "\n"
    head = ("Claim", "where", "data", "verdict", "on ImageNet", "here (95% interval)", "seeds")
    text += table(head, rows, words=4) + "\n"
    return text + SCALES.format(**sizes, command=ladder["command"], hours=ladder["processor_hours"])


def rungs(ladder: dict[str, Any]) -> str:
    """Every rung's accuracy."""

    def shown(found: dict[str, Any] | None) -> str:
        if not found:
            return NOT_RUN
        half = "" if found["low"] is None else f" ± {found['mean'] - found['low']:.2f}"
        return f"{found['mean']:.2f}{half}"

    rows = [
        [
            f"`{r['rung']}`",
            r["data"],
            r["network"],
            str(r["last"]["n"] if r["last"] else 0),
            shown(r["last"]),
            shown(r["best"]),
        ]
        for r in ladder["rungs"]
    ]
    head = ("Rung", "data", "network", "seeds", "top-1, last epoch", "top-1, best or averaged epoch")
    text = "### All rungs\n\nTop-1 in percent on the test images, mean and 95% interval.\n\n" + table(head, rows, 3)
    for found in ladder["teachers"]:
        text += f"\nThe teacher for {found['data']} ({found['network']}): {100 * found['top1']['last']:.1f}%.\n"
    tuned = [[f"`{t['rate']}`", t["lr"], f"{100 * t['val_top1']:.1f}"] for t in ladder["tuning"]]
    return text + (
        "\nLearning rates tried:\n\n" + table(("Rate", "value", "val top-1, last epoch"), tuned) if tuned else ""
    )


def time_to_accuracy(result: dict[str, Any]) -> str:
    """One row per system, and every setting that was tried."""
    text = TIME.format(what=result["what"], target=f", {100 * result['target_top1']:.1f}%") + "\n"
    rows = []
    for name, r in result["systems"].items():
        minutes = r.get("minutes_to_target")
        reached = NOT_RUN
        if minutes:
            reached = ", ".join("never" if value is None else f"{value:.1f}" for value in minutes)
        each = ", ".join(f"{100 * value:.1f}" for value in r["final_top1"])
        whole = f"{r['minutes_whole']:.1f}" if minutes else NOT_RUN
        rows.append([name, r["setting"], str(r["epochs"]), f"{100 * r['mean_top1']:.1f} ({each})", whole, reached])
    head = ("System", "setting", "epochs", "final top-1 (each seed)", "minutes, whole run", "minutes to target")
    text += table(head, rows, 2)
    tried = [
        [
            t["system"],
            t["setting"],
            f"{100 * t['top1']:.1f}",
            f"{100 * t['top1_whole']:.1f}" if "top1_whole" in t else "-",
        ]
        for t in result["settings_tried_with_seed_0"]
    ]
    text += "\nAll settings tried, first seed, final top-1 with each project's own evaluation crop and on the whole "
    text += "short side:\n\n"
    text += table(("System", "setting", "own crop", "whole"), tried, 2)
    text += _targets(result)
    return text + (machine(result) if "machine" in result else "\nSeconds per epoch: not run.\n")


def _targets(result: dict[str, Any]) -> str:
    """Whether ours took a third of the best peer's minutes and ended no worse, once both have been timed."""
    systems, peer = result["systems"], result["best_peer"]
    ours, best = systems.get("pocketvision", {}), systems[peer]
    if "minutes_whole" not in ours or "minutes_whole" not in best:
        return "\nThe two targets: not run.\n"
    minutes = ours["minutes_to_target"]
    took = "does not get there with every seed: missed"
    if None not in minutes:
        mean = sum(minutes) / len(minutes)
        share = mean / best["minutes_whole"]
        took = (
            f"takes {mean:.1f} minutes on average, {share:.2f} of {peer}'s {best['minutes_whole']:.1f} for the whole "
        )
        took += f"run (wanted: a third): {'met' if share <= 1 / 3 else 'missed'}"
    ahead = 100 * (ours["mean_top1"] - best["mean_top1"])
    return (
        f"\nTo the best peer's final top-1 pocketvision {took}. Its own final top-1 is {ahead:+.1f} points from that "
        f"(wanted: not below): {'met' if ahead >= 0 else 'missed'}.\n"
    )


def throughput() -> str:
    """Images per second of prediction, and of training when that has been measured."""
    text = "## Throughput\n\n"
    if found := load("predict"):
        rates = found["images_per_second"]
        text += f"Prediction from JPEG files, MobileNetV3-Small at 224 pixels, {found['images']} images, best of "
        text += f"{found['rounds']} rounds (`python benchmarks/predict.py`):\n\n"
        text += table(("System", "images per second"), [[name, f"{rate:.0f}"] for name, rate in rates.items()])
        text += machine(found)
    found = load("training")
    if found and found.get("epochs"):
        text += "\nTraining from JPEG files, images per second in the first epoch and later "
        text += "([benchmarks/training.md](../benchmarks/training.md) has the steps alone):\n\n"
        keys = ("model", "system", "how", "first", "later", "to_timm")
        rows = [[str(row[key]) for key in keys] for row in found["epochs"]]
        text += table(("Model", "system", "how", "first epoch", "later", "later / best of timm"), rows, 3) + machine(
            found
        )
    else:
        text += "\nTraining: not run.\n"
    return text


def machine(found: dict[str, Any]) -> str:
    """Where and when it was measured."""
    facts = found["machine"]
    load_before = f", load {found['load_before']} before it" if "load_before" in found else ""
    cores = "1 core" if facts["cores"] == 1 else f"{facts['cores']} cores"
    return f"\n{cores} of {facts['cpu']}, {found['date'][:10]}{load_before}.\n"


def page() -> str:
    """The whole page."""
    from results_deploy import deployment
    from results_detection import detection
    from results_measuring import measuring
    from results_segmentation import segmentation

    ladder, times = load("ladder"), load("time_to_accuracy")
    parts = [HEAD]
    parts += [claims(ladder), rungs(ladder)] if ladder else ["## The papers' claims about training\n\nNot run.\n"]
    parts += ["### Full size\n\n`python benchmarks/ladder.py run --scale gpu`: not run, no GPU was lent.\n"]
    parts += [time_to_accuracy(times) if times else "## Time to accuracy\n\nNot run.\n", throughput()]
    parts += [detection(), segmentation(), deployment(), measuring()]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
