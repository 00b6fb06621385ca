"""Our weights for timm and torchvision: a state dict with their names, and the line of Python that loads it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ..errors import ExportError
from ..files import write_bytes
from ..nn.model import Model
from ..spec.heads import ClassifierHead
from ..spec.model import ModelSpec
from ..zoo import MODELS, model_spec
from ..zoo.keymaps import from_ours

Peer = Literal["timm", "torchvision"]
PEERS: tuple[Peer, ...] = ("timm", "torchvision")
_EPS = 1e-5  # of BatchNorm, where a peer is not told another
# our network and width -> what makes it there
_TIMM = {
    ("mobilenet_v1", 1.0): "mobilenetv1_100",
    ("mobilenet_v2", 0.5): "mobilenetv2_050",
    ("mobilenet_v2", 1.0): "mobilenetv2_100",
    ("mobilenet_v2", 1.4): "mobilenetv2_140",
    ("mnasnet_a1", 0.75): "semnasnet_075",
    ("mnasnet_a1", 1.0): "semnasnet_100",
    ("mnasnet_b1", 1.0): "mnasnet_100",
    ("mnasnet_small", 1.0): "mnasnet_small",
    ("mobilenet_v3_large", 1.0): "mobilenetv3_large_100",
    ("mobilenet_v3_small", 1.0): "mobilenetv3_small_100",
    ("efficientnet_lite0", 1.0): "efficientnet_lite0",
    **{(f"mobileone_s{size}", 1.0): f"mobileone_s{size}" for size in range(5)},
}
_WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.4)
_TORCHVISION = {
    **{
        (name, width): name
        for name in ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
        for width in _WIDTHS
    },
    ("mnasnet_b1", 0.5): "mnasnet0_5",
    ("mnasnet_b1", 1.0): "mnasnet1_0",
}


def write_peer(model: Model, peer: Peer, out: Path) -> str:
    """Write the weights of a classifier to ``out`` (safetensors) with ``peer``'s names; the Python that loads them.

    Padding, BatchNorm's epsilon and the number of classes are in that line; the preprocessing remains the caller's.
    The file's own metadata has the line without the folder.
    Raises ExportError where ``peer`` has no such network.
    """
    import torch
    from safetensors.torch import save

    line = loading_line(model.spec, peer, out.name)
    state = from_ours(model.state_dict(), model.spec, peer)
    tensors = {name: torch.as_tensor(tensor).detach().cpu().contiguous() for name, tensor in state.items()}
    metadata = {"format": "pt", "load": line, "labels": json.dumps(model.spec.labels)}
    try:
        write_bytes(out, save(tensors, metadata=metadata))
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror}; choose another place") from None
    return loading_line(model.spec, peer, str(out))


def loading_line(spec: ModelSpec, peer: Peer, file: str) -> str:
    """Python that makes ``model``, ``peer``'s network of ``spec``, and loads the weights in ``file`` into it.

    Raises ExportError where it has no such network.
    """
    name, width = _counterpart(spec, peer)
    given = {"num_classes": str(spec.head.classes)}
    other_eps, same = spec.backbone.bn_eps != _EPS, spec.backbone.padding == "same"
    if peer == "timm":
        if other_eps:
            given["bn_eps"] = str(spec.backbone.bn_eps)
        if same:
            given["pad_type"] = '"same"'
        if other_eps and name.startswith("mobileone"):
            raise _no_counterpart(spec, peer, f"its BatchNorm has the epsilon {spec.backbone.bn_eps:g}")
        made = f'timm.create_model("{name}", {_listed(given)})'
    else:
        if same:
            raise _no_counterpart(spec, peer, "its padding is TensorFlow's, which timm has")
        if other_eps and name.startswith("mnasnet"):
            raise _no_counterpart(spec, peer, f"its BatchNorm has the epsilon {spec.backbone.bn_eps:g}")
        if width != 1 and not name.startswith("mnasnet"):
            given["width_mult"] = str(width)
        # MobileNetV3 there has an epsilon of its own, 0.001
        if other_eps or name.startswith("mobilenet_v3"):
            eps = spec.backbone.bn_eps
            given["norm_layer"] = f"functools.partial(torch.nn.BatchNorm2d, eps={eps}, momentum=0.01)"
        made = f"torchvision.models.{name}({_listed(given)})"
    loaded = f"safetensors.torch.load_file({json.dumps(file, ensure_ascii=False)})"
    if name.startswith("mnasnet") and peer == "torchvision":  # which wants the version of the layout
        loaded = f'type("State", (dict,), {{"_metadata": {{"": {{"version": 2}}}}}})({loaded})'
    modules = ["functools"] * ("functools" in made) + ["safetensors.torch"]
    modules += ["torch"] * ("torch.nn" in made) + [peer]
    return f"import {', '.join(modules)}; model = {made}; model.load_state_dict({loaded}); model.eval()"


def _listed(given: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in given.items())


def _counterpart(spec: ModelSpec, peer: Peer) -> tuple[str, float]:
    """The peer's name of our network, and the width."""
    if not isinstance(spec.head, ClassifierHead):
        raise ExportError(
            f"{peer} gets classifiers only, and this {spec.backbone.name} has a {type(spec.head).__name__}"
        )
    names = _TIMM if peer == "timm" else _TORCHVISION
    for name, width in _like(spec, names):
        return names[name, width], width
    raise _no_counterpart(spec, peer, "its rows, its width or its hidden layer are others")


def _like(spec: ModelSpec, names: dict[tuple[str, float], str]) -> Iterator[tuple[str, float]]:
    for name, width in names:
        if name == spec.backbone.name and name in MODELS:
            other = model_spec(name, width=width)
            one_head = isinstance(spec.head, ClassifierHead) and other.classifier.hidden == spec.head.hidden
            if other.backbone.rows == spec.backbone.rows and one_head and not spec.backbone.folded:
                yield name, width


def _no_counterpart(spec: ModelSpec, peer: Peer, what: str) -> ExportError:
    return ExportError(f"{peer} has no {spec.backbone.name} like this one: {what}; --to onnx or hub take any network")
