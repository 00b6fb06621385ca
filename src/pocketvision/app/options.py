"""What a user may say about a training run, on the command line or in Python."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigurationError, nearest
from ..spec.heads import TaskName
from ..spec.transform import WidthRule
from ..training.fitting import WORDS
from ..training.recipe import Device, Recipe, from_dict, from_yaml, parse_yaml
from ..training.recipes import OF_PAPERS, SMALL, SMALL_DATA
from .network import HAS, HeadName

# Recipes by name, and what they are for.
NAMED: dict[str, TaskName] = {name: task for task, recipes in OF_PAPERS.items() for name in recipes}
RECIPES = ("auto", *SMALL_DATA, *NAMED)


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Options of a training run; None leaves a value to the recipe.

    ``weights``: "auto" (ImageNet's for photos, none for images of less than 64 pixels), "imagenet", "none", or a file.
    ``recipe``: "auto" (finetune from weights, else scratch), a name of ``training.recipes``, the path of a YAML file
    such as a run's args.yaml, or a Recipe. ``settings``: its fields, like "ema=0.99" or "augment.policy=randaugment".
    ``teachers``: runs or weights files that the network learns from. ``imgsz``: side of the input in pixels.
    ``head``: "auto" (SSDLite where the data has boxes, LR-ASPP where it has masks) or one of ``app.network.HEADS``.
    ``output_stride``: 8, 16 or 32, of the backbone below a head of segmentation; None: 16.
    ``minutes``: limit for the training. ``seed``: of every random choice; None: the recipe's, which is 0 unless it says
    otherwise. ``project``: folder for run folders.
    ``allow_leak``: train although pictures of the training images are among those that judge.
    """

    weights: str = "auto"
    head: HeadName = "auto"
    output_stride: int | None = None
    width: float = 1.0
    width_rule: WidthRule = "torchvision"
    recipe: str | Recipe = "auto"
    settings: tuple[str, ...] = ()
    teachers: tuple[str | Path, ...] = ()
    imgsz: int | None = None
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    minutes: float | None = None
    patience: int | None = None
    device: Device = "auto"
    workers: int | None = None
    seed: int | None = None
    project: Path = Path("runs")
    name: str | None = None
    allow_leak: bool = False

    def __post_init__(self) -> None:
        if self.name is not None and (not self.name or self.name in (".", "..") or set(self.name) & set("/\\")):
            raise ConfigurationError(f"name={self.name!r} must be a plain name, without / or \\; --project says where")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigurationError(f"time={self.minutes:g} minutes must be above 0, or be left out for no limit")

    def check(self) -> None:
        """Raise ConfigurationError for a value that no training could use, before any work is done."""
        _ = self._some_recipe
        place = next(path for path in (self.project.absolute(), *self.project.absolute().parents) if path.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise ConfigurationError(f"cannot write to {place}, where run folders would go; name another (--project)")

    def recipe_for(self, images: int, classes: int, *, pretrained: bool, task: TaskName = "classify") -> Recipe:
        """The recipe for a data set of ``images`` training images, with what the user chose instead.

        Raises ConfigurationError for a value out of range.
        """
        recipe = self._named_recipe(images, classes, pretrained, task)
        chosen: dict[str, Any] = {
            "epochs": self.epochs,
            "batch": self.batch,
            "lr": self.lr,
            "time_limit_s": None if self.minutes is None else 60 * self.minutes,
            "patience": self.patience,
            "workers": self.workers,
            "seed": self.seed,
        }
        given = {name: value for name, value in chosen.items() if value is not None}
        if self.teachers:
            given["teachers"] = tuple(str(Path(teacher).absolute()) for teacher in self.teachers)
        device = recipe.device if self.device == "auto" else self.device
        result = replace(_with_settings(recipe, self.settings), device=device, **given)
        published = isinstance(self.recipe, str) and self.recipe in NAMED
        if published and result.lr == recipe.lr and self.lr is None:
            return replace(result, lr=recipe.lr * (result.batch / recipe.batch))  # arXiv:1706.02677 §2.1
        return result

    @property
    def run_seed(self) -> int:
        """The seed of the run that these options describe, which draws the validation images too."""
        return self._some_recipe.seed

    @property
    def run_teachers(self) -> tuple[str, ...]:
        """The teachers of that run."""
        return self._some_recipe.teachers

    @property
    def _some_recipe(self) -> Recipe:
        """The recipe for some data set of the task that it is for."""
        task = NAMED.get(self.recipe, "classify") if isinstance(self.recipe, str) else "classify"
        return self.recipe_for(1000, 10, pretrained=True, task=task)

    def _named_recipe(self, images: int, classes: int, pretrained: bool, task: TaskName) -> Recipe:
        if isinstance(self.recipe, Recipe):
            return self.recipe
        small, published = SMALL[task], OF_PAPERS[task]
        if self.recipe == "auto":
            return small["finetune" if pretrained else "scratch"](images, classes)
        if self.recipe in small:
            return small[self.recipe](images, classes)
        if self.recipe in published:
            return published[self.recipe]()
        if self.recipe in NAMED:
            what, valid = WORDS[NAMED[self.recipe]], ", ".join(("auto", *small, *published))
            raise ConfigurationError(f"recipe {self.recipe!r} is for {what}, the data {HAS[task]}; valid: {valid}")
        try:
            return from_yaml(Path(self.recipe).read_text(encoding="utf-8"))
        except (FileNotFoundError, IsADirectoryError):
            hint = nearest(self.recipe, RECIPES)
            raise ConfigurationError(f"recipe {self.recipe!r} is neither a file nor a known name; {hint}") from None
        except (OSError, UnicodeDecodeError, ConfigurationError) as error:
            raise ConfigurationError(f"{self.recipe}: {error}") from None


def _with_settings(recipe: Recipe, settings: tuple[str, ...]) -> Recipe:
    """``recipe`` with fields set by words like "ema=0.99", "augment.flip=0" or "progressive=[[0, 0.7, 0.5]]"."""
    data = recipe.to_dict()
    for setting in settings:
        name, equals, text = setting.partition("=")
        part, _, field = name.partition(".")
        try:
            value = parse_yaml(text)
        except yaml.YAMLError:
            value = text
        if not equals or (field and part != "augment"):
            raise ConfigurationError(f"{setting!r} must be FIELD=VALUE, like ema=0.99 or augment.policy=randaugment")
        if field:
            data["augment"][field] = value
        else:
            data[name] = value
    return from_dict(data)
