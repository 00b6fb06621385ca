"""`pocketvision train --qat RUN`: a finished run goes on training while it rounds as int8 does."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.sources import load_split
from ..data.transforms import load_prepared
from ..errors import ConfigurationError
from ..nn.model import Model
from ..quant.qat import check_network, prepare
from ..quant.qat import recipe as short_recipe
from ..tasks.named import task_named
from ..training.checkpoint import create_run, load_model
from ..training.loop import fit
from .choose import sample
from .options import TrainOptions
from .progress import show, tell
from .source import is_artifact, split_file
from .training import TrainResult, finished

CALIBRATION_IMAGES = 128


def train_for_int8(source: str | Path, options: TrainOptions = TrainOptions()) -> TrainResult:
    """Train a run's network for int8, on the run's own images, taught by the run itself; a new run folder.

    The recipe is ``quant.qat.recipe`` unless ``options`` names another one. Accuracies on the way are those of the
    network while it rounds. The new run's weights are float; ``export --int8`` takes the ranges that lie with them.
    Raises ConfigurationError for what is no run with its split, DataError, WeightsError or TrainingError.
    """
    if is_artifact(source) or not Path(source).exists():
        raise ConfigurationError(f"{source} is no run folder or weights file of a run, which is what --qat takes")
    options.check()
    model, split = load_model(source), split_file(source)
    check_network(model)
    images = calibration_images(source, split, model)
    assert split is not None
    dataset, task = load_split(split), task_named(load_split(split).task)
    counts = len(dataset.train), len(dataset.classes)
    options = replace(options, teachers=options.teachers or (Path(source),))
    if options.recipe == "auto":
        options = replace(options, recipe=short_recipe(*counts))
    recipe = options.recipe_for(*counts, pretrained=True, task=dataset.task)
    tell(f"int8: looking for the range of each activation on {len(images)} training images")
    rounding = prepare(model, images)
    run = create_run(options.project, task.name, options.name or f"{model.spec.backbone.name}-qat")
    return replace(finished(show(fit(rounding, task, dataset, recipe, run)), str(source)), precision="int8")


def calibration_images(source: str | Path, split: Path | None, model: Model) -> np.ndarray:
    """Up to 128 training images of a run, as the network takes them: uint8 [N, S, S, 3].

    Raises ConfigurationError where the run's split is not at hand.
    """
    if split is None:
        raise ConfigurationError(
            f"int8 needs images of the training split, which {source} does not name (no split.json); "
            "name the run's folder instead"
        )
    items = sample(load_split(split).train, CALIBRATION_IMAGES)
    return np.stack([load_prepared(item.image, model.spec.preprocessing) for item in items])
