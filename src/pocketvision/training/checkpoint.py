"""The run folder ``runs/classify/NAME-N``: weights, the state to resume from, the table of epochs.

- ``args.yaml``: the recipe, with what was chosen for this machine
- ``split.json``: which images train and which validate
- ``results.csv``: one line per epoch
- ``weights/best.safetensors``, ``weights/last.safetensors``: the best epoch's weights and the newest, with the network
- ``state/last.safetensors``: all that going on needs; ``state/previous.safetensors`` is the one before it
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor

from .. import files
from ..errors import ConfigurationError, TrainingError, WeightsError
from ..nn import load
from ..nn.model import Model
from ..nn.rounding import Rounding, ranges_in
from ..spec.model import ModelSpec, from_data, to_data
from .recipe import Recipe, from_dict

BEST, LAST = Path("weights/best.safetensors"), Path("weights/last.safetensors")
STATE, PREVIOUS, NEXT = (Path("state") / f"{name}.safetensors" for name in ("last", "previous", "next"))
HUB = Path("model.safetensors")  # of a folder for Hugging Face's Hub (exporting.hub)
ARGS, SPLIT, RESULTS = Path("args.yaml"), Path("split.json"), Path("results.csv")


@dataclass(slots=True)
class Progress:
    """How far a run is.

    ``step`` steps are done of ``steps`` planned. ``loss_sum`` over ``images`` is of the epoch that is under way.
    ``stale``: epochs since the metric last rose. ``rows``: the lines of results.csv. ``records``: the epochs whose
    weights are kept to be averaged, oldest first; ``averaged``: that is done. ``head_fitted``: so is ``head_first``.
    """

    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    images: int = 0
    best: float | None = None
    best_epoch: int = 0
    stale: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    averaged: bool = False
    head_fitted: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a run's state file holds. ``tensors``: of the model, its average and the optimiser, by prefix."""

    spec: ModelSpec
    recipe: Recipe
    task: str
    progress: Progress
    tensors: Mapping[str, Tensor]


def create_run(project: str | Path, task: str, name: str) -> Path:
    """A new folder ``project/task/name-N`` with the lowest N from 1 that is free; safe when several start at once."""
    parent = Path(project) / task
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            try:
                (run := parent / f"{name}-{number}").mkdir()
            except FileExistsError:
                number += 1
            else:
                return run
    except OSError as error:
        raise ConfigurationError(
            f"cannot make a run folder in {parent}: {error.strerror}; choose another folder (--project)"
        ) from None


def write_state(run: Path, snapshot: Snapshot) -> Path:
    """Write the state file and keep the one before it. A kill at any moment leaves a whole one, old or new."""
    files.write_bytes(run / NEXT, encode(snapshot))
    if (run / STATE).exists():
        os.replace(run / STATE, run / PREVIOUS)
    os.replace(run / NEXT, run / STATE)
    return run / STATE


def encode(snapshot: Snapshot) -> bytes:
    """The bytes of a state file."""
    header = {
        "version": 1,
        "sha256": _digest(snapshot.tensors),
        "spec": to_data(snapshot.spec),
        "recipe": snapshot.recipe.to_dict(),
        "task": snapshot.task,
        "progress": asdict(snapshot.progress),
    }
    return save(dict(snapshot.tensors), metadata={"state": json.dumps(header)})


def read_state(run: Path) -> tuple[Snapshot, str]:
    """The newest whole state of a run, and a warning that names a newer damaged one ("" when there is none).

    Raises TrainingError where there is no state, WeightsError where every one is damaged.
    """
    damaged = list[str]()
    for path in (run / NEXT, run / STATE, run / PREVIOUS):
        if not path.exists():
            continue
        try:
            snapshot = decode(path.read_bytes())
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, ConfigurationError) as error:
            damaged.append(f"{path} is damaged ({error})")
            continue
        used = f"; going on from {path}, step {snapshot.progress.step}" if damaged else ""
        return snapshot, "; ".join(damaged) + used
    if damaged:
        raise WeightsError(
            f"cannot resume {run}: {'; '.join(damaged)}; start a new run, from {run / LAST} if that can still be read"
        )
    raise TrainingError(
        f"{run} holds no checkpoint (it would be {STATE}): not a run folder, or stopped before training began; "
        "start a new run"
    )


def decode(data: bytes) -> Snapshot:
    """The inverse of ``encode``. Raises one of many errors for anything else."""
    tensors = load_tensors(data)
    length = int.from_bytes(data[:8], "little")  # of safetensors' own header, in which ours is
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["state"])
    if header["version"] != 1:
        raise ValueError(f"it has version {header['version']} of the format, this pocketvision reads version 1")
    if _digest(tensors) != header["sha256"]:
        raise ValueError("its bytes have changed")
    progress = Progress(**header["progress"])
    return Snapshot(from_data(header["spec"]), from_dict(header["recipe"]), header["task"], progress, tensors)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(save(dict(tensors))).hexdigest()


def write_results(run: Path, rows: list[dict[str, float]]) -> Path:
    """results.csv from all rows so far, so that a resumed run leaves none twice."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return files.write_text(run / RESULTS, text.getvalue())


def remove_leftovers(run: Path) -> None:
    """Delete the partly written files of a process that was killed."""
    for folder in (run, run / "weights", run / "state"):
        for path in folder.glob(".*-*.*"):
            path.unlink(missing_ok=True)


def load_model(path: str | Path) -> Model:
    """The trained model of a run folder (its best weights), of a folder for Hugging Face's Hub, or of a weights file
    that says its network; in eval mode.

    Raises WeightsError, which names the file, and another one of the run that still works where there is one.
    """
    path = Path(path)
    if not path.is_dir():
        return load.load_model(None, path)[0].eval()
    if (path / HUB).is_file():
        return load.load_model(None, path / HUB)[0].eval()
    if not (path / BEST).is_file() and not (path / LAST).is_file():
        raise WeightsError(f"{path} is not a run with weights: it has no {BEST}; name a folder below runs/")
    try:
        return load.load_model(None, path / BEST)[0].eval()
    except WeightsError as error:
        try:
            load.load_model(None, path / LAST)
        except WeightsError:
            raise error from None
        raise WeightsError(f"{error}; the run's {path / LAST} still works: name that file instead") from None


def model_tensors(model: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    """The state dict on the CPU, contiguous, as files need it."""
    return {f"{prefix}{name}": tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> dict[str, Tensor]:
    """The optimiser's tensors as ``optimizer.SLOT.PARAMETER``."""
    tensors = dict[str, Tensor]()
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{slot}.{name}"] = value.detach().cpu().contiguous()
    return tensors


def restore(snapshot: Snapshot, model: Model, prefix: str) -> None:
    """Load the tensors under ``prefix`` into ``model``, which goes on rounding where it was trained so."""
    state = {name.removeprefix(prefix): tensor for name, tensor in snapshot.tensors.items() if name.startswith(prefix)}
    if ranges := ranges_in(dict(state)):
        model.rounding = Rounding(ranges, on=True).to(next(model.parameters()).device)
    model.load_state_dict(state)


def restore_optimizer(snapshot: Snapshot, optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> None:
    """The inverse of ``optimizer_tensors``.

    Each tensor gets its parameter's memory layout, so that the same kernels run as in a run that was never stopped.
    """
    parameters: dict[str, Any] = dict(model.named_parameters())
    for key, tensor in snapshot.tensors.items():
        if key.startswith("optimizer."):
            _, slot, name = key.split(".", 2)
            parameter = parameters[name]
            same_shape = tensor.shape == parameter.shape
            value = torch.empty_like(parameter).copy_(tensor) if same_shape else tensor.clone()
            optimizer.state[parameter][slot] = value.detach()
