"""Which network for this data and this budget: candidates of measured latency, ranked by a probe on the images."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.loader import ImageLoader
from ..data.sources import Dataset, Item
from ..errors import BudgetError, ConfigurationError, WeightsError
from ..exporting.onnx import export
from ..measuring.latency import measure_sessions
from ..measuring.runtimes import open_any_model, open_file
from ..nn.layers import Normalize
from ..nn.load import load_model
from ..nn.model import Model, stand_in
from ..spec.cost import cost
from ..spec.model import ModelSpec
from ..spec.transform import as_folded, with_size
from ..zoo import model_spec
from ..zoo.weights import WeightsInfo, available, downloadable, load, published
from .progress import tell

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from torch import Tensor

# A backbone, with the head that is needed and an input of so many pixels.
Make = Callable[[ModelSpec, int], ModelSpec]
MARGIN = 0.95  # of the budget: what a candidate may take, so that the final measurement meets it on a noisy machine
PROBE_IMAGES, PROBE_FOLDS = 1000, 3
SMALL_IMAGE = 64  # pixels: up to this ImageNet weights have nothing to offer, and training from scratch is quick


@dataclass(frozen=True, slots=True)
class Option:
    """A network at an input size. ``accuracy``: of the probe, 0 to 1; ``note``: why it is in or out; ``unreachable``:
    its weights cannot be had."""

    name: str
    spec: ModelSpec
    latency_ms: float | None = None
    size_mb: float | None = None
    accuracy: float | None = None
    note: str = ""
    unreachable: bool = False

    @property
    def label(self) -> str:
        """Name and input size."""
        return f"{self.name} at {self.spec.preprocessing.size} px"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a candidate has to keep to: milliseconds and megabytes (None: no limit), in a runtime with some threads."""

    max_ms: float | None
    max_mb: float | None
    runtime: str
    threads: int


def choose(
    dataset: Dataset, names: Sequence[str], sizes: Sequence[int], weights: str, limits: Limits, make: Make
) -> tuple[Option, list[Option]]:
    """The network and input size that promise most accuracy within the limits, and all that were considered.

    Every candidate's latency is measured in the runtime. Then a probe ranks those within the limits: a linear
    classifier on frozen features, cross-validated on training images. Without pretrained weights there are no features
    to probe; the lightest network is taken then, because small data cannot train a large one from scratch. Of networks
    for boxes and masks, which no linear probe foretells, the one with most multiply-adds is taken.
    Raises BudgetError, naming the nearest feasible candidate, when none keeps to the limits; WeightsError when no
    weights can be reached.
    """
    feasible, considered = _candidates(names, sizes, weights, make, limits)
    if not feasible and all(option.unreachable for option in considered):
        reasons = "; ".join(sorted({option.note for option in considered}))
        raise WeightsError(
            f"no pretrained weights can be reached: {reasons}. Put weights files into a folder and set "
            "POCKETVISION_WEIGHTS to it, or train from scratch with --weights none (needs many more images)"
        )
    if not feasible:
        tried = [option for option in considered if option.latency_ms and not option.unreachable]
        raise BudgetError(_nearest_feasible(tried, limits))
    if dataset.task != "classify":
        best = max(feasible, key=lambda option: cost(as_folded(option.spec)).madds)
        why, why_not = "most multiply-adds within the budget", "fewer multiply-adds"
    else:
        if len(feasible) > 1 and weights != "none":
            feasible = [_probed(option, dataset, weights) for option in feasible]
        best = max(feasible, key=lambda option: (option.accuracy or 0, option.spec.preprocessing.size))
        probed = best.accuracy is not None
        why = "best probe accuracy" if probed else "largest input"
        why_not = "lower probe accuracy" if probed else "smaller input"
    if len(feasible) == 1:
        only = "the lightest network" if weights == "none" else "the only one within the budget"
        why = "asked for with --model" if len(names) == 1 else only
    chosen = replace(best, note=why)
    rest = [replace(option, note=why_not) for option in feasible if option is not best]
    return chosen, [chosen, *rest, *considered]


def _nearest_feasible(tried: list[Option], limits: Limits) -> str:
    """Why nothing fits, and what would."""
    wanted = [f"{limits.max_ms} ms"] * (limits.max_ms is not None) + [f"{limits.max_mb} MB"] * (
        limits.max_mb is not None
    )
    fastest = min(tried, key=lambda option: option.latency_ms or 0)
    smallest = min(tried, key=lambda option: option.size_mb or 0)
    near = {f"{o.label} with {o.latency_ms:.2f} ms and {o.size_mb:.1f} MB" for o in (fastest, smallest)}
    return f"no network keeps to {' and '.join(wanted)}; nearest: {'; '.join(sorted(near))}; raise the budget to that"


def _probed(option: Option, dataset: Dataset, weights: str) -> Option:
    accuracy = probe(option, dataset, weights)
    tell(f"{option.label}: probe accuracy {accuracy:.1%}")
    return replace(option, accuracy=accuracy)


def _candidates(
    names: Sequence[str], sizes: Sequence[int], weights: str, make: Make, limits: Limits
) -> tuple[list[Option], list[Option]]:
    """What keeps to the limits and can be trained from, and what is left out with the reason.

    A network is measured before its weights are downloaded, so only what can be chosen is fetched. After one download
    has failed no other is tried, and what is not on this machine is not measured either.
    """
    feasible, left_out, offline = list[Option](), list[Option](), False
    starts = _starts(names, weights, left_out)
    if weights == "none" and len(starts) > 1:
        starts.sort(key=lambda start: cost(as_folded(start[1])).madds)
        heavier = "from scratch the lightest network is taken; name another with --model"
        left_out += [Option(name, spec, note=heavier) for name, spec, _ in starts[1:]]
        starts = starts[:1]
    for name, spec, is_here in starts:
        if offline and not is_here:
            note = "ImageNet weights are not on this machine, which is offline"
            left_out.append(Option(name, spec, note=note, unreachable=True))
            continue
        good = list[Option]()
        for option in within(spec, name, sizes, make, limits):
            note = f"; {option.note}" if option.note else ""
            tell(f"{option.label}: {option.latency_ms:.2f} ms, {option.size_mb:.1f} MB{note}")
            (left_out if option.note else good).append(option)
        try:
            if good and not is_here:
                published(spec)
            feasible += good
        except WeightsError as error:
            offline = "download" in str(error)
            left_out += [replace(option, note=_why_unreachable(error), unreachable=True) for option in good]
    return feasible, left_out


def _starts(names: Sequence[str], weights: str, left_out: list[Option]) -> list[tuple[str, ModelSpec, bool]]:
    """Networks as their weights need them, and whether these are on this machine; those first.

    ``weights``: "imagenet"; "none", which takes every network; or a file, which takes the one that it holds.
    """
    if weights not in ("imagenet", "none"):
        spec = load(model_spec(names[0]) if len(names) == 1 else None, weights).spec
        return [(spec.backbone.name, spec, True)]
    starts = list[tuple[str, ModelSpec, bool]]()
    for name in names:
        spec = model_spec(name)
        here = available(spec) if weights == "imagenet" else None
        entry = here or (downloadable(spec) if weights == "imagenet" else None)
        if weights == "imagenet" and entry is None:
            left_out.append(Option(name, spec, note="nobody has published ImageNet weights for it", unreachable=True))
            continue
        starts.append((spec.backbone.name, entry.spec() if entry else spec, here is not None or weights == "none"))
    return sorted(starts, key=lambda start: not start[2])


def _why_unreachable(error: WeightsError) -> str:
    """The cause in a few words, for the report's table; the whole of it is said where nothing can be reached."""
    return f"no ImageNet weights: {str(error).split(': <')[0].split('. ')[0]}"


def within(spec: ModelSpec, name: str, sizes: Sequence[int], make: Make, limits: Limits) -> Iterator[Option]:
    """``name`` with the head that is needed, at the largest of ``sizes`` that keeps to the limits, and at the next
    smaller one.

    Yields too slow or too large ones as well, with a note, so that the report can say what was tried.
    """
    per_madd, kept = None, 0
    for size in sorted(sizes, reverse=True):
        sized = make(spec, size)
        madds = cost(as_folded(sized)).madds
        if per_madd and limits.max_ms and per_madd * madds > 1.3 * limits.max_ms:
            continue  # far too slow, judged by the larger one that was measured
        latency, megabytes = measured(sized, limits)
        per_madd = latency / madds
        option = Option(name, sized, latency, megabytes)
        if limits.max_mb and megabytes > limits.max_mb:
            yield replace(option, note=f"{megabytes:.1f} MB is above {limits.max_mb} MB")
            return
        if limits.max_ms and latency > MARGIN * limits.max_ms:
            yield replace(option, note=f"too slow: {latency:.2f} ms is not safely below {limits.max_ms} ms")
            continue
        yield option
        kept += 1
        if kept == 2:
            return


def measured(spec: ModelSpec, limits: Limits) -> tuple[float, float]:
    """Median milliseconds and megabytes of an untrained network, exported as it will be."""
    model = stand_in(spec)
    with tempfile.TemporaryDirectory() as folder:
        artifact = export(model, out=Path(folder) / "candidate.onnx")
        torch_runtime = limits.runtime == "torch"
        session = (
            open_any_model(model, threads=limits.threads)
            if torch_runtime
            else open_file(artifact, threads=limits.threads)
        )
        latency = measure_sessions({"candidate": session}, n=60, seconds=3)["candidate"]
        return latency.median_ms, artifact.size_mb


def probe(option: Option, dataset: Dataset, weights: str) -> float:
    """Accuracy of a ridge classifier on the network's frozen features, cross-validated on training images.

    Raises WeightsError when the weights cannot be read.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from threadpoolctl import threadpool_limits

    features, labels = frozen_features(option.spec, weights, sample(dataset.train, PROBE_IMAGES))
    folds = min(PROBE_FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
    if folds < 2:
        raise ConfigurationError("a class has only one training image; add images, or name the network with --model")
    splits = StratifiedKFold(folds, shuffle=True, random_state=0)
    with threadpool_limits(1):
        # OpenBLAS's threads spin while they wait, which costs far more than it gains beside a busy neighbour
        return float(cross_val_score(ridge(), features, labels, cv=splits).mean())


def ridge() -> "Pipeline":
    """The linear classifier that stands on frozen features."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=(10, 100, 1000, 10_000)))


def frozen_features(spec: ModelSpec, weights: str, items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
    """What the network's last linear layer sees of each image, float32 [N, D], and the labels, int64 [N].

    Raises WeightsError when the weights cannot be read.
    """
    import torch

    model, _ = load_whole(spec, weights)
    model.eval()
    with torch.inference_mode():
        embedded = [model.classifier.embed(model.backbone(x_BCHW)).numpy() for x_BCHW in normalised(items, model)]
    return np.concatenate(embedded), np.array([item.label for item in items])


def load_whole(spec: ModelSpec, weights: str) -> tuple[Model, WeightsInfo]:
    """The network of ``spec`` with ``weights``, shown the whole short side of a photo.

    Published preprocessing, which comes with the weights, crops an eighth of it away.
    """
    model, info = load_model(spec, weights)
    model.spec = with_size(model.spec, spec.preprocessing.size, ratio=1.0)
    return model, info


def normalised(items: Sequence[Item], model: Model) -> "Iterator[Tensor]":
    """Batches [B, 3, S, S] of ``items`` as ``model`` takes them, without augmentation."""
    import torch

    normalize = Normalize(model.spec.preprocessing)
    with torch.inference_mode():
        for batch in ImageLoader(items, model.spec.preprocessing, batch=32).epoch():
            yield normalize(batch.images).contiguous(memory_format=torch.channels_last)


def sample(items: Sequence[Item], count: int) -> list[Item]:
    """At most ``count`` items, evenly from each class, always the same ones."""
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    if len(items) <= count:
        return list(items)
    chosen = list[Item]()
    for members in groups.values():
        keep = max(2, round(count * len(members) / len(items)))
        chosen += members[:: max(1, len(members) // keep)][:keep]
    return chosen
