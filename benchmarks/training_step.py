"""How a training step's time on a CPU depends on number format, memory layout and the C library's memory.

    python benchmarks/training_step.py [--threads 2] [--batch 32] [--rounds 2] [--models mobilenet_v2 ...]

Each variant runs in a process of its own, all of them in turn, so that a change of the machine's speed meets every
one alike. Prints a table and writes benchmarks/results/training_step.json. "processor" is the time of all threads
together, which other work on the machine disturbs less than "wall".
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "training_step.json"
FORMATS, LAYOUTS, MEMORY = ("float32", "bfloat16"), ("contiguous", "channels_last"), ("as it is", "kept")
STEPS = 6  # timed, in each process, after two that are not


def time_steps(model_name: str, number_format: str, layout: str, memory: str, batch: int) -> dict[str, float]:
    """Seconds of the fastest of some steps; MiB of memory at the peak of the process."""
    import torch

    from pocketvision.data.loader import Batch, ImageLoader
    from pocketvision.data.sources import Dataset, Item
    from pocketvision.nn.model import build
    from pocketvision.tasks.classification import Classification
    from pocketvision.training import training
    from pocketvision.training.recipe import Recipe
    from pocketvision.zoo import model_spec

    if memory == "as it is":
        training.keep_freed_memory = bool  # leaves the C library alone
    model = build(model_spec(model_name))
    size, classes = model.spec.preprocessing.size, model.spec.head.classes
    items = tuple(Item("", number % classes) for number in range(batch))
    data = Dataset("noise", tuple(map(str, range(classes))), items, (), (), ())
    recipe = replace(Recipe(epochs=100, batch=batch, lr=1e-3, device="cpu", amp=number_format == "bfloat16"))
    recipe = replace(recipe, channels_last=layout == "channels_last")
    run = training.prepare(model, Classification(), data, recipe, Path())
    assert isinstance(run.batches, ImageLoader)
    pixels = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    images = Batch(pixels, torch.tensor([item.label for item in items]), items)
    run.train_mode()
    wall, processor = list[float](), list[float]()
    for _ in range(STEPS + 2):
        start, used = time.perf_counter(), time.process_time()
        run.step(images)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "wall_s": min(wall[2:]),
        "median_s": statistics.median(wall[2:]),
        "processor_s": min(processor[2:]),
        "peak_mib": peak,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=["mobilenet_v2", "mobilenet_v3_small"])
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # a child process: model, format, layout, memory
    arguments = parser.parse_args()
    if arguments.one:
        import torch

        torch.set_num_threads(arguments.threads)
        name, number_format, layout, memory = arguments.one
        print(json.dumps(time_steps(name, number_format, layout, memory, arguments.batch)))
        return
    from pocketvision.files import write_text
    from pocketvision.measuring.machine import load_average, this_machine

    variants = list(product(arguments.models, FORMATS, LAYOUTS, MEMORY))
    rounds = dict[tuple[str, ...], list[dict[str, float]]]()
    for _, variant in product(range(arguments.rounds), variants):
        options = [f"--threads={arguments.threads}", f"--batch={arguments.batch}", "--one", *variant]
        done = subprocess.run([sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True, check=True)
        rounds.setdefault(variant, []).append(json.loads(done.stdout))
        print(*variant, done.stdout.strip(), file=sys.stderr, flush=True)
    rows = []
    for variant, results in rounds.items():
        best = {key: round(min(result[key] for result in results), 4) for key in results[0]}
        rows.append(dict(zip(("model", "format", "layout", "memory"), variant, strict=True)) | best)
        words = "  ".join(f"{word:13}" for word in variant)
        print(
            f"{words} wall {best['wall_s']:.3f} s   processor {best['processor_s']:.3f} s   {best['peak_mib']:.0f} MiB"
        )
    result = {
        "what": f"one training step of {arguments.batch} images of 224 pixels, {arguments.threads} threads, seconds; "
        f"the fastest of {STEPS} steps in each of {arguments.rounds} processes; peak memory of the process",
        "date": date.today().isoformat(),
        "command": "python benchmarks/training_step.py " + " ".join(sys.argv[1:]),
        "rows": rows,
        "machine": this_machine().to_dict() | {"load": load_average()},
    }
    print(write_text(RESULTS, json.dumps(result, indent=2) + "\n"))


if __name__ == "__main__":
    main()
