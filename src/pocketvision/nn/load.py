"""A model with weights, and a model as a file."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..errors import WeightsError
from ..files import write_bytes
from ..spec.heads import ClassifierHead
from ..spec.model import ModelSpec, to_json
from ..zoo.keymaps import COUNTER, first
from ..zoo.weights import Weights, WeightsInfo, load
from .model import Model, build
from .rounding import Rounding, ranges_in

CLASSIFIER = "head.linear"


def create_model(spec: ModelSpec, weights: str | Path | None = None) -> Model:
    """The network of ``spec`` in train mode: randomly initialised, or with ``weights`` ("imagenet", or a file)."""
    return build(spec) if weights is None else load_model(spec, weights)[0]


def load_model(spec: ModelSpec | None, source: str | Path) -> tuple[Model, WeightsInfo]:
    """A model in train mode with weights of ``source``, and what is to be known of them.

    ``model.spec`` has the padding, BatchNorm epsilon, preprocessing and class names of the weights. Another number
    of classes than the file's, or other names, leave the classifier at its initialisation (``info.classifier``); a head
    that the file has not, such as a detector's in a classifier's file, stays at its initialisation (``info.head``).
    ``spec=None``: the network that the file itself describes, with the ranges of int8 that it was trained with. See
    ``zoo.weights.load``. Raises WeightsError.
    """
    weights = load(spec, source)
    ranges = ranges_in(weights.state)
    model, info = _loaded(spec, weights)
    if spec is None and ranges:
        model.rounding = Rounding(ranges)
    return model, info


def _loaded(spec: ModelSpec | None, weights: Weights) -> tuple[Model, WeightsInfo]:
    if not isinstance(weights.spec.head, ClassifierHead) or not weights.info.head:
        model = build(weights.spec)
        _fill(model, weights.state, weights)
        return model, weights.info
    state, labels = weights.state, imagenet_labels() if weights.labels is None else weights.labels
    classes = len(state[f"{CLASSIFIER}.weight"]) if f"{CLASSIFIER}.weight" in state else 0
    if spec is None and classes:
        weights = replace(weights, spec=_with_labels(weights.spec, labels, classes))
    wanted = weights.spec
    same_names = not wanted.labels or not labels or wanted.labels == labels
    if keep := classes == wanted.head.classes and same_names:
        wanted = _with_labels(wanted, wanted.labels or labels, classes)
    else:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(CLASSIFIER)}
    model = build(wanted)
    _fill(model, state, weights)
    return model, replace(weights.info, classifier=keep)


def _with_labels(spec: ModelSpec, labels: tuple[str, ...], classes: int) -> ModelSpec:
    labels = labels if len(labels) == classes else ()
    return replace(spec, head=replace(spec.head, classes=classes), labels=labels)


def _fill(model: Model, state: dict[str, Tensor], weights: Weights) -> None:
    """Load ``state`` where names and shapes are right; what stays fresh and BatchNorm's counters may be absent."""
    own, path = model.state_dict(), weights.info.path
    absent = own.keys() - state.keys()
    missing = [name for name in absent if not name.startswith(weights.fresh) and COUNTER not in name]
    extra = sorted(state.keys() - own.keys())
    if missing or extra:
        raise WeightsError(
            f"{path} does not fit {model.spec.backbone.name}: it lacks {first(sorted(missing))} and has unknown "
            f"{first(extra)}; expected {len(own)} tensors, {first(own)}"
        )
    wrong = [name for name in state if state[name].shape != own[name].shape]
    if wrong:
        name = wrong[0]
        raise WeightsError(
            f"{path} does not fit {model.spec.backbone.name}: {len(wrong)} tensors have other shapes, first {name} "
            f"{list(state[name].shape)}, expected {list(own[name].shape)}; give the width and variant of the weights"
        )
    model.load_state_dict(state, strict=False)


def save_model(model: Model, path: str | Path) -> Path:
    """Write weights and spec to one safetensors file, whole or not at all; ``load_model(None, path)`` reads it."""
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return write_bytes(path, save(state, metadata={"spec": to_json(model.spec)}))


def imagenet_labels() -> tuple[str, ...]:
    """The 1000 class names in the order that every published classifier has."""
    from torchvision.models import MobileNet_V2_Weights

    return tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])
