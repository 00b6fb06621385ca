"""Names of the weights in torchvision's, timm's, Apple's and EfficientNet-PyTorch's files, from the rows of a table.
Those of other heads stand in ``keymaps_ssd``, ``keymaps_rcnn`` and ``keymaps_masks``.

A map goes from our name of each layer with weights to theirs; what follows the layer's name (``weight``,
``running_var``) is the same everywhere.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ..errors import ConfigurationError, WeightsError
from ..spec.model import BackboneSpec, ModelSpec
from ..spec.rows import Conv, DepthwiseSeparable, InvertedResidual, MobileOneBlock, MobileOneConv
from . import keymaps_masks
from .keymaps_rcnn import of_today, torchvision_rcnn
from .keymaps_ssd import from_tensorflow, torchvision_ssdlite

Layout = Literal[
    "pocketvision",
    "torchvision",
    "timm",
    "apple",
    "efficientnet_pytorch",
    "torchvision_rcnn",
    "torchvision_ssdlite",
    "tensorflow_ssdlite",
    "torchvision_masks",
    "tensorflow_deeplab",
]
State = Mapping[str, Any]  # name -> torch.Tensor; this layer does not import torch
Pairs = Iterator[tuple[str, str]]  # our layer, their layer

COUNTER = "num_batches_tracked"  # of a BatchNorm; absent from some files, and no weight


def layout_of(state: State) -> Layout:
    """Which project's names a state dict has. Raises WeightsError when none's."""
    signs: dict[str, Layout] = {
        "backbone.rows.": "pocketvision",
        "features.0.": "torchvision",
        "backbone.body.": "torchvision_rcnn",
        "layers.0.": "torchvision",
        "conv_stem.": "timm",
        "stem.conv_kxk.": "timm",
        "stem.reparam_conv.": "timm",
        "stage0.": "apple",
        "_conv_stem.": "efficientnet_pytorch",
        "head.classification_head.module_list.": "torchvision_ssdlite",
        "extras.0.reduce.": "tensorflow_ssdlite",
        "backbone.0.0.": "torchvision_masks",
        "head.concat_projection.": "tensorflow_deeplab",
    }
    for sign, layout in signs.items():
        if any(name.startswith(sign) for name in state):
            return layout
    raise WeightsError(
        f"these are not weights of a network that this package knows: its first tensors are {first(state)}; expected "
        f"names of torchvision, timm, Apple or pocketvision, which begin with one of {', '.join(signs)}"
    )


def is_folded(state: State) -> bool:
    """Whether the layers of a state dict are merged: no BatchNorm in it."""
    return not any(name.endswith(".running_mean") for name in state)


def first(names: Any) -> str:
    """The first few of many names, for an error message."""
    names = [str(name) for name in names]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"


def to_ours(state: State, spec: ModelSpec, layout: Layout) -> dict[str, Any]:
    """``state`` with our names; ``spec.backbone.folded`` must say whether it is folded.

    Raises WeightsError that names the tensors that ``spec`` needs and the state lacks, and those it does not know.
    """
    if layout == "pocketvision":
        return dict(state)
    if layout == "tensorflow_ssdlite":
        return from_tensorflow(state, dict(_torchvision_v2(spec)), spec)
    if layout == "tensorflow_deeplab":
        return keymaps_masks.from_tensorflow(state, dict(_torchvision_v2(spec)), spec)
    if layout == "torchvision_rcnn":
        state = of_today(state)
    theirs = {their: our for our, their in layer_names(spec, layout).items()}
    ours, unknown, seen = dict[str, Any](), list[str](), set[str]()
    for name, tensor in state.items():
        layer, _, leaf = name.rpartition(".")
        seen.add(layer)
        if layer not in theirs:
            unknown.append(name)
        else:
            # timm keeps MobileNetV3's hidden layer as a 1x1 convolution
            is_dense = theirs[layer] in ("head.hidden", "head.linear") and tensor.ndim == 4
            ours[f"{theirs[layer]}.{leaf}"] = tensor.flatten(1) if is_dense else tensor
    missing = [layer for layer in theirs if layer not in seen]
    if missing or unknown:
        raise WeightsError(
            f"these weights are not those of {spec.backbone.name} in {layout}'s layout: "
            f"missing layers: {first(missing)}; unknown tensors: {first(unknown)}; expected {len(theirs)} layers, "
            f"{first(theirs)}"
        )
    return ours


def from_ours(state: State, spec: ModelSpec, layout: Layout) -> dict[str, Any]:
    """The inverse of ``to_ours``: the state dict of our model of ``spec`` with ``layout``'s names.

    It loads there with ``strict=True``; torchvision's MNASNet also wants the version that the result carries, so keep
    the mapping as it is. The epsilon of BatchNorm, padding and preprocessing are no part of a state
    dict: build the other model with those of ``spec``. Raises WeightsError when that project has no such network.
    """
    if layout == "pocketvision":
        return dict(state)
    names = layer_names(spec, layout)
    theirs: OrderedDict[str, Any] = OrderedDict()  # OrderedDict[str, Any]() would carry its type into torch.save
    for name, tensor in state.items():
        layer, _, leaf = name.rpartition(".")
        their = names[layer]
        is_1x1 = their == "conv_head" and layer.startswith("head.") and leaf == "weight"
        theirs[f"{their}.{leaf}"] = tensor[:, :, None, None] if is_1x1 else tensor
    if "layers.0" in names.values():  # torchvision's MNASNet: since version 2 the stem is scaled by the width
        setattr(theirs, "_metadata", {"": {"version": 2}})  # noqa: B010, a type checker knows no such attribute
    return theirs


def layer_names(spec: ModelSpec, layout: Layout) -> dict[str, str]:
    """Our name of every layer with weights -> its name in ``layout``.

    Raises WeightsError when ``layout`` has no name for a layer: the network has no counterpart there.
    """
    backbone = spec.backbone
    is_mobileone = any(isinstance(row, MobileOneConv) for row in backbone.rows)
    if layout == "pocketvision":
        raise ConfigurationError("pocketvision's own layer names need no map; valid: torchvision, timm, apple")
    if backbone.folded and not is_mobileone:
        raise WeightsError(
            f"{layout} has no folded {backbone.name}; give the model as it was before folding, or unfold it first"
        )
    renames = {
        "torchvision_rcnn": torchvision_rcnn,
        "torchvision_ssdlite": torchvision_ssdlite,
        "torchvision_masks": keymaps_masks.torchvision_masks,
    }
    if layout in renames:
        make = _torchvision_v3 if backbone.name.startswith("mobilenet_v3") else _torchvision_v2
        return dict(renames[layout](make(spec), spec))
    if is_mobileone and layout in ("timm", "apple"):
        pairs = _mobileone(spec, layout)
    elif layout == "timm":
        pairs = _timm(spec)
    elif layout == "efficientnet_pytorch":
        pairs = _efficientnet_pytorch(spec)
    elif layout == "torchvision" and backbone.name.startswith("mobilenet_v3"):
        pairs = _torchvision_v3(spec)
    elif layout == "torchvision" and backbone.name.startswith("mobilenet_v2"):
        pairs = _torchvision_v2(spec)
    elif layout == "torchvision" and backbone.name.startswith("mnasnet"):
        pairs = _torchvision_mnasnet(spec)
    else:
        raise WeightsError(f"{layout} has no network like {backbone.name!r}; use another layout")
    names = dict(pairs)
    if ("head.hidden" in names) != bool(spec.classifier.hidden):
        kind = f"hidden={spec.classifier.hidden}" if spec.classifier.hidden else "no hidden layer"
        raise WeightsError(f"{layout} has no {backbone.name} with {kind} before the classifier; use another layout")
    return names


def _layers(row: InvertedResidual, c_in: int) -> list[str]:
    """Names of our layers in an inverted residual, in order."""
    return [*(["expand"] if row.has_expansion(c_in) else []), "depthwise", *(["se"] if row.se else []), "project"]


def _conv_norm(our: str, conv: str, norm: str) -> Pairs:
    yield f"{our}.conv", conv
    yield f"{our}.bn", norm


def _se(our: str, reduce: str, expand: str) -> Pairs:
    yield f"{our}.reduce", reduce
    yield f"{our}.expand", expand


def _unsupported(layout: str, row: object) -> WeightsError:
    return WeightsError(f"{layout} has no counterpart of a network with this row: {row}; use another layout")


def _torchvision_v2(spec: ModelSpec) -> Pairs:
    for index, (row, c_in) in enumerate(zip(spec.backbone.rows, spec.backbone.inputs(), strict=True)):
        our, their = f"backbone.rows.{index}", f"features.{index}"
        match row:
            case Conv():
                yield from _conv_norm(our, f"{their}.0", f"{their}.1")
            case InvertedResidual(se=None):
                *inner, _ = layers = _layers(row, c_in)
                for place, layer in enumerate(inner):
                    yield from _conv_norm(f"{our}.{layer}", f"{their}.conv.{place}.0", f"{their}.conv.{place}.1")
                last = len(layers) - 1
                yield from _conv_norm(f"{our}.project", f"{their}.conv.{last}", f"{their}.conv.{last + 1}")
            case _:
                raise _unsupported("torchvision", row)
    yield "head.linear", "classifier.1"


def _torchvision_v3(spec: ModelSpec) -> Pairs:
    for index, (row, c_in) in enumerate(zip(spec.backbone.rows, spec.backbone.inputs(), strict=True)):
        our, their = f"backbone.rows.{index}", f"features.{index}"
        match row:
            case Conv():
                yield from _conv_norm(our, f"{their}.0", f"{their}.1")
            case InvertedResidual():
                for place, layer in enumerate(_layers(row, c_in)):
                    block = f"{their}.block.{place}"
                    if layer == "se":
                        yield from _se(f"{our}.se", f"{block}.fc1", f"{block}.fc2")
                    else:
                        yield from _conv_norm(f"{our}.{layer}", f"{block}.0", f"{block}.1")
            case _:
                raise _unsupported("torchvision", row)
    yield "head.hidden", "classifier.0"
    yield "head.linear", "classifier.3"


def _torchvision_mnasnet(spec: ModelSpec) -> Pairs:
    """Stem, first block and last convolution lie flat in ``layers``; the stages stand between them from 8 on."""
    places = _places(spec.backbone)
    after = 8 + max(stage for stage, _ in places)
    rows = zip(spec.backbone.rows, spec.backbone.inputs(), places, strict=True)
    for index, (row, c_in, (stage, block)) in enumerate(rows):
        our = f"backbone.rows.{index}"
        match row:
            case Conv():
                at = after if index else 0
                yield from _conv_norm(our, f"layers.{at}", f"layers.{at + 1}")
            case InvertedResidual(se=None):
                their, start = (f"layers.{7 + stage}.{block}.layers", 0) if stage else ("layers", 3)
                for at, layer in enumerate(_layers(row, c_in)):
                    conv = start + 3 * at
                    yield from _conv_norm(f"{our}.{layer}", f"{their}.{conv}", f"{their}.{conv + 1}")
            case _:
                raise _unsupported("torchvision", row)
    yield "head.linear", "classifier.1"


def _places(backbone: BackboneSpec) -> list[tuple[int, int]]:
    """(stage, block in the stage) of each row, counted from 0; (-1, 0) for plain convolutions.

    A stage begins where the stride, the kernel or the channels change. A width multiplier can make two stages'
    channels equal, so the table of the zoo decides where the backbone is one of its variants.
    """
    from . import MODELS

    rows = backbone.rows
    if backbone.name in MODELS:
        table = MODELS[backbone.name]().backbone.rows
        rows = table if len(table) == len(rows) else rows
    places, stage, block, before = list[tuple[int, int]](), -1, 0, None
    for index, row in enumerate(rows):
        if isinstance(row, Conv) or (index == 0 and type(row) is MobileOneConv):
            places.append((-1, 0))
            continue
        kind = (row.kernel, row.out)
        stage, block = (stage, block + 1) if kind == before and row.stride == 1 else (stage + 1, 0)
        before = kind
        places.append((stage, block))
    return places


def _timm(spec: ModelSpec) -> Pairs:
    """timm's EfficientNet family, to which its MobileNets and MnasNets belong."""
    places = _places(spec.backbone)
    rows = zip(spec.backbone.rows, spec.backbone.inputs(), places, strict=True)
    for index, (row, c_in, (stage, block)) in enumerate(rows):
        our, their = f"backbone.rows.{index}", f"blocks.{stage}.{block}"
        match row:
            case Conv() if index == 0:
                yield from _conv_norm(our, "conv_stem", "bn1")
            case Conv() if spec.classifier.hidden:
                after = 1 + max(stage for stage, _ in places)
                yield from _conv_norm(our, f"blocks.{after}.0.conv", f"blocks.{after}.0.bn1")
            case Conv():
                yield from _conv_norm(our, "conv_head", "bn2")
            case DepthwiseSeparable():
                yield from _conv_norm(f"{our}.0", f"{their}.conv_dw", f"{their}.bn1")
                yield from _conv_norm(f"{our}.1", f"{their}.conv_pw", f"{their}.bn2")
            case InvertedResidual():
                names = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
                layers = _layers(row, c_in)
                if "expand" not in layers:
                    names["project"] = "conv_pw"
                for place, layer in enumerate(layer for layer in layers if layer != "se"):
                    yield from _conv_norm(f"{our}.{layer}", f"{their}.{names[layer]}", f"{their}.bn{place + 1}")
                if "se" in layers:
                    yield from _se(f"{our}.se", f"{their}.se.conv_reduce", f"{their}.se.conv_expand")
            case _:
                raise _unsupported("timm", row)
    if spec.classifier.hidden:
        yield "head.hidden", "conv_head"
    yield "head.linear", "classifier"


def _efficientnet_pytorch(spec: ModelSpec) -> Pairs:
    """The package EfficientNet-PyTorch and its offspring: blocks counted through, ``_bn0`` after the expansion."""
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    for index, (row, c_in) in enumerate(zip(spec.backbone.rows, spec.backbone.inputs(), strict=True)):
        our, their = f"backbone.rows.{index}", f"_blocks.{index - 1}"
        match row:
            case Conv() if index == 0:
                yield from _conv_norm(our, "_conv_stem", "_bn0")
            case Conv():
                yield from _conv_norm(our, "_conv_head", "_bn1")
            case InvertedResidual():
                for layer in _layers(row, c_in):
                    if layer == "se":
                        yield from _se(f"{our}.se", f"{their}._se_reduce", f"{their}._se_expand")
                    else:
                        yield from _conv_norm(f"{our}.{layer}", f"{their}._{layer}_conv", f"{their}.{norms[layer]}")
            case _:
                raise _unsupported("EfficientNet-PyTorch", row)
    yield "head.linear", "_fc"


def _mobileone(spec: ModelSpec, layout: Literal["timm", "apple"]) -> Pairs:
    """MobileOne's two convolutions per block are two entries of a stage there."""
    backbone = spec.backbone
    rows = zip(backbone.rows, backbone.inputs(), _places(backbone), strict=True)
    for index, (row, c_in, (stage, block)) in enumerate(rows):
        our = f"backbone.rows.{index}"
        their = f"stages.{stage}" if layout == "timm" else f"stage{stage + 1}"
        match row:
            case MobileOneBlock():
                depthwise = _mobileone_unit(row, row.kernel, skip=row.stride == 1, folded=backbone.folded)
                pointwise = _mobileone_unit(row, 1, skip=c_in == row.out, folded=backbone.folded)
                units = {f"{our}.0": (f"{their}.{2 * block}", depthwise)}
                units |= {f"{our}.1": (f"{their}.{2 * block + 1}", pointwise)}
            case MobileOneConv() if index == 0:
                skip = row.stride == 1 and c_in == row.out
                unit = _mobileone_unit(row, row.kernel, skip=skip, folded=backbone.folded)
                units = {our: ("stem" if layout == "timm" else "stage0", unit)}
            case _:
                raise _unsupported(layout, row)
        for our, (their, layers) in units.items():
            for layer in layers:
                word = "reparam_conv" if backbone.folded and "conv" in layer else _mobileone_word(layer, layout)
                yield f"{our}.{layer}", f"{their}.{word}"
    yield "head.linear", "head.fc" if layout == "timm" else "linear"


def _mobileone_unit(row: MobileOneConv, kernel: int, *, skip: bool, folded: bool) -> Iterator[str]:
    """Our layers of one MobileOne convolution."""
    if folded:
        yield "branches.0.conv"
    else:
        for index in range(row.branches):
            yield f"branches.{index}.conv"
            yield f"branches.{index}.bn"
        if kernel > 1:
            yield "scale.conv"
            yield "scale.bn"
        if skip:
            yield "skip"
    if row.se:
        yield "se.reduce"
        yield "se.expand"


# our layer -> theirs, inside one MobileOne convolution
MOBILEONE_WORDS = {
    "timm": {"branches": "conv_kxk", "scale": "conv_scale", "skip": "identity", "reduce": "fc1", "expand": "fc2"},
    "apple": {"branches": "rbr_conv", "scale": "rbr_scale", "skip": "rbr_skip"},
}


def _mobileone_word(layer: str, layout: Literal["timm", "apple"]) -> str:
    """Their name of one of our layers in a MobileOne convolution."""
    if layout == "timm":
        layer = layer.replace("se.", "attn.")
    words = MOBILEONE_WORDS[layout]
    return ".".join(words.get(word, word) for word in layer.split("."))
