"""Faster R-CNN on any backbone (S0; FACTS H11 to H15)."""

from dataclasses import replace
from typing import Literal

from .heads import FasterRCNNHead, Selection, Tap
from .model import BackboneSpec, ModelSpec
from .rows import check, check_choice
from .transform import with_size

Form = Literal["low", "high"]
SIZES: dict[Form, int] = {"low": 320, "high": 800}
TUNED = {
    "low": Selection(min_score=0.05, iou=0.7, candidates=150, most=150),
    "high": Selection(min_score=0.05, iou=0.7, candidates=1000, most=1000),
}
UNTUNED = Selection(min_score=0.0, iou=0.7, candidates=1000, most=1000)


def stage_taps(backbone: BackboneSpec, stages: int = 2) -> tuple[Tap, ...]:
    """The last ``stages`` of these rows: the stem, those that halve the side, and the last (FACTS H11, C-15).

    Two of them have stride 32 both: for MobileNetV3-Large rows 13 and 16. More go on with strides 16, 8, 4.
    """
    strided = [index for index, row in enumerate(backbone.rows) if row.stride > 1]
    rows = sorted({0, *strided, len(backbone.rows) - 1})
    valid = isinstance(stages, int) and 1 <= stages <= len(rows)
    check("stages", stages, valid, f"1 to {len(rows)} for {backbone.name}; nearest valid: 2")
    return tuple(Tap(row) for row in rows[-stages:])


def with_faster_rcnn(
    spec: ModelSpec,
    labels: int | tuple[str, ...],
    *,
    size: int | None = None,
    form: Form = "low",
    tuned: bool = True,
    stages: int = 2,
    sizes: tuple[float, ...] = (32, 64, 128, 256, 512),
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
) -> ModelSpec:
    """Faster R-CNN with a feature pyramid on the backbone of ``spec``, for so many classes or these names of classes.

    ``form``: inputs of 320 ("low") or 800 pixels ("high") unless ``size`` says otherwise, and with ``tuned`` as many
    proposals as torchvision's two forms look at: 150 or 1000, of at least 0.05; else 1000 of any score (FACTS H15).
    ``stages``: how many of the backbone's (``stage_taps``). ``sizes``, ``ratios``: of the anchors (FasterRCNNHead).
    Where torchvision keeps the sides' ratio of an image, ours are stretched to a square.
    """
    check_choice("form", form, Form)
    names = () if isinstance(labels, int) else tuple(labels)
    head = FasterRCNNHead(
        classes=labels if isinstance(labels, int) else len(names),
        taps=stage_taps(spec.backbone, stages),
        sizes=sizes,
        ratios=ratios,
        proposals=TUNED[form] if tuned else UNTUNED,
    )
    spec = with_size(spec, size or SIZES[form], ratio=1.0)
    return replace(spec, head=head, labels=names, preprocessing=replace(spec.preprocessing, fit="stretch"))
