"""Names of the weights in published segmenters: torchvision's, and TensorFlow's as a state dict."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import WeightsError
from ..spec.heads import DeepLabV3Head, FCNHead, LRASPPHead
from ..spec.model import ModelSpec
from .keymaps_ssd import Taken

AUX = "aux_classifier."
TENSORFLOW = {"branches.0": "aspp0", "pooled": "image_pooling", "project": "concat_projection"}


def of_both(state: dict[str, Any], spec: ModelSpec) -> tuple[dict[str, Any], ModelSpec]:
    """A state dict of torchvision's and our network, both without an auxiliary head where either has none."""
    head = spec.head
    if isinstance(head, DeepLabV3Head | FCNHead):
        if head.aux and any(name.startswith(AUX) for name in state):
            return state, spec
        spec = replace(spec, head=replace(head, aux=None))
    return {name: tensor for name, tensor in state.items() if not name.startswith(AUX)}, spec


def torchvision_masks(features: Iterable[tuple[str, str]], spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Our name of each layer and torchvision's; ``features``: the same for the classifier with this backbone."""
    head = spec.head
    for our, their in features:
        if our.startswith("backbone."):
            yield our, their.replace("features.", "backbone.", 1)
    match head:
        case LRASPPHead():
            yield from _unit("project", "classifier.cbr.0")
            yield "head.gate", "classifier.scale.1"
            yield "head.low_classes", "classifier.low_classifier"
            yield "head.high_classes", "classifier.high_classifier"
        case DeepLabV3Head():
            pooled = 1 + len(head.rates)
            for branch in range(pooled):
                yield from _unit(f"branches.{branch}", f"classifier.0.convs.{branch}.0")
            yield from _unit("pooled", f"classifier.0.convs.{pooled}.1")
            yield from _unit("project", "classifier.0.project.0")
            if head.refined:
                yield from _unit("refined", "classifier.1")
            yield "head.classes", "classifier.4"
        case FCNHead():
            yield from _unit("prediction.inner", "classifier.0")
            yield "head.prediction.classes", "classifier.4"
        case _:
            raise WeightsError(f"these are weights of a segmenter, and a {type(head).__name__} is asked for")
    if isinstance(head, DeepLabV3Head | FCNHead) and head.aux:
        yield from _unit("aux.inner", f"{AUX}0")
        yield "head.aux.classes", f"{AUX}4"


def _unit(our: str, their: str) -> Iterator[tuple[str, str]]:
    """A convolution and its BatchNorm, which follows it."""
    folder, _, place = their.rpartition(".")
    yield f"head.{our}.conv", their
    yield f"head.{our}.bn", f"{folder}.{int(place) + 1}"


def from_tensorflow(state: Mapping[str, Any], features: Mapping[str, str], spec: ModelSpec) -> dict[str, Any]:
    """The state of our folded network; ``features``: our layers' and torchvision's names of the backbone.

    Raises WeightsError where a tensor is missing or unknown, or ``spec`` is no DeepLabV3 without atrous branches.
    """
    if not isinstance(spec.head, DeepLabV3Head) or spec.head.rates or spec.head.refined:
        raise WeightsError("these are weights of a DeepLabV3 without atrous branches; put such a head on (with_raspp)")
    taken = Taken(state, f"weights of {spec.backbone.name} in TensorFlow's DeepLab layout")
    ours = taken.backbone(features, spec.backbone.bn_eps)
    for leaf in ("weight", "bias"):
        for our, their in TENSORFLOW.items():
            ours[f"head.{our}.conv.{leaf}"] = taken(f"head.{their}.{leaf}")
        ours[f"head.classes.{leaf}"] = taken(f"head.logits.{leaf}")
    # it joins the mean and the branch, we the branch and the mean
    weight = ours["head.project.conv.weight"]
    ours["head.project.conv.weight"] = weight.roll(weight.shape[1] // 2, 1)
    taken.check_all()
    return ours
