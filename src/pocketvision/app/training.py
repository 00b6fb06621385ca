"""`pocketvision train`: a data set and a model's name -> a run folder with trained weights."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..data import samples
from ..data.sources import Dataset, parse_split, split_text
from ..errors import ConfigurationError
from ..nn.fold import has_identity_norms, unfold
from ..nn.model import build
from ..spec.model import ModelSpec
from ..spec.transform import with_classes
from ..tasks.named import task_named
from ..training import distributed
from ..training.checkpoint import BEST, create_run
from ..training.diagnose import Remedy
from ..training.events import Stopped
from ..training.fitting import check_fit
from ..training.loop import fit, resume
from ..training.recipe import Recipe
from ..training.training import with_teachers
from ..zoo import model_spec
from ..zoo.weights import WeightsInfo
from .checked import open_checked
from .choose import SMALL_IMAGE, load_whole, normalised, sample
from .network import natural_size, network, wanted_task
from .options import TrainOptions
from .progress import show, tell
from .ranges import warnings
from .remedies import diagnose_run

UNFOLD_IMAGES = 256


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run: its folder, the best epoch's metric on the validation images, and seconds of training.

    ``precision``: of what is to be exported. ``warnings``: of values outside their usual ranges; ``remedies``: what
    went wrong, read from the curves.
    """

    run: Path
    metric: str
    value: float | None
    epoch: int
    reason: str
    seconds: float
    weights: str
    precision: Literal["float32", "int8"] = "float32"
    warnings: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__}
        remedies = [remedy.to_dict() for remedy in self.remedies]
        return fields | {"run": str(self.run), "seconds": round(self.seconds, 1), "remedies": remedies}

    def __str__(self) -> str:
        value = (
            "no epoch was finished" if self.value is None else f"{self.metric} {self.value:.1%} in epoch {self.epoch}"
        )
        going_on = f"pocketvision train --resume {self.run}" if self.reason == "interrupted" else ""
        next_step = going_on or f"pocketvision export {self.run}" + " --int8" * (self.precision == "int8")
        kept = f"; {self.run / BEST}" if self.epoch else ""
        lines = [f"{self.reason}: {value}, {self.seconds:.0f} s{kept}", *map(str, self.remedies)]
        return "\n".join([*lines, f"next: {next_step}"])


def train(data: str | Path, model: str = "mobilenet_v3_small", options: TrainOptions = TrainOptions()) -> TrainResult:
    """Train ``model`` (a name, or a JSON file of rows) on ``data`` and keep everything in a new run folder.

    Under torchrun, all processes together. Raises ConfigurationError, DataError, WeightsError or TrainingError with
    cause and fix.
    """
    with distributed.joined():
        options.check()
        dataset = _open(data, options)
        size = options.imgsz or natural_size(dataset)
        backbone = model_spec(model, width=options.width, width_rule=options.width_rule)
        spec = network(dataset, backbone, options, size)
        return train_spec(dataset, spec, starting_weights(options.weights, dataset, size), options)[0]


def _open(data: str | Path, options: TrainOptions) -> Dataset:
    """The data set; of several processes the first one checks it."""

    def opened() -> Dataset:
        task = wanted_task(options.head, options.output_stride)
        return open_checked(data, seed=options.run_seed, allow_leak=options.allow_leak, task=task)[0]

    if distributed.world() == 1:
        return opened()
    return parse_split(distributed.from_first(lambda: split_text(opened()).encode()).decode())


def resume_training(run: Path) -> TrainResult:
    """Go on with an interrupted run, to the same result that it would have had."""
    with distributed.joined():
        return finished(show(resume(run)), "")


def starting_weights(weights: str, dataset: Dataset, size: int) -> str:
    """What "auto" means for images of ``size`` pixels: ImageNet's weights for photos, none for small pictures and for
    sample data, which needs nothing from elsewhere."""
    if weights != "auto":
        return weights
    sample_data = dataset.train[0].image.startswith(samples.PREFIX)
    if size > SMALL_IMAGE and not sample_data:
        return "imagenet"
    why = "sample data" if sample_data else f"small images, input of {size} px"
    tell(f"{why}: training from scratch (ImageNet weights are for photos: --weights)")
    return "none"


def train_spec(
    dataset: Dataset, spec: ModelSpec, weights: str, options: TrainOptions
) -> tuple[TrainResult, WeightsInfo | None]:
    """Train a network on an opened data set, from ``weights``: "none", "imagenet" or a file."""
    torch.manual_seed(options.run_seed)  # of the layers that start from random weights
    task = task_named(dataset.task)
    spec = with_classes(spec, dataset.classes)
    model, info = (build(spec), None) if weights == "none" else load_whole(spec, weights)
    if info:
        tell(f"weights: {info.source or info.path}" + (f" ({info.licence})" if info.licence else ""))
        if model.spec.backbone.folded or has_identity_norms(model):
            tell("these weights came folded: BatchNorm is put back with statistics of the training images")
            model = unfold(model.eval(), normalised(sample(dataset.train, UNFOLD_IMAGES), model)).train()
    counts = len(dataset.train), len(dataset.classes)
    recipe = options.recipe_for(*counts, pretrained=info is not None, task=dataset.task)
    outside = warnings(options, recipe, *counts, pretrained=info is not None) if dataset.task == "classify" else ()
    for text in outside:
        tell(f"warning: {text}")
    check_fit(recipe, dataset)
    _refuse(recipe, info is not None)
    with_teachers(task, spec, replace(recipe, device="cpu"))  # what is wrong with them is said at once
    name = options.name or spec.backbone.name
    run = Path(distributed.from_first(lambda: bytes(create_run(options.project, task.name, name))).decode())
    result = finished(show(fit(model, task, dataset, recipe, run)), weights)
    return replace(result, warnings=outside), info


def _refuse(recipe: Recipe, pretrained: bool) -> None:
    """Raise ConfigurationError for a recipe that keeps what was learned before, where there is nothing."""
    keeps = {"fold_bn": recipe.fold_bn, "frozen_bn": recipe.frozen_bn, "freeze": recipe.freeze > 0}
    if not pretrained and any(keeps.values()):
        names = " and ".join(name for name, used in keeps.items() if used)
        raise ConfigurationError(
            f"{names}: keeps what was learned before, but training starts from random weights; "
            "leave it out, or name weights (--weights imagenet, or a file)"
        )


def finished(stopped: Stopped, weights: str) -> TrainResult:
    """The result of a run that started from ``weights``."""
    return TrainResult(
        run=stopped.run,
        metric=stopped.metric,
        value=stopped.best,
        epoch=stopped.best_epoch,
        reason=stopped.reason,
        seconds=stopped.seconds,
        weights=weights,
        remedies=diagnose_run(stopped.run, finished=stopped.reason != "interrupted") if distributed.first() else (),
    )
