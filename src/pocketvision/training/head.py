"""The last layer of a classifier fitted to what a frozen backbone sees, before anything else is trained."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.loader import ImageLoader
from ..data.sources import Item
from ..nn.layers import Normalize
from ..nn.model import Model
from .recipe import Recipe

_SHRINK = 1e-3  # weight of the squared weights
_ITERATIONS = 100


def train_head(model: Model, items: Sequence[Item], recipe: Recipe) -> None:
    """Fit the last linear layer of ``model`` to ``items`` as they are and mirrored, and leave everything else as it is.

    The features come from one pass in eval mode, and L-BFGS minimises the recipe's loss over all of them at once, so a
    fine-tuning does not start by tearing a good backbone towards a random classifier (arXiv:2202.10054 §3). The model
    is on the recipe's device already. Raises DataError for an unreadable image.
    """
    training, linear = model.training, model.classifier.linear
    model.eval()
    features_NC, labels_N = _features(model, items, recipe)
    centre, spread = features_NC.mean(0), features_NC.std(0).clamp(min=1e-3)
    weight, bias = _fitted((features_NC - centre) / spread, labels_N, recipe.label_smoothing, linear.out_features)
    with torch.no_grad():
        linear.weight.copy_(weight / spread)
        linear.bias.copy_(bias - (weight / spread) @ centre)
    model.train(training)


@torch.no_grad()
def _features(model: Model, items: Sequence[Item], recipe: Recipe) -> tuple[Tensor, Tensor]:
    """What the last layer sees of every image and its mirror image [2 N, C], and their labels [2 N]."""
    p = model.spec.preprocessing
    normalize, features, labels = Normalize(p).to(recipe.device), list[Tensor](), list[Tensor]()
    for batch in ImageLoader(items, p, batch=recipe.batch, workers=recipe.workers).epoch():
        x_BCHW = normalize(batch.images.to(recipe.device))
        for view in (x_BCHW, x_BCHW.flip(3)):
            view = view.contiguous(memory_format=torch.channels_last)
            features.append(model.classifier.embed(model.backbone(view)).float())
            labels.append(batch.labels)
    return torch.cat(features), torch.cat(labels).to(recipe.device)


def _fitted(x_NC: Tensor, labels_N: Tensor, smoothing: float, classes: int) -> tuple[Tensor, Tensor]:
    """Weight [classes, C] and bias [classes] of the logistic regression on centred features."""
    weight = torch.zeros(classes, x_NC.shape[1], device=x_NC.device, requires_grad=True)
    bias = torch.zeros(classes, device=x_NC.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(x_NC, weight, bias), labels_N, label_smoothing=smoothing)
        value = value + _SHRINK * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]  (it takes what backward needs, a tensor)
    return weight.detach(), bias.detach()
