"""A run in memory: what one step, one evaluation, one checkpoint do."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..data.loader import Batch, ImageLoader
from ..data.sources import Dataset
from ..errors import ConfigurationError, DataError, TrainingError, WeightsError
from ..nn.blocks import InvertedResidualBlock
from ..nn.layers import Normalize
from ..nn.load import save_model
from ..nn.model import Model
from ..spec.cost import cost
from ..spec.heads import task_of
from ..spec.model import ModelSpec
from ..tasks import Task
from ..tasks.distillation import Distillation, make_teacher
from . import checkpoint, distributed
from .checkpoint import Progress, Snapshot
from .fitting import check_fit, check_teacher
from .memory import keep_freed_memory
from .optim import EMA, make_optimizer, set_rates
from .recipe import Recipe
from .schedule import learning_rate, weight_decay
from .sync_batchnorm import synchronise

# MobileNetV3-Small at 32 pixels, batch 32 (42 million): 29 ms of processor time a step with one thread, 166 with two on
# two busy cores
ONE_THREAD_MADDS = 200_000_000


@dataclass(slots=True)
class Clock:
    """Wall-clock time of this session. ``step_s``, ``evaluation_s``: seconds for a training step, an evaluation."""

    before_s: float  # of earlier sessions of the run
    step_s: float = 0.0
    evaluation_s: float | None = None
    _start: float = 0.0
    _marked: tuple[float, int] = (0.0, 0)

    def __post_init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Seconds of all sessions of the run."""
        return self.before_s + time.monotonic() - self._start

    def mark(self, step: int) -> None:
        """Measure steps from here."""
        self._marked = (time.monotonic(), step)

    def lap(self, step: int) -> float:
        """Seconds per step since the mark; unchanged when there was none."""
        since, first = self._marked
        if step > first:
            self.step_s = (time.monotonic() - since) / (step - first)
        return self.step_s


@dataclass(slots=True)
class Training:
    """A run in memory."""

    model: Model
    task: Task
    recipe: Recipe
    run: Path
    optimizer: Optimizer
    ema: EMA[Model] | None
    normalize: Normalize
    batches: ImageLoader
    val_batches: ImageLoader | None
    progress: Progress
    clock: Clock

    @property
    def evaluated(self) -> Model:
        """The weights that are evaluated and kept: the averaged ones where there are."""
        return self.ema.model if self.ema else self.model

    @property
    def images_per_step(self) -> float:
        """Images in a step, on average over an epoch."""
        return min(self.recipe.batch, len(self.batches.items) / len(self.batches))

    def train_mode(self) -> None:
        """Switch the model to training, but not what the recipe freezes."""
        self.model.train()
        frozen = self.model if self.recipe.frozen_bn else nn.ModuleList(frozen_rows(self.model, self.recipe))
        for module in frozen.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def epoch_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The training batches of ``epoch`` from number ``start`` on, as the recipe's stage of the run has them."""
        scale, augment = self.recipe.stage(epoch * len(self.batches) / self.progress.steps)
        size = self.recipe.train_size(self.model.spec.preprocessing.size, scale)
        return self.batches.at(size, augment).epoch(epoch, start)

    def inputs(self, batch: Batch) -> Tensor:
        """Normalised images [B, 3, S, S] on the device."""
        x_BCHW = self.normalize(batch.images.to(self.recipe.device))
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        return x_BCHW.contiguous(memory_format=layout)

    def step(self, batch: Batch) -> tuple[float, float]:
        """One step; returns its loss and learning rate. Raises TrainingError for a loss that is not finite."""
        recipe, progress = self.recipe, self.progress
        seed = np.random.SeedSequence([recipe.seed, progress.step, distributed.rank()]).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0]))
        lr = learning_rate(progress.step, recipe, len(self.batches), progress.steps)
        set_rates(self.optimizer, lr, weight_decay(progress.step, recipe, progress.steps))
        boxes = tuple(truth.to(recipe.device) for truth in batch.boxes)
        masks = tuple(mask.to(recipe.device) for mask in batch.masks)
        batch = replace(mixed(batch, recipe.mixup), boxes=boxes, masks=masks)
        with torch.autocast(recipe.device, torch.bfloat16, enabled=bool(recipe.amp)):
            outputs = self.model(self.inputs(batch), boxes)
        loss = self.task.loss(outputs, batch, recipe)
        value, images = distributed.backward(loss, len(batch.items), self.model)
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}")
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.model, progress.step)
        progress.step += 1
        progress.loss_sum += value * images
        progress.images += images
        return value, lr

    @torch.inference_mode()
    def evaluate(self, model: Model | None = None) -> dict[str, float]:
        """The task's metrics on the validation images, in float32; {} when there are none."""
        if self.val_batches is None:
            return {}
        start, meter, model = time.monotonic(), self.task.meter(), (model or self.evaluated).eval()
        for batch in self.val_batches.epoch():
            meter.update(model(self.inputs(batch)), batch)
        meter.merge(distributed.gathered)
        self.clock.evaluation_s = time.monotonic() - start
        return meter.compute()

    def plan(self) -> None:
        """Fit the number of steps to the time limit, if there is one, at the speed that the clock has measured.

        The plan is part of the checkpoint, so that a resumed run has the same learning rates.
        """
        if self.recipe.time_limit_s is not None and self.clock.step_s:
            self.progress.steps = distributed.number_of_first(self._steps_within(self.recipe.time_limit_s))

    def _steps_within(self, limit_s: float) -> int:
        progress, clock = self.progress, self.clock
        evaluation_s = clock.evaluation_s
        if evaluation_s is None:  # not yet measured; a forward pass is about a third of a training step
            evaluation_s = clock.step_s / 3 * len(self.val_batches or ())
        left_s = limit_s - clock.seconds() - evaluation_s
        left = max(0, int(left_s / (clock.step_s + evaluation_s / len(self.batches))))
        return min(progress.step + left, self.recipe.epochs * len(self.batches))

    def save(self, *, best: bool = False) -> Path:
        """Write the newest weights, then the state: a run resumed after a kill in between writes the weights again.

        Of several processes the first one writes.
        """
        for name, tensor in self.model.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                raise self._diverged(f"{name} is no longer finite")
        if not distributed.first():
            return self.run / checkpoint.STATE
        self.progress.seconds = self.clock.seconds()
        if best:
            save_model(self.evaluated, self.run / checkpoint.BEST)
        save_model(self.evaluated, self.run / checkpoint.LAST)
        tensors = checkpoint.model_tensors(self.model, "model.")
        tensors |= checkpoint.optimizer_tensors(self.optimizer, self.model)
        if self.ema:
            tensors |= checkpoint.model_tensors(self.ema.model, "ema.")
        snapshot = Snapshot(self.model.spec, self.recipe, self.task.name, self.progress, tensors)
        return checkpoint.write_state(self.run, snapshot)

    def _diverged(self, what: str) -> TrainingError:
        step, recipe = self.progress.step, self.recipe
        tries = [f"a lower learning rate (lr={recipe.lr / 10:g}, now {recipe.lr:g})"]
        tries += [] if recipe.clip_norm else ["clip_norm=1"]
        tries += ["amp=False"] if recipe.amp else []
        return TrainingError(
            f"training diverged: {what} at step {step} (epoch {step // len(self.batches) + 1}); the last good weights "
            f"are kept in {self.run / checkpoint.LAST}; try {' or '.join(tries)}"
        )


def with_teachers(task: Task, spec: ModelSpec, recipe: Recipe) -> Task:
    """``task``, taught by the recipe's teachers where it has some.

    Raises WeightsError for one that cannot be read, ConfigurationError for one that cannot teach the network ``spec``.
    """
    for path in recipe.teachers:
        if not Path(path).exists():
            raise WeightsError(
                f"the teacher {path} is not there; put it back, or start a new run with another (--teacher RUN)"
            )
    models = [checkpoint.load_model(path) for path in recipe.teachers]
    for model in models:
        check_teacher(model.spec, spec)
    teachers = tuple(make_teacher(model, spec.labels, recipe.device) for model in models)
    return Distillation(task, teachers) if teachers else task


def mixed(batch: Batch, alpha: float) -> Batch:
    """Each image blended with the one as far from the batch's other end (arXiv:1710.09412 §2); ``alpha`` 0: as it is.

    The share comes from torch's global generator. Pixels become float32, still from 0 to 255.
    """
    if not alpha:
        return batch
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    images = batch.images.float()
    return replace(batch, images=torch.lerp(images.flip(0), images, share), mixed=(batch.labels.flip(0), 1 - share))


def frozen_rows(model: Model, recipe: Recipe) -> list[nn.Module]:
    """The rows of the backbone that do not train."""
    stages = zip(model.backbone.rows, model.backbone.stages, strict=True)
    return [row for row, stage in stages if stage <= recipe.freeze]


def configure(model: Model, recipe: Recipe) -> None:
    """Set what the recipe says of the layers: dropout, drop path, BatchNorm's momentum, frozen rows."""
    blocks = [m for m in model.modules() if isinstance(m, InvertedResidualBlock) and m.joins_bottlenecks]
    if recipe.drop_path and not blocks:
        raise ConfigurationError(
            f"drop_path={recipe.drop_path:g}: {model.spec.backbone.name} has no block with a shortcut to leave out; "
            "nearest valid: drop_path=0"
        )
    for number, block in enumerate(blocks, 1):
        block.drop_path = recipe.drop_path * number / len(blocks)
    for module in model.modules():
        if isinstance(module, nn.Dropout) and recipe.dropout is not None:
            module.p = recipe.dropout
        if isinstance(module, nn.BatchNorm2d) and recipe.bn_momentum is not None:
            module.momentum = recipe.bn_momentum
    for row in frozen_rows(model, recipe):
        row.requires_grad_(False)


@contextmanager
def suitable_threads(spec: ModelSpec, recipe: Recipe) -> Iterator[None]:
    """One torch thread for steps so small that handing work to a second one costs more than it saves."""
    before = torch.get_num_threads()
    if recipe.device == "cpu" and cost(spec).madds * recipe.batch < ONE_THREAD_MADDS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare(model: Model, task: Task, data: Dataset, recipe: Recipe, run: Path) -> Training:
    """A run at its first step; moves ``model`` to the recipe's device and memory layout."""
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device=cuda: torch finds no CUDA device here; nearest valid: device=cpu")
    if len(data.train) < 2:
        raise DataError(f"{data.name}: {len(data.train)} training images; BatchNorm needs at least 2, add images")
    if len(data.classes) != model.spec.head.classes:
        raise ConfigurationError(
            f"the model has {model.spec.head.classes} classes, {data.name} has {len(data.classes)}; "
            "build the model with as many as the data has"
        )
    if (kind := task_of(model.spec.head)) != data.task:
        raise ConfigurationError(
            f"the network is made to {kind}, {data.name} is to {data.task}; give it a head for that, or other data"
        )
    check_fit(recipe, data)
    if recipe.batch < 2 * distributed.world():
        raise ConfigurationError(
            f"batch={recipe.batch} is too small for {distributed.world()} processes, of which each needs 2 images; "
            f"nearest valid: batch={2 * distributed.world()}"
        )
    distributed.use_device(recipe.device)
    distributed.same_as_first(model.state_dict().values())
    if recipe.sync_bn and distributed.world() > 1:
        synchronise(model)
    if recipe.device == "cpu":
        keep_freed_memory()
    configure(model, recipe)
    model.to(recipe.device)
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    p, batch, workers = model.spec.preprocessing, recipe.batch, recipe.workers
    share = distributed.rank(), distributed.world()
    augment, seed = recipe.augment, recipe.seed
    batches = ImageLoader(data.train, p, batch=batch, augment=augment, seed=seed, workers=workers, share=share)
    return Training(
        model=model,
        task=with_teachers(task, model.spec, recipe),
        recipe=recipe,
        run=run,
        optimizer=make_optimizer(model, recipe),
        ema=EMA(model, recipe.ema) if recipe.ema else None,
        normalize=Normalize(p).to(recipe.device),
        batches=batches,
        val_batches=ImageLoader(data.val, p, batch=batch, workers=workers, share=share) if data.val else None,
        progress=Progress(steps=recipe.epochs * len(batches)),
        clock=Clock(0.0),
    )
