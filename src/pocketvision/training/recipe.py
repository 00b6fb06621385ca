"""``Recipe``: everything that a training run is told, as frozen data."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from ..data.transforms import Augment
from ..errors import ConfigurationError, nearest
from ..spec.rows import check_choice

OptimizerName = Literal["sgd", "adamw", "rmsprop", "rmsprop_tf"]
ScheduleName = Literal["cosine", "exponential", "milestones", "polynomial", "constant"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run. Derive variants with ``dataclasses.replace``; papers' runs are functions that return one.

    Learning rate: ``lr`` is the highest, for ``batch`` images a step; the head's is ``head_lr`` times it, that of each
    stage of the backbone (layers of equal output stride) ``layer_decay`` times the next one's (arXiv:1801.06146 §3.2).
    The first ``freeze`` stages do not train, nor do their BatchNorms. After a linear warm-up of ``warmup_epochs``,
    ``schedule`` is a cosine from lr to ``final_lr`` x lr; lr x ``decay`` every ``decay_epochs`` (in steps, or smoothly
    without ``staircase``); lr x ``decay`` at each epoch of ``milestones``; lr x (1 - progress) ^ ``power``; or lr.
    ``lr_noise``: from 42% to 90% of the run, each epoch's rate is multiplied by 1 + a normal number, drawn again until
    it is within this distance of 0 (timm's, with 0.67; FACTS T11).

    Optimiser: ``momentum`` is of SGD and RMSProp; ``rms_decay`` and ``rms_eps`` are RMSProp's with TensorFlow's
    meaning. "rmsprop_tf" is TensorFlow's RMSProp, "rmsprop" PyTorch's with the root of ``rms_eps`` (FACTS T3, C-9).
    ``weight_decay``: decoupled for AdamW, an L2 gradient for the others, annealed on a cosine to
    ``final_weight_decay`` where that is given (FACTS T13); BatchNorm and biases have none unless ``decay_norms``.
    ``clip_norm``: longest gradient.

    Regularisation: ``dropout`` of the head; ``drop_path``: share of samples for which the last residual block is left
    out, from 0 in the first rising by the block (arXiv:1603.09382); ``mixup``: alpha of the beta distribution
    (arXiv:1710.09412). ``train_scale``: side of the training images as a share of the network's input; random crops
    show things larger than the evaluation does, and smaller training images even that out and save time
    (arXiv:1906.06423 §3). ``progressive``: stages (start, train_scale, strength), the start as a share of the run,
    the strength multiplying that of ``augment`` (FACTS T14).

    Averages: ``ema`` is the highest decay a step of the averaged weights, which are then what is evaluated and kept;
    ``average_best``: after the last epoch, so many of the newest record epochs are averaged, and kept if not worse
    (FACTS T8). Distillation: with ``teachers`` (run folders or weights files of networks with the same classes), the
    targets are the mean of their probabilities at ``temperature``, and ``hard_labels`` the share of the labels'
    own loss; 0 is MEAL-V2's way (arXiv:2009.08453 §3, FACTS K1).

    BatchNorm: ``bn_momentum`` is the weight of a new batch in the running statistics (MobileNetV3's 0.01 needs some 300
    steps to forget its start); with ``frozen_bn`` they stay, as in evaluation, and cost no time. With
    ``fold_bn`` the network trains, and stays, without it: folded into the convolutions. None for ``bn_momentum`` and
    ``dropout``: as the network says. ``sync_bn``: of several processes each normalises with the whole batch's mean and
    variance, as one process would, not with its part's. ``head_first``: before the first step the last layer is fitted
    to the features of the frozen backbone (``training.head``).

    The run: ``patience``: stop after so many epochs without a better one; 0: never. ``time_limit_s``: fewer steps than
    ``epochs`` says, so that the schedule ends by then. ``amp``: bfloat16 autocast; None: on CUDA yes, on a CPU no,
    because channels_last float32 is as fast there (``benchmarks/training.md``). ``save_every_s``: seconds between
    checkpoints within an epoch. ``workers``: processes that read images; 0: none beside the training process.
    """

    epochs: int = 20
    batch: int = 32
    optimizer: OptimizerName = "sgd"
    lr: float = 0.01
    head_lr: float = 1.0
    layer_decay: float = 1.0
    freeze: int = 0
    momentum: float = 0.9
    nesterov: bool = True
    rms_decay: float = 0.9
    rms_eps: float = 1e-3
    weight_decay: float = 1e-4
    final_weight_decay: float | None = None
    decay_norms: bool = False
    schedule: ScheduleName = "cosine"
    warmup_epochs: float = 1.0
    final_lr: float = 0.0
    decay: float = 0.98
    decay_epochs: float = 1.0
    staircase: bool = True
    milestones: tuple[float, ...] = ()
    power: float = 0.9
    lr_noise: float = 0.0
    label_smoothing: float = 0.1
    dropout: float | None = None
    drop_path: float = 0.0
    mixup: float = 0.0
    ema: float | None = None
    average_best: int = 0
    augment: Augment = field(default_factory=Augment)
    train_scale: float = 1.0
    progressive: tuple[tuple[float, float, float], ...] = ()
    teachers: tuple[str, ...] = ()
    temperature: float = 1.0
    hard_labels: float = 0.0
    bn_momentum: float | None = None
    frozen_bn: bool = False
    fold_bn: bool = False
    head_first: bool = False
    sync_bn: bool = True
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
        if self.freeze == _STAGES and self.head_lr == 0:
            raise ConfigurationError(f"freeze={_STAGES} and head_lr=0 leave nothing to train; nearest valid: head_lr=1")
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0:
            raise ConfigurationError("nesterov=True needs a momentum above 0; nearest valid: nesterov=False")
        if list(self.milestones) != sorted(self.milestones) or any(epoch <= 0 for epoch in self.milestones):
            raise ConfigurationError(f"milestones={list(self.milestones)} must be rising epochs above 0, like [16, 22]")
        self._check_progressive()

    def _check_progressive(self) -> None:
        """Raise ConfigurationError unless there are no stages, or the first starts at 0 and the others rise."""
        starts = [start for start, _, _ in self.progressive]
        if starts and (starts != sorted(set(starts)) or starts[0] != 0 or starts[-1] >= 1):
            raise ConfigurationError(f"progressive: the stages start at {starts}; valid: 0, then rising below 1")
        for _, scale, strength in self.progressive:
            _check_range("train_scale", scale, *_RANGES["train_scale"])
            _check_range("strength", strength, 0, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        return json.loads(json.dumps(asdict(self)))

    def train_size(self, size: int, scale: float | None = None) -> int:
        """Side of the training images in pixels for an input of ``size``: ``scale`` of it, to a multiple of 32."""
        scale = self.train_scale if scale is None else scale
        return size if scale == 1 else min(size, max(32, round(size * scale / 32) * 32))

    def stage(self, progress: float) -> tuple[float, Augment]:
        """The scale of the training images and their augmentation at ``progress`` (0 to 1) of the run."""
        scale, strength = self.train_scale, 1.0
        for start, *values in self.progressive:
            if progress >= start:
                scale, strength = values
        return scale, replace(self.augment, strength=self.augment.strength * strength)

    def to_yaml(self) -> str:
        """The text of ``args.yaml``: one field per line, in the order of the class."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


_STAGES = 5  # of a backbone
_TINY = 1e-12  # stands for "above 0" as the lower end of a range
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 100_000),
    "batch": (2, 1_000_000),  # BatchNorm cannot train on one image
    "lr": (_TINY, 1e3),
    "head_lr": (0, 1e3),
    "momentum": (0, 0.9999),
    "rms_decay": (0, 0.999999),
    "rms_eps": (1e-30, 1e3),
    "layer_decay": (0.01, 1),
    "freeze": (0, _STAGES),
    "weight_decay": (0, 1),
    "final_weight_decay": (0, 1),
    "warmup_epochs": (0, 100_000),
    "final_lr": (0, 1),
    "decay": (_TINY, 1),
    "decay_epochs": (_TINY, 100_000),
    "power": (0.01, 100),
    "lr_noise": (0, 0.99),
    "label_smoothing": (0, 0.9),
    "dropout": (0, 0.99),
    "drop_path": (0, 0.99),
    "mixup": (0, 100),
    "average_best": (0, 100),
    "temperature": (0.01, 100),
    "hard_labels": (0, 1),
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
    if get_origin(kind) is tuple:
        _check_tuple(name, value, get_args(kind))
        return
    kinds = get_args(kind) or (kind,)
    if all(isinstance(choice, str) for choice in kinds):
        return  # a Literal, which check_choice looks at
    if float in kinds and isinstance(value, int | float) and type(value) is not bool and math.isfinite(value):
        return
    if not any(type(value) is choice for choice in kinds) or isinstance(value, float):
        words = " or ".join("nothing (null)" if choice is NoneType else choice.__name__ for choice in kinds)
        raise ConfigurationError(f"{name}={value!r} must be {words}; nearest valid: {name}={_DEFAULTS.get(name)!r}")


def _check_tuple(name: str, value: object, kinds: tuple[Any, ...]) -> None:
    """``_check_type`` of each element of ``value``: tuple[kind, ...] or tuple[kind, kind, kind]."""
    if not isinstance(value, tuple) or (Ellipsis not in kinds and len(value) != len(kinds)):
        count = "a list" if Ellipsis in kinds else f"a list of {len(kinds)} values"
        raise ConfigurationError(f"{name}={value!r} must be {count}; nearest valid: {name}=[]")
    for number, element in enumerate(value):
        _check_type(f"{name}[{number}]", element, kinds[0 if Ellipsis in kinds else number])


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
    values = {name: _as_tuples(value) for name, value in values.items()}
    if "augment" in values:
        augment = _known(values["augment"], Augment, "augment")
        augment = {name: _as_tuples(value) for name, value in augment.items()}
        try:
            values["augment"] = Augment(**augment)
        except TypeError:
            raise ConfigurationError(f"augment={augment} holds a value of a wrong type; valid: {Augment()}") from None
    return Recipe(**values)


def _as_tuples(value: Any) -> Any:
    """Lists, which JSON and YAML have instead, as tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def from_yaml(text: str) -> Recipe:
    """The recipe of an ``args.yaml``. Raises ConfigurationError for anything else."""
    try:
        data = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigurationError(f"the recipe is not YAML: {where}{getattr(error, 'problem', error)}") from None
    return from_dict(data)


class _Yaml(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as YAML 1.2 and everybody else has it; in PyYAML's 1.1 it is a text."""


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_Yaml.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def parse_yaml(text: str) -> Any:
    """The plain values of a YAML text. Raises yaml.YAMLError."""
    return yaml.load(text, _Yaml)  # noqa: S506  it is a SafeLoader


def _known(data: object, kind: type, what: str) -> dict[str, Any]:
    """``data`` as a dict that has only fields of ``kind``."""
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"{what} must be fields and values like 'epochs: 20', not {data!r:.60}")
    names = [f.name for f in fields(kind)]
    for name in data:
        if name not in names:
            raise ConfigurationError(f"{what} has no field {name!r}; {nearest(name, names)}")
    return dict(data)
