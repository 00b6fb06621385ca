"""Does an exported file compute what the model computes? Asked with real images, because noise hides broken nets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigurationError, ExportError
from ..exporting.artifact import rename
from ..spec.heads import FasterRCNNHead, SSDHead
from ..tasks.coco import Found
from .box_parity import BoxParity, compare_boxes
from .mask_parity import MIN_AGREEMENT, MaskParity, compare_masks
from .runtimes import open_artifact, open_detector, open_file

if TYPE_CHECKING:
    from ..exporting.artifact import Artifact
    from ..nn.model import Model

MAX_ERROR = 1e-3
TIE = 1e-3
LEAST_AGREEMENT = 0.5  # of fewer bits than 32


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a file's scores are from the model's on ``n`` images.

    ``max_error``: the largest absolute difference of any score. ``agreement``: the share of the ``compared`` images
    with the same best class (1 when none was compared). Left out of the comparison are ties: images whose two best
    scores in the model differ by less than a thousandth of the best, where rounding decides.
    """

    n: int
    compared: int
    max_error: float
    agreement: float

    @property
    def holds(self) -> bool:
        """Whether the file may be used: error within 1e-3 and every compared image agrees; false for NaN."""
        return self.max_error <= MAX_ERROR and self.agreement == 1

    def to_dict(self) -> dict[str, float]:
        """The fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        agreeing, ties = round(self.agreement * self.compared), self.n - self.compared
        return (
            f"max error of a score {self.max_error:.1e}, the best class agrees on {agreeing} of {self.compared} images "
            f"({ties} ties left out)"
        )


AnyParity = Parity | BoxParity | MaskParity


def compare(expected: np.ndarray, actual: np.ndarray) -> Parity:
    """Parity of two arrays of scores [N, classes], N at least 1."""
    best_two = np.sort(expected, axis=1)[:, -2:]  # one and the same column where there is only one class
    clear = best_two[:, -1] - best_two[:, 0] > TIE * best_two[:, -1]
    same = expected.argmax(1) == actual.argmax(1)
    return Parity(
        n=len(expected),
        compared=int(clear.sum()),
        max_error=float(np.abs(expected - actual).max()),
        agreement=float(same[clear].mean()) if clear.any() else 1.0,
    )


def parity(artifact: Artifact, model: Model, images: np.ndarray) -> AnyParity:
    """Compare ``artifact``, run one image at a time, with ``model`` as it was trained (so folding is tested too).

    ``images``: prepared real photos, uint8 [N, S, S, 3], N at least 1. Raises ConfigurationError without images or
    for a model in train mode.
    """
    if len(images) == 0:
        raise ConfigurationError("parity needs at least one image; give some of the data set's photos")
    if artifact.task == "classify":
        expected, session = model_scores(model, images), open_artifact(artifact)
        return compare(expected, np.concatenate([session(image[None]) for image in images]))
    if artifact.task == "segment":
        whole = open_file(artifact)
        logits = (outputs.logits[0].cpu().numpy() for outputs in _outputs(model, images, 1))
        seen = (whole(image[None])[0][0] for image in images)
        if artifact.outputs[0].layout == "NHWC":
            seen = (logits_HWC.transpose(2, 0, 1) for logits_HWC in seen)
        return compare_masks(zip(logits, seen, strict=True))
    head = artifact.spec.head
    assert isinstance(head, SSDHead | FasterRCNNHead)
    detector = open_detector(artifact)
    found = [detector(image[None])[0] for image in images]
    return compare_boxes(model_found(model, images), found, head.selection)


def check_parity(artifact: Artifact, model: Model, images: np.ndarray) -> AnyParity:
    """``parity``, and no bad file under a good name.

    When it does not hold, the file is renamed to ``<name>.failed<suffix>`` beside it, for inspection, and ExportError
    says so with the figures. The limits: of a classifier, 1e-3 for every score and agreement on every image that is
    not a tie; of a detector, 1e-3 for every score, and a partner for every box with an IoU of 0.99; of a segmenter, the
    same class in 99.9% of the pixels that are no ties, and 1e-3 of the largest for every logit. They are for float32:
    how far fewer bits take a file from the model is told, and judged by its accuracy; only one that gives most images
    or pixels another class has nothing left of it.
    """
    result = parity(artifact, model, images)
    exact = artifact.precision == "float32"
    if not result.holds if exact else _is_ruined(result):
        kept = failed_path(artifact.path)
        rename(artifact.path, kept)
        raise ExportError(
            f"{artifact.path} does not compute what the model computes: {result}; limits: {_limits(result, exact)}. "
            f"The file is kept as {kept}; do not ship it. Check that the weights are finite and that the versions of "
            "torch and of the runtime are supported (pocketvision doctor)"
        )
    return result


def _is_ruined(result: AnyParity) -> bool:
    if isinstance(result, BoxParity):
        return False
    return result.agreement < LEAST_AGREEMENT or not np.isfinite(result.max_error or 0.0)


def _limits(result: AnyParity, exact: bool) -> str:
    if not exact:
        return f"{LEAST_AGREEMENT:.0%} of the classes"
    return f"{MIN_AGREEMENT:.1%} of the pixels" if isinstance(result, MaskParity) else f"{MAX_ERROR} and all"


def failed_path(path: Path) -> Path:
    """Where ``check_parity`` keeps a file that failed: model.onnx -> model.failed.onnx."""
    return path.with_name(f"{path.stem}.failed{path.suffix}")


def model_scores(model: Model, images: np.ndarray, batch: int = 16) -> np.ndarray:
    """Scores [N, classes] of uint8 images [N, S, S, 3] by the model itself, as it is and where it is."""
    return np.concatenate([logits.softmax(1).cpu().numpy() for logits in _outputs(model, images, batch)])


def model_found(model: Model, images: np.ndarray, batch: int = 16) -> list[Found]:
    """What the model itself, a detector, finds in uint8 images [N, S, S, 3], in pixels of them."""
    from ..tasks.detection import found_in, to_arrays

    return [to_arrays(found) for outputs in _outputs(model, images, batch) for found in found_in(outputs)]


def _outputs(model: Model, images: np.ndarray, batch: int) -> Iterator[Any]:
    import torch

    from ..nn.layers import Normalize

    if model.training:
        raise ConfigurationError("the model is in train mode, where its outputs depend on the batch: call model.eval()")
    device = next(model.parameters()).device
    normalize = Normalize(model.spec.preprocessing).to(device)
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            pixels = torch.from_numpy(images[start : start + batch].copy()).to(device).permute(0, 3, 1, 2)
            yield model(normalize(pixels))
