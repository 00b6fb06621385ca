"""Names and numbers of published SSDLite weights -> ours: torchvision's, and TensorFlow's as a state dict."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import WeightsError
from ..spec.heads import SSDHead
from ..spec.model import ModelSpec
from .coco import CATEGORIES, USED

PARTS = ("reduce", "dw", "expand")  # of an extra map
BN_LEAVES = ("weight", "bias", "running_mean", "running_var")


def torchvision_ssdlite(features: Iterable[tuple[str, str]], spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Our name of each layer and torchvision's; ``features``: the same for the classifier with this backbone.

    Its backbone is cut in two after the expansion layer that is tapped first.
    """
    head = _head(spec)
    cut = head.taps[0].row
    for our, their in features:
        _, row, *rest = their.split(".")
        if our.startswith("head."):
            continue
        if int(row) < cut:
            yield our, ".".join(["backbone.features.0", row, *rest])
        elif int(row) > cut:
            yield our, ".".join(["backbone.features.1", str(int(row) - cut), *rest])
        else:
            half = "0." + row if rest[1] == "0" else "1.0." + rest[1]
            yield our, ".".join([f"backbone.features.{half}", *rest[2:]])
    for index in range(len(head.extras)):
        for part in range(3):
            yield f"head.extras.{index}.{part}.conv", f"backbone.extra.{index}.{part}.0"
            yield f"head.extras.{index}.{part}.bn", f"backbone.extra.{index}.{part}.1"
    for our, their in (("classes", "classification_head"), ("boxes", "regression_head")):
        for index in range(len(head.anchors)):
            yield f"head.{our}.{index}.0.conv", f"head.{their}.module_list.{index}.0.0"
            yield f"head.{our}.{index}.0.bn", f"head.{their}.module_list.{index}.0.1"
            yield f"head.{our}.{index}.1", f"head.{their}.module_list.{index}.1"


def from_tensorflow(state: Mapping[str, Any], features: Mapping[str, str], spec: ModelSpec) -> dict[str, Any]:
    """The state of our folded network; ``features``: our layers' and torchvision's names of the backbone.

    What remains of BatchNorm is merged, boxes are coded x before y, and the numbers without a category left out.
    Raises WeightsError where a tensor is missing or has another shape than ``spec`` says.
    """
    head, take = _head(spec), Taken(state, f"weights of {spec.backbone.name} in TensorFlow's SSDLite layout")
    ours = take.backbone(features, spec.backbone.bn_eps)
    for leaf in ("weight", "bias"):
        for index in range(len(head.extras)):
            for place, part in enumerate(PARTS):
                ours[f"head.extras.{index}.{place}.conv.{leaf}"] = take(f"extras.{index}.{part}.{leaf}")
        for index, sides in enumerate(head.anchors):
            for kind, their in (("classes", "cls"), ("boxes", "box")):
                ours[f"head.{kind}.{index}.0.conv.{leaf}"] = take(f"heads.{index}.{their}.dw.{leaf}")
            boxes, classes = (take(f"heads.{index}.{their}.pw.{leaf}") for their in ("box", "cls"))
            ours[f"head.boxes.{index}.1.{leaf}"] = _columns(boxes, len(sides), 4, (1, 0, 3, 2))
            ours[f"head.classes.{index}.1.{leaf}"] = _columns(classes, len(sides), 1 + len(CATEGORIES), (0, *USED))
    take.check_all()
    return ours


class Taken:
    """Tensors taken out of a file's state dict; ``what``: what it holds, for messages."""

    def __init__(self, state: Mapping[str, Any], what: str) -> None:
        self.state, self.what, self.used = state, what, set[str]()

    def __call__(self, name: str) -> Any:
        """The tensor of that name. Raises WeightsError where there is none."""
        if name not in self.state:
            raise WeightsError(f"these {self.what} lack {name}")
        self.used.add(name)
        return self.state[name]

    def backbone(self, features: Mapping[str, str], eps: float) -> dict[str, Any]:
        """The folded state of a backbone, of which ``features`` are our layers' and torchvision's names."""
        ours = dict[str, Any]()
        norms = {our: their for our, their in features.items() if our.endswith(".bn")}
        for our, their in norms.items():
            conv, unit = features[our.removesuffix("bn") + "conv"], our.removesuffix(".bn")
            gamma, beta, mean, variance = (self(f"backbone.{their}.{leaf}") for leaf in BN_LEAVES)
            scale = gamma / (variance + eps) ** 0.5
            ours[f"{unit}.conv.weight"] = self(f"backbone.{conv}.weight") * scale[:, None, None, None]
            ours[f"{unit}.conv.bias"] = beta - mean * scale
        return ours

    def check_all(self) -> None:
        """Raise WeightsError where not every tensor was taken."""
        if unknown := sorted(self.state.keys() - self.used):
            raise WeightsError(f"these {self.what} have unknown tensors, first {unknown[0]}")


def _columns(tensor: Any, anchors: int, values: int, kept: tuple[int, ...]) -> Any:
    """The ``kept`` of the ``values`` outputs that a last layer has for each anchor, in that order."""
    if len(tensor) != anchors * values:
        raise WeightsError(f"a prediction has {len(tensor)} outputs, expected {anchors} anchors of {values}")
    return tensor.reshape(anchors, values, *tensor.shape[1:])[:, list(kept)].flatten(0, 1)


def _head(spec: ModelSpec) -> SSDHead:
    if not isinstance(spec.head, SSDHead) or not spec.head.separable:
        raise WeightsError("these are weights of an SSDLite; put such a head on the network (with_ssd)")
    return spec.head
