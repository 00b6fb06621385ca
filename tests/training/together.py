"""What tests/training/test_distributed.py lets torchrun start: ``together.py FOLDER``.

Trains the recipes of FOLDER/recipes.json, each in a folder of its name, and writes what this process saw beside them.
"""

import hashlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from pocketvision import files
from pocketvision.data.sources import load_split
from pocketvision.nn.model import build
from pocketvision.spec.model import from_json
from pocketvision.tasks.classification import Classification
from pocketvision.training import distributed, loop
from pocketvision.training.events import Step, Stopped
from pocketvision.training.loop import fit
from pocketvision.training.recipe import from_dict
from pocketvision.training.sync_batchnorm import synchronise

loop.STEP_EVENTS_S = 0
PARTS = {2: [5, 3], 3: [4, 0, 3]}  # images of each process


def check_norm() -> dict[str, float]:
    """Largest differences between a synchronised BatchNorm here and a plain one that sees the whole batch."""
    number, sizes = distributed.rank(), PARTS[distributed.world()]
    torch.manual_seed(1)
    x_BCHW = 3 + 2 * torch.randn(sum(sizes), 6, 3, 2, dtype=torch.float64)
    upstream_BCHW = torch.randn_like(x_BCHW)
    plain, synced = (nn.BatchNorm2d(6, dtype=torch.float64) for _ in range(2))
    for norm in (plain, synced):
        nn.init.constant_(norm.weight, 1.3)
    synchronise(synced)
    own = slice(sum(sizes[:number]), sum(sizes[: number + 1]))
    whole_BCHW, part_BCHW = x_BCHW.clone().requires_grad_(), x_BCHW[own].clone().requires_grad_()
    expected, output = plain(whole_BCHW), synced(part_BCHW)
    (expected * upstream_BCHW).sum().backward()
    (output * upstream_BCHW[own]).sum().backward()
    assert whole_BCHW.grad is not None and part_BCHW.grad is not None
    pairs = {"output": (output, expected[own]), "input": (part_BCHW.grad, whole_BCHW.grad[own])}
    for name in ("weight", "bias"):
        pairs[name] = distributed.total(getattr(synced, name).grad), getattr(plain, name).grad
    for name in ("running_mean", "running_var"):
        pairs[name] = getattr(synced, name), getattr(plain, name)
    return {name: float((a - b).detach().abs().amax()) if a.numel() else 0.0 for name, (a, b) in pairs.items()}


def main() -> None:
    """Everything that is checked, in one start of the processes, which takes longest."""
    folder, wrote = Path(sys.argv[1]), list[Path]()
    spec, data = from_json((folder / "spec.json").read_text()), load_split(folder / "data.json")
    recipes = {name: from_dict(values) for name, values in json.loads((folder / "recipes.json").read_text()).items()}
    write = files.write_bytes

    def noted(path: Path | str, content: bytes) -> Path:
        wrote.append(Path(path))
        return write(path, content)

    files.write_bytes = noted
    with distributed.joined():
        number, model = distributed.rank(), build(spec)
        for name, recipe in recipes.items():
            torch.manual_seed(number)  # the first process's weights are everyone's
            events = fit(model := build(spec), Classification(), data, recipe, folder / name)
            losses = [event.loss for event in events if isinstance(event, Step)]
            (folder / f"{name}-{number}.json").write_text(json.dumps(losses))
        (folder / f"wrote-{number}").write_text(str(bool(wrote)))
        state = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
        (folder / f"hash-{number}").write_text(hashlib.sha256(state).hexdigest())
        (folder / f"norm-{number}").write_text(json.dumps(check_norm()))
        parts = distributed.gathered(torch.arange(float(number)))
        (folder / f"gathered-{number}").write_text(json.dumps([part.tolist() for part in parts]))
        torch.manual_seed(number)
        recipe = replace(recipes["sgd"], save_every_s=1000)
        for event in fit(build(spec), Classification(), data, recipe, folder / "stopped"):
            if isinstance(event, Step) and event.step == 3 and number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
        assert isinstance(event, Stopped) and event.reason == "interrupted", event


main()
