"""What ``ladder.py`` runs: recipes with one component switched on at a time, and the papers' claims about each.

Two groups of rungs a data set. A rung is a network and a recipe made with ``dataclasses.replace`` from the one that
it is compared with. Learning rates are chosen with a seed that no other table uses, by the accuracy on the validation
images (rungs whose name starts with "tune_").
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pocketvision.data.transforms import Augment
from pocketvision.spec.model import ModelSpec
from pocketvision.spec.rows import Conv, DepthwiseSeparable, MobileOneBlock, MobileOneConv, Row
from pocketvision.spec.transform import with_branches, with_rows
from pocketvision.training.recipe import Recipe
from pocketvision.zoo import model_spec

DataName = Literal["cifar10", "clothing10"]
# Test accuracy of the last epoch's weights, or of those that were best on the validation images; the last epoch's loss
Measure = Literal["last", "best", "train_loss"]
RUNS = Path(__file__).resolve().parent / "results" / "ladder"
TUNING_SEED = 100
TORCH_EPS = 1e-16  # the square of 1e-8, PyTorch's default; ``rms_eps`` is TensorFlow's, inside the root


@dataclass(frozen=True)
class Scale:
    """Size of the experiment: images a class, at most, of each part; epochs; pixels; images a step; seeds."""

    train: int
    val: int
    test: int
    epochs: int
    size: int
    batch: int
    seeds: int


SCALES: dict[str, dict[DataName, Scale]] = {
    "cpu": {
        "cifar10": Scale(train=300, val=50, test=500, epochs=10, size=64, batch=32, seeds=5),
        "clothing10": Scale(train=110, val=15, test=70, epochs=6, size=96, batch=32, seeds=5),
    },
    "gpu": {
        "cifar10": Scale(train=4500, val=500, test=1000, epochs=200, size=64, batch=128, seeds=5),
        "clothing10": Scale(train=110, val=15, test=70, epochs=30, size=224, batch=32, seeds=5),
    },
}


@dataclass(frozen=True)
class Rung:
    """One variant. ``network``: a key of ``network``. ``pretrained``: from the shared ImageNet weights."""

    name: str
    network: str
    recipe: Recipe
    pretrained: bool = False
    taught: bool = False


@dataclass(frozen=True)
class Claim:
    """A paper's statement that ``rung`` differs from ``against`` by ``claimed``: points of top-1 (of its own network on
    ImageNet), or percent of the training loss; None: nobody says by how much. ``where``: entries of FACTS."""

    what: str
    where: str
    claimed: float | None
    data: DataName
    rung: str
    against: str
    measure: Measure


def network(name: str) -> ModelSpec:
    """A network of the zoo; "mobileone_mu0 k=4" and "mobileone_mu0 plain" (no branches at all) are variants."""
    base, _, variant = name.partition(" ")
    spec = model_spec(base)
    if variant == "plain":
        return with_rows(spec, _plain)
    return with_branches(spec, int(variant.removeprefix("k="))) if variant else spec


def _plain(row: Row) -> Row:
    """The same convolutions as of a folded MobileOne, each with one BatchNorm."""
    match row:
        case MobileOneBlock():
            return DepthwiseSeparable(row.out, stride=row.stride, kernel=row.kernel, act=row.act)
        case MobileOneConv():
            return Conv(row.out, stride=row.stride, kernel=row.kernel, act=row.act)
        case _:
            return row


def teacher_recipe(scale: Scale) -> Recipe:
    """How the teacher is trained, from ImageNet weights, on the student's training images: with all that helps."""
    augment = replace(CROPS, policy="trivialaugment")
    return replace(_tuned(scale), epochs=max(10, scale.epochs), augment=augment, label_smoothing=0.1, ema=0.99)


CROPS = Augment(scale=(0.5, 1.0))
STRONG = replace(CROPS, policy="autoaugment", erase=0.2)
STAGES = ((0.0, 0.5, 0.3), (0.13, 0.75, 0.6), (0.38, 1.0, 1.0))  # FACTS T14's, in shares of the run and of the size


def rungs(data: DataName, scale: Scale) -> list[Rung]:
    """All rungs of a data set, those that others are compared with first."""
    return _from_scratch(scale) if data == "cifar10" else _finetuned(scale)


def _from_scratch(scale: Scale) -> list[Rung]:
    """S0's ladder (FACTS T5), each step on top of the one before; MobileOne's ablations (T13 to T17)."""
    steps = 300 / scale.epochs  # S0's epochs for one of ours: schedules that decay by the epoch end at the same rate
    common = Recipe(epochs=scale.epochs, batch=scale.batch, bn_momentum=0.1, augment=CROPS)
    base = replace(
        common,
        lr=_rate("sgd", scale),
        nesterov=False,
        schedule="exponential",
        decay=0.98**steps,
        weight_decay=4e-5,
        label_smoothing=0.0,
    )
    torch_eps = replace(
        base,
        optimizer="rmsprop",
        rms_eps=TORCH_EPS,
        lr=_rate("rmsprop_default", scale),
        decay=0.973 ** (steps / 2),
        weight_decay=1e-5,
    )
    adjusted = replace(torch_eps, rms_eps=1e-3, lr=_rate("rmsprop_adjusted", scale))
    augmented = replace(adjusted, augment=STRONG)
    averaged = replace(augmented, average_best=3)
    full = replace(averaged, label_smoothing=0.1, drop_path=0.2, lr_noise=0.67)
    small = [
        Rung("s0_baseline", "mobilenet_v3_small", base),
        Rung("s0_rmsprop_default", "mobilenet_v3_small", torch_eps),
        Rung("s0_rmsprop_adjusted", "mobilenet_v3_small", adjusted),
        Rung("s0_rmsprop_tf", "mobilenet_v3_small", replace(adjusted, optimizer="rmsprop_tf")),
        Rung("s0_augmented", "mobilenet_v3_small", augmented),
        Rung("s0_averaged", "mobilenet_v3_small", averaged),
        Rung("s0_regularised", "mobilenet_v3_small", full),
        Rung("s0_distilled", "mobilenet_v3_small", replace(adjusted, hard_labels=0.0), taught=True),
    ]
    plain = replace(
        common,
        lr=_rate("mobileone", scale),
        nesterov=False,
        weight_decay=1e-4,
        augment=replace(CROPS, policy="autoaugment"),
    )
    progressive = replace(plain, progressive=STAGES)
    annealed = replace(progressive, final_weight_decay=1e-5)
    return [
        *small,
        Rung("s3_baseline", "mobileone_mu0", plain),
        Rung("s3_progressive", "mobileone_mu0", progressive),
        Rung("s3_annealed", "mobileone_mu0", annealed),
        Rung("s3_ema", "mobileone_mu0", replace(annealed, ema=0.99)),
        Rung("s3_no_branches", "mobileone_mu0 plain", plain),
        Rung("s3_k1", "mobileone_mu0 k=1", plain),
        Rung("s3_k4", "mobileone_mu0 k=4", plain),
    ]


def _tuned(scale: Scale) -> Recipe:
    """A plain fine-tune: what every rung of the photos starts from."""
    return Recipe(
        epochs=scale.epochs,
        batch=scale.batch,
        optimizer="adamw",
        lr=5e-4,
        head_lr=5.0,
        weight_decay=0.05,
        label_smoothing=0.0,
        bn_momentum=0.1,
        augment=CROPS,
    )


def _finetuned(scale: Scale) -> list[Rung]:
    """Each component alone, added to a plain fine-tune of MobileNetV3-Small; RMSProp's two forms."""
    base = _tuned(scale)
    rmsprop = replace(
        base, optimizer="rmsprop", rms_eps=1e-3, lr=_rate("rmsprop_photos", scale), head_lr=1.0, weight_decay=1e-5
    )
    variants = {
        "baseline": base,
        "rmsprop_default": replace(rmsprop, rms_eps=TORCH_EPS, lr=_rate("rmsprop_photos_default", scale)),
        "rmsprop_adjusted": rmsprop,
        "augmented": replace(base, augment=replace(CROPS, policy="trivialaugment")),
        "averaged": replace(base, average_best=3),
        "regularised": replace(base, label_smoothing=0.1, drop_path=0.2, lr_noise=0.67),
        "annealed": replace(base, final_weight_decay=0.005),
        "ema": replace(base, ema=0.98),
        "progressive": replace(base, progressive=STAGES),
    }
    tuned = [Rung(name, "mobilenet_v3_small", recipe, pretrained=True) for name, recipe in variants.items()]
    return [*tuned, Rung("distilled", "mobilenet_v3_small", base, pretrained=True, taught=True)]


def _rate(key: str, scale: Scale) -> float:
    """Of the grid's learning rates the one that ended best with the tuning seed; the middle one until all are tried."""
    tried = dict[float, float]()
    for lr in GRID[key]:
        for path in RUNS.glob(f"*_{TUNED_ON[key][0]}_tune_{key}_{lr:g}_seed{TUNING_SEED}.json"):
            result = json.loads(path.read_text())
            if result["scale"] == asdict(scale):
                tried[lr] = result["val_top1"][-1]
    best = max(tried, key=lambda lr: tried[lr]) if len(tried) == len(GRID[key]) else GRID[key][1]
    return best * scale.batch / REFERENCE_BATCH


REFERENCE_BATCH = 32  # of the grid; rates are proportional to the batch (arXiv:1706.02677 §2.1)
GRID = {
    "sgd": (0.01, 0.03, 0.1),
    "rmsprop_default": (0.0001, 0.0003, 0.001),
    "rmsprop_adjusted": (0.0003, 0.001, 0.003),
    "mobileone": (0.01, 0.03, 0.1),
    "rmsprop_photos": (3e-5, 1e-4, 3e-4),
    "rmsprop_photos_default": (1e-5, 3e-5, 1e-4),
}
TUNED_ON: dict[str, tuple[DataName, str]] = {
    "sgd": ("cifar10", "s0_baseline"),
    "rmsprop_default": ("cifar10", "s0_rmsprop_default"),
    "rmsprop_adjusted": ("cifar10", "s0_rmsprop_adjusted"),
    "mobileone": ("cifar10", "s3_baseline"),
    "rmsprop_photos": ("clothing10", "rmsprop_adjusted"),
    "rmsprop_photos_default": ("clothing10", "rmsprop_default"),
}


def tuning_rungs(data: DataName, scale: Scale) -> list[Rung]:
    """The grid of learning rates, as rungs."""
    known = {rung.name: rung for rung in rungs(data, scale)}
    return [
        replace(
            known[name],
            name=f"tune_{key}_{lr:g}",
            recipe=replace(known[name].recipe, lr=lr * scale.batch / REFERENCE_BATCH),
        )
        for key, (where, name) in TUNED_ON.items()
        if where == data
        for lr in GRID[key]
    ]


Row6 = tuple[str, str, float | None, str, str, Measure]
EPSILON = "RMSProp's epsilon as the root of TensorFlow's, not PyTorch's default"
REGULARISED = "Label smoothing, stochastic depth and learning rate noise together"
_SCRATCH: list[Row6] = [
    (
        "RMSProp with PyTorch's default epsilon instead of SGD",
        "S0 (T5)",
        -0.86,
        "s0_rmsprop_default",
        "s0_baseline",
        "last",
    ),
    (EPSILON, "S0 (T3, T5)", 1.08, "s0_rmsprop_adjusted", "s0_rmsprop_default", "last"),
    ("AutoAugment and random erasing", "S0 (T5, T6)", 2.10, "s0_augmented", "s0_rmsprop_adjusted", "last"),
    ("Averaging the last 3 record epochs", "S0 (T5, T8)", 0.17, "s0_averaged", "s0_augmented", "best"),
    (REGULARISED, "S0 (T5, T9 to T11)", 1.51, "s0_regularised", "s0_averaged", "best"),
    ("TensorFlow's exact RMSProp instead of that", "(T3, C-9)", None, "s0_rmsprop_tf", "s0_rmsprop_adjusted", "last"),
    ("Distillation, no hard labels", "S3 Table 10 (K1)", 2.3, "s0_distilled", "s0_rmsprop_adjusted", "last"),
    ("Progressive learning", "S3 Table 8 (T14, T15)", 0.4, "s3_progressive", "s3_baseline", "last"),
    ("Annealed weight decay", "S3 Table 8 (T13, T15)", 0.5, "s3_annealed", "s3_progressive", "last"),
    ("Averaged weights (EMA)", "S3 Table 8 (T13, T15)", 0.1, "s3_ema", "s3_annealed", "last"),
    ("Re-parameterisable branches (k = 4), not none", "S3 Table 5 (T16)", 1.8, "s3_k4", "s3_no_branches", "last"),
    ("Over-parameterisation k = 4, not 1", "S3 Table 6 (T17)", 0.5, "s3_k4", "s3_k1", "last"),
    ("Branches (k = 1), not none: training loss", "S3 Fig. 4 (T18)", -3.4, "s3_k1", "s3_no_branches", "train_loss"),
    ("k = 4, not 1: training loss", "S3 Fig. 4 (T18)", -1.0, "s3_k4", "s3_k1", "train_loss"),
]
_PHOTOS: list[Row6] = [
    (EPSILON, "S0 (T3, T5)", 1.08, "rmsprop_adjusted", "rmsprop_default", "last"),
    ("TrivialAugment (S0 has AutoAugment and random erasing)", "S0 (T5, T6)", 2.10, "augmented", "baseline", "last"),
    ("Averaging the last 3 record epochs", "S0 (T5, T8)", 0.17, "averaged", "baseline", "best"),
    (REGULARISED, "S0 (T5, T9 to T11)", 1.51, "regularised", "baseline", "last"),
    ("Progressive learning", "S3 Table 8 (T14, T15)", 0.4, "progressive", "baseline", "last"),
    ("Annealed weight decay", "S3 Table 8 (T13, T15)", 0.5, "annealed", "baseline", "last"),
    ("Averaged weights (EMA)", "S3 Table 8 (T13, T15)", 0.1, "ema", "baseline", "last"),
    ("Distillation, no hard labels", "S3 Table 10 (K1)", 2.3, "distilled", "baseline", "last"),
]
_TABLES: dict[DataName, list[Row6]] = {"cifar10": _SCRATCH, "clothing10": _PHOTOS}
CLAIMS = [Claim(*row[:3], data, *row[3:]) for data, rows in _TABLES.items() for row in rows]
