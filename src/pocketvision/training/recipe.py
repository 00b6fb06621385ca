"""``Recipe``: everything that a training run is told, as frozen data."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints

import yaml

from ..data.transforms import Augment
from ..errors import ConfigurationError, nearest
from ..spec.rows import check_choice

OptimizerName = Literal["sgd", "adamw", "rmsprop_tf"]
ScheduleName = Literal["cosine", "exponential", "constant"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run. Derive variants with ``dataclasses.replace``; papers' runs are functions that return one.

    ``lr``: highest learning rate, for ``batch`` images a step; the head's is ``head_lr`` times it.
    ``momentum``: of SGD and RMSProp. ``rms_decay``, ``rms_eps``: RMSProp's, TensorFlow's meaning (FACTS C-9).
    ``weight_decay``: decoupled for AdamW, an L2 gradient for the others; BatchNorm and biases have none unless
    ``decay_norms``. ``schedule``: after a linear warm-up of ``warmup_epochs``, a cosine from lr to ``final_lr`` x lr,
    or lr x ``decay`` every ``decay_epochs`` (in steps, or smoothly without ``staircase``), or lr throughout.
    ``ema``: highest decay a step of the averaged weights, which are then what is evaluated and kept; None: off.
    ``train_scale``: side of the training images as a share of the network's input. Random crops show things larger than
    the evaluation does; smaller training images even that out and save time (FixRes, arXiv:1906.06423 §3).
    ``dropout`` of the head, ``bn_momentum`` (the weight of a new batch in BatchNorm's running statistics): None: as the
    network says; MobileNetV3's 0.01 needs some 300 steps to forget its start. ``frozen_bn``: BatchNorm keeps its
    statistics, as in evaluation. ``clip_norm``: longest gradient. ``patience``: stop after so many epochs without a
    better one; 0: never. ``time_limit_s``: fewer steps than ``epochs`` says, so that the schedule ends by then.
    ``amp``: bfloat16 autocast; None: on CUDA yes, on a CPU no, because channels_last float32 is as fast there
    (``benchmarks/training_step.py``). ``save_every_s``: seconds between checkpoints within an epoch. ``workers``:
    processes that read images; 0: none beside the training process.
    """

    epochs: int = 20
    batch: int = 32
    optimizer: OptimizerName = "sgd"
    lr: float = 0.01
    head_lr: float = 1.0
    momentum: float = 0.9
    nesterov: bool = True
    rms_decay: float = 0.9
    rms_eps: float = 1e-3
    weight_decay: float = 1e-4
    decay_norms: bool = False
    schedule: ScheduleName = "cosine"
    warmup_epochs: float = 1.0
    final_lr: float = 0.0
    decay: float = 0.98
    decay_epochs: float = 1.0
    staircase: bool = True
    label_smoothing: float = 0.1
    dropout: float | None = None
    ema: float | None = None
    augment: Augment = field(default_factory=Augment)
    train_scale: float = 1.0
    bn_momentum: float | None = None
    frozen_bn: bool = False
    clip_norm: float | None = None
    patience: int = 0
    time_limit_s: float | None = None
    amp: bool | None = None
    channels_last: bool = True
    device: Device = "auto"
    workers: int = 0
    save_every_s: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), kind)
        check_choice("Recipe.optimizer", self.optimizer, OptimizerName)
        check_choice("Recipe.schedule", self.schedule, ScheduleName)
        check_choice("Recipe.device", self.device, Device)
        for name, (low, high) in _RANGES.items():
            _check_range(name, getattr(self, name), low, high)
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0:
            raise ConfigurationError("nesterov=True needs a momentum above 0; nearest valid: nesterov=False")

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        return json.loads(json.dumps(asdict(self)))

    def to_yaml(self) -> str:
        """The text of ``args.yaml``: one field per line, in the order of the class."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


_TINY = 1e-12  # stands for "above 0" as the lower end of a range
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 100_000),
    "batch": (2, 1_000_000),  # BatchNorm cannot train on one image
    "lr": (_TINY, 1e3),
    "head_lr": (0, 1e3),
    "momentum": (0, 0.9999),
    "rms_decay": (0, 0.999999),
    "rms_eps": (_TINY, 1e3),
    "weight_decay": (0, 1),
    "warmup_epochs": (0, 100_000),
    "final_lr": (0, 1),
    "decay": (_TINY, 1),
    "decay_epochs": (_TINY, 100_000),
    "label_smoothing": (0, 0.9),
    "dropout": (0, 0.99),
    "ema": (0, 0.999999),
    "train_scale": (0.25, 1),
    "bn_momentum": (_TINY, 1),
    "clip_norm": (_TINY, 1e6),
    "patience": (0, 100_000),
    "time_limit_s": (1, 1e9),
    "workers": (0, 1024),
    "save_every_s": (0, 1e9),
    "seed": (0, 2**32 - 1),
}


def _check_type(name: str, value: object, kind: Any) -> None:
    """Raise ConfigurationError when ``value`` is not of the annotated type; whole numbers pass as floats."""
    kinds = get_args(kind) or (kind,)
    if all(isinstance(choice, str) for choice in kinds):
        return  # a Literal, which check_choice looks at
    if float in kinds and isinstance(value, int | float) and type(value) is not bool and math.isfinite(value):
        return
    if not any(type(value) is choice for choice in kinds) or isinstance(value, float):
        words = " or ".join("nothing (null)" if choice is NoneType else choice.__name__ for choice in kinds)
        raise ConfigurationError(f"{name}={value!r} must be {words}; nearest valid: {name}={_DEFAULTS[name]!r}")


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        lowest, valid = ("above 0", _DEFAULTS[name] or 1) if low == _TINY else (f"at least {low:g}", low)
        raise ConfigurationError(
            f"{name}={value:g} is out of range: {lowest}, at most {high:g}; "
            f"nearest valid: {name}={valid if value < low else high:g}"
        )


_DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(Recipe)} | {"augment": Augment()}


def from_dict(data: object) -> Recipe:
    """The inverse of ``Recipe.to_dict``; absent fields have their defaults.

    Raises ConfigurationError that names the nearest valid field or value.
    """
    values = _known(data, Recipe, "a recipe")
    if "augment" in values:
        augment = _known(values["augment"], Augment, "augment")
        augment |= {name: tuple(value) for name, value in augment.items() if isinstance(value, list)}
        try:
            values["augment"] = Augment(**augment)
        except TypeError:
            raise ConfigurationError(f"augment={augment} holds a value of a wrong type; valid: {Augment()}") from None
    return Recipe(**values)


def from_yaml(text: str) -> Recipe:
    """The recipe of an ``args.yaml``. Raises ConfigurationError for anything else."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"the recipe is not YAML: {error}") from None
    return from_dict(data)


def _known(data: object, kind: type, what: str) -> dict[str, Any]:
    """``data`` as a dict that has only fields of ``kind``."""
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"{what} must be fields and values like 'epochs: 20', not {data!r:.60}")
    names = [f.name for f in fields(kind)]
    for name in data:
        if name not in names:
            raise ConfigurationError(f"{what} has no field {name!r}; {nearest(name, names)}")
    return dict(data)
