"""BatchNorm and MobileOne's branches -> plain convolutions, and back."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..errors import ConfigurationError
from ..spec.heads import ClassifierHead, FasterRCNNHead
from ..spec.transform import as_folded, with_branches
from .blocks import MobileOneUnit
from .layers import ConvNorm, scale_and_shift
from .model import Model, build


@torch.no_grad()
def fold(model: Model) -> Model:
    """The deploy form of ``model``: the same function with one biased convolution per unit (S3 §3.3, FACTS B16).

    Returns a new model in eval mode; ``model`` is not touched. A model that is folded already is copied.
    Raises ConfigurationError for a model in train mode: there BatchNorm uses the batch's statistics, so no fixed
    convolution computes the same.
    """
    if model.training:
        raise ConfigurationError("cannot fold a model in train mode: call model.eval() first, then fold(model)")
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        deploy = Model(as_folded(model.spec))
    state = dict(model.state_dict())
    for name, unit in _units(model):
        if unit.is_folded:
            continue
        weight, bias = unit.kernel_and_bias()
        stem = f"{name}.branches.0.conv" if isinstance(unit, MobileOneUnit) else f"{name}.conv"
        state |= {f"{stem}.weight": weight, f"{stem}.bias": bias}
    deploy.load_state_dict({name: state[name].clone() for name in deploy.state_dict()}, assign=True)
    return deploy.eval()


def _units(model: nn.Module, prefix: str = "") -> Iterable[tuple[str, ConvNorm | MobileOneUnit]]:
    """Every convolution unit by name, outermost first: a MobileOne unit stands for the branches inside it."""
    for name, child in model.named_children():
        if isinstance(child, ConvNorm | MobileOneUnit):
            yield f"{prefix}{name}", child
        else:
            yield from _units(child, f"{prefix}{name}.")


@torch.no_grad()
def unfold(model: Model, batches: Iterable[Tensor]) -> Model:
    """A folded model with BatchNorm put back so that it computes the same and can be fine-tuned.

    ``batches``: normalised images [B, 3, H, W] of the training set, from which ``recalibrate`` takes statistics.
    MobileOne's merged branches cannot be told apart again: the first branch carries the whole function, and the
    1x1 and skip branches beside it start at zero. Returns a new model in eval mode. A model that has BatchNorm
    already is copied and recalibrated, which is what weights with identity BatchNorms need.
    A head that could be folded and was not is new, and so are its BatchNorms: they stay as they are; so do those of an
    auxiliary head.
    """
    head = model.spec.head
    new = not isinstance(head, ClassifierHead | FasterRCNNHead) and not head.folded
    untouched = "head." if new else "head.aux."
    if not model.spec.backbone.folded:
        return recalibrate(copy.deepcopy(model).eval(), batches, untouched)
    parameter = next(model.parameters())
    train_form = build(with_branches(as_folded(model.spec, folded=False), 1)).to(parameter.device, parameter.dtype)
    _carry_over(model.state_dict(), train_form)
    return recalibrate(train_form.eval(), batches, untouched)


def _carry_over(folded: dict[str, Tensor], model: Model) -> None:
    """Give ``model`` the function of folded weights: BatchNorms that only add the bias, extra branches at zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.fill_(1 - module.eps)
            module.weight.zero_()
    state = model.state_dict()
    for name, value in folded.items():
        if name in state:
            state[name] = value
        else:  # the bias of a convolution
            norm = name.replace(".conv.bias", ".bn")
            state[f"{norm}.bias"] = value
            state[f"{norm}.weight"] = torch.ones_like(value)
    model.load_state_dict(state)


@torch.no_grad()
def recalibrate(model: Model, batches: Iterable[Tensor], untouched: str | None = None) -> Model:
    """Set every BatchNorm's running statistics to those of ``batches`` and let gamma and beta undo the change.

    The function of the model in eval mode stays the same; in train mode it now nearly is the same too. Changes
    ``model`` in place and returns it. ``batches``: normalised images [B, 3, H, W]. ``untouched``: how the names of
    modules begin that are left out.
    """
    named = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d))
    norms = [module for name, module in named if untouched is None or not name.startswith(untouched)]
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms}

    def record(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        x_CN = inputs[0].transpose(0, 1).flatten(1).double().cpu()
        count = torch.full((x_CN.shape[0],), x_CN.shape[1])
        sums[norm] += torch.stack([x_CN.sum(1), x_CN.square().sum(1), count])  # type: ignore[index]

    handles = [norm.register_forward_pre_hook(record) for norm in norms]
    model.eval()
    try:
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    for norm, (total, squares, count) in sums.items():
        if count[0] == 0:
            raise ConfigurationError("no images to calibrate BatchNorm with: give at least one batch")
        scale, shift = scale_and_shift(norm)
        mean = total / count
        variance = (squares / count - mean**2).clamp(min=0)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.bias.copy_(shift + scale * norm.running_mean)
        norm.weight.copy_(scale * torch.sqrt(norm.running_var + norm.eps))
    return model


def has_identity_norms(model: Model) -> bool:
    """Whether every BatchNorm only adds a bias: a sign of weights that were folded before they came here."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    return bool(norms) and all(
        not norm.running_mean.any() and torch.allclose(scale_and_shift(norm)[0], torch.ones(()), atol=1e-2)
        for norm in norms
        if norm.running_mean is not None
    )
