"""What a user may say about a training run, on the command line or in Python."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigurationError, nearest
from ..spec.transform import WidthRule
from ..training.recipe import Device, Recipe
from ..training.recipes import finetune, scratch

RECIPES = ("auto", "finetune", "scratch")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Options of a training run; None leaves a value to the recipe.

    ``weights``: "auto" (ImageNet's for photos, none for images of less than 64 pixels), "imagenet", "none", or a file.
    ``imgsz``: side of the input in pixels. ``minutes``: limit for the training. ``project``: folder for run folders.
    """

    weights: str = "auto"
    width: float = 1.0
    width_rule: WidthRule = "torchvision"
    recipe: Literal["auto", "finetune", "scratch"] = "auto"
    imgsz: int | None = None
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    minutes: float | None = None
    patience: int | None = None
    device: Device = "auto"
    workers: int | None = None
    seed: int = 0
    project: Path = Path("runs")
    name: str | None = None

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ConfigurationError(f"recipe {self.recipe!r} is unknown; {nearest(self.recipe, RECIPES)}")

        if self.name is not None and (not self.name or self.name in (".", "..") or set(self.name) & set("/\\")):
            raise ConfigurationError(f"name={self.name!r} must be a plain name, without / or \\; --project says where")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigurationError(f"time={self.minutes:g} minutes must be above 0, or be left out for no limit")

    def check(self) -> None:
        """Raise ConfigurationError for a value that no training could use, before any work is done."""
        self.recipe_for(1000, 10, pretrained=True)
        place = next(path for path in (self.project.absolute(), *self.project.absolute().parents) if path.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise ConfigurationError(f"cannot write to {place}, where run folders would go; name another (--project)")

    def recipe_for(self, images: int, classes: int, *, pretrained: bool) -> Recipe:
        """The recipe for a data set of ``images`` training images, with what the user chose instead.

        Raises ConfigurationError for a value out of range.
        """
        tuned = self.recipe == "finetune" or (self.recipe == "auto" and pretrained)
        recipe = (finetune if tuned else scratch)(images, classes)
        chosen: dict[str, Any] = {
            "epochs": self.epochs,
            "batch": self.batch,
            "lr": self.lr,
            "time_limit_s": None if self.minutes is None else 60 * self.minutes,
            "patience": self.patience,
            "workers": self.workers,
        }
        given = {name: value for name, value in chosen.items() if value is not None}
        return replace(recipe, device=self.device, seed=self.seed, **given)
