"""Cross-layer equalisation (arXiv:1906.04721 §4.1): weights moved between neighbouring layers, the same function."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn

from ..nn.blocks import InvertedResidualBlock, MobileOneUnit
from ..nn.fold import fold
from ..nn.layers import ConvNorm
from ..nn.model import Model
from ..spec.heads import ClassifierHead


@torch.no_grad()
def equalized(model: Model) -> Model | None:
    """A folded copy of ``model`` (eval mode) with the same function, the weights of each pair of convolutions of which
    have as large a channel on one side as on the other; None where no pair allows it.

    A channel can be made smaller before a ReLU and larger behind it, and nowhere else: ReLU6 cuts at a fixed value,
    hard-swish bends at -3 and 3. Heads for boxes and masks read features in between; they are left alone.
    """
    result = fold(model)
    pairs = [*_pairs(result)] if isinstance(model.spec.head, ClassifierHead) else []
    for first, second in pairs:
        of_first = first.weight.abs().flatten(1).amax(1)
        inputs = second.weight if second.groups > 1 else second.weight.transpose(0, 1)
        of_second = inputs.abs().flatten(1).amax(1)
        scale = (of_first / of_second).sqrt()
        scale = torch.where((of_first > 0) & (of_second > 0), scale, torch.ones_like(scale))
        first.weight.div_(scale.reshape(-1, 1, 1, 1))
        assert first.bias is not None
        first.bias.div_(scale)
        inputs.mul_(scale.reshape(-1, 1, 1, 1))
    return result if pairs else None


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.Conv2d]]:
    """Convolutions of which the second is all that reads the first, through a ReLU."""
    for module in model.modules():
        if isinstance(module, InvertedResidualBlock) and not module.joins_expansions:
            units = [unit for unit in (module.expand, module.depthwise) if isinstance(unit, ConvNorm)]
            units += [module.project] if isinstance(module.se, nn.Identity) else []
        elif isinstance(module, nn.Sequential) and all(isinstance(unit, ConvNorm | MobileOneUnit) for unit in module):
            units = [*module]
        else:
            continue
        for first, second in pairwise(units):
            gated = isinstance(first, MobileOneUnit) and not isinstance(first.se, nn.Identity)
            if type(first.act) is nn.ReLU and not gated:
                yield _conv(first), _conv(second)


def _conv(unit: nn.Module) -> nn.Conv2d:
    unit = unit.branches[0] if isinstance(unit, MobileOneUnit) else unit  # type: ignore[assignment]
    assert isinstance(unit, ConvNorm)
    return unit.conv
