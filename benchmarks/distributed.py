"""Images a second of two gloo processes with one thread each, against one process with two threads and with one.

    python benchmarks/distributed.py [--batch 64] [--steps 4] [--rounds 2] [--model mobilenet_v3_small]

Training steps on random pixels of 224, without reading images. The variants take turns, each in new processes. Writes
benchmarks/results/distributed.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "distributed.json"
VARIANTS = {  # processes, threads of each, options
    "1 process, 1 thread": (1, 1, ()),
    "1 process, 2 threads": (1, 2, ()),
    "2 processes, 1 thread each": (2, 1, ()),
    "2 processes, 1 thread each, sync_bn=False": (2, 1, ("--local-norms",)),
}


def measure(model_name: str, batch: int, steps: int, sync_bn: bool) -> None:
    """Train ``steps`` steps after two warm ones, and print the fastest one's wall seconds and what it spent waiting."""
    import torch

    from pocketvision.data.loader import Batch
    from pocketvision.data.sources import Dataset, Item
    from pocketvision.nn.model import build
    from pocketvision.tasks.classification import Classification
    from pocketvision.training import distributed, training
    from pocketvision.training.recipe import Recipe
    from pocketvision.zoo import model_spec

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with distributed.joined():
        model = build(model_spec(model_name))
        spec = model.spec
        items = tuple(Item("", number % spec.head.classes) for number in range(batch))
        data = Dataset("noise", tuple(map(str, range(spec.head.classes))), items, (), (), ())
        recipe = replace(Recipe(epochs=100, lr=1e-3, device="cpu", amp=False), batch=batch, sync_bn=sync_bn)
        run = training.prepare(model, Classification(), data, recipe, Path())
        own = items[distributed.rank() :: distributed.world()]
        size = spec.preprocessing.size
        pixels = torch.randint(0, 256, (len(own), size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        images = Batch(pixels, torch.tensor([item.label for item in own]), own)
        run.train_mode()
        seconds = list[float]()
        for _ in range(steps + 2):
            start = time.perf_counter()
            run.step(images)
            seconds.append(time.perf_counter() - start)
        flat = torch.zeros(sum(parameter.numel() for parameter in model.parameters()))
        start = time.perf_counter()
        for _ in range(5):
            distributed.total(flat)
        adding_s = (time.perf_counter() - start) / 5
        if distributed.first():
            print(json.dumps({"step_s": min(seconds[2:]), "gradients_s": adding_s if distributed.world() > 1 else 0.0}))


def main() -> None:
    """Measure all variants in turn, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="mobilenet_v3_small")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--local-norms", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.model, arguments.batch, arguments.steps, not arguments.local_norms)
        return
    from pocketvision.files import write_text
    from pocketvision.measuring.machine import load_average, this_machine

    before, best = load_average(), dict[str, dict[str, float]]()
    options = [f"--batch={arguments.batch}", f"--steps={arguments.steps}", f"--model={arguments.model}", "--one"]
    for _ in range(arguments.rounds):
        for name, (processes, threads, more) in VARIANTS.items():
            launcher = [sys.executable]
            if processes > 1:
                launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            command = [*launcher, __file__, *options, *more]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            found = json.loads(done.stdout)
            best[name] = min(best.get(name, found), found, key=lambda result: result["step_s"])
            print(name, found, file=sys.stderr, flush=True)
    rows = [
        {"variant": name, "images_per_s": round(arguments.batch / row["step_s"], 1)}
        | {key: round(value, 4) for key, value in row.items()}
        for name, row in best.items()
    ]
    result = {
        "what": f"training steps of {arguments.model}, {arguments.batch} images of 224 pixels in all; the fastest of "
        f"{arguments.steps} steps in each of {arguments.rounds} starts; gradients_s: one all-reduce as large as the "
        "gradients, which step_s contains; other work ran on the machine (see its load before and after)",
        "date": date.today().isoformat(),
        "command": "python benchmarks/distributed.py " + " ".join(sys.argv[1:]),
        "rows": rows,
        "machine": this_machine().to_dict() | {"load_before": before, "load_after": load_average()},
    }
    print(write_text(RESULTS, json.dumps(result, indent=2) + "\n").read_text())


if __name__ == "__main__":
    main()
