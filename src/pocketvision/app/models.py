"""`pocketvision models`: what there is to train, and what it costs."""

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from ..errors import ConfigurationError, nearest
from ..spec.cost import cost
from ..spec.model import ModelSpec
from ..spec.transform import WidthRule, as_folded
from ..zoo import MODELS, model_spec
from ..zoo.weights import available


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A network in numbers, as it is trained and (``folded_...``) as it is deployed, MobileOne's branches merged.

    Multiply-adds are for one image of ``imgsz`` pixels. ``weights``: where ImageNet weights come from, "" where
    there are none on this machine.
    """

    name: str
    imgsz: int
    params: int
    madds: int
    folded_params: int
    folded_madds: int
    weights: str

    def to_dict(self) -> dict[str, Any]:
        return {field: getattr(self, field) for field in self.__slots__}


@dataclass(frozen=True, slots=True)
class ModelList:
    """Rows of facts; the JSON of a single model has its facts at the top as well."""

    models: tuple[ModelFacts, ...]

    def to_dict(self) -> dict[str, Any]:
        rows = [row.to_dict() for row in self.models]
        return (rows[0] if len(rows) == 1 else {}) | {"models": rows}

    def __str__(self) -> str:
        header = f"{'model, folded':22}{'imgsz':>6}{'params':>14}{'madds':>10}  ImageNet weights on this machine"
        lines = [
            f"{row.name:22}{row.imgsz:6}{row.folded_params:14,}{row.folded_madds / 1e6:8.1f} M  {row.weights or '-'}"
            for row in self.models
        ]
        return "\n".join([header, *lines])


def models(
    name: str | None = None,
    *,
    width: float = 1.0,
    width_rule: WidthRule = "torchvision",
    imgsz: int | None = None,
    hidden: int | None = None,
) -> ModelList:
    """Facts of all networks, of those that a pattern such as ``*v3*`` matches, of one, or of a JSON file of rows.

    Raises ConfigurationError for a name or pattern without a match, naming the nearest.
    """
    names = [name] if name and (name in MODELS or name.endswith(".json")) else _matching(name or "*")
    return ModelList(
        tuple(
            _facts(each, model_spec(each, width=width, width_rule=width_rule, imgsz=imgsz, hidden=hidden))
            for each in names
        )
    )


def _matching(pattern: str) -> list[str]:
    names = [name for name in MODELS if fnmatch(name, pattern)]
    if not names:
        raise ConfigurationError(f"unknown model {pattern!r}; {nearest(pattern, MODELS)}")
    return names


def _facts(name: str, spec: ModelSpec) -> ModelFacts:
    folded, entry = cost(as_folded(spec)), available(spec)
    return ModelFacts(
        name=name,
        imgsz=spec.preprocessing.size,
        params=cost(spec).params,
        madds=cost(spec).madds,
        folded_params=folded.params,
        folded_madds=folded.madds,
        weights=entry.source if entry else "",
    )
