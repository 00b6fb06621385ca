"""Do two runs of a segmenter see the same class in each pixel?"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

MIN_AGREEMENT, TIE = 0.999, 1e-3


@dataclass(frozen=True, slots=True)
class MaskParity:
    """How far the classes that a file sees in ``n`` images are from the model's.

    ``agreement``: the share of the ``compared`` pixels with the same class (1 when none was compared). Left out are
    ties: pixels whose two best probabilities in the model differ by less than a thousandth of the best, where rounding
    decides. ``ties``: their share of all pixels. ``max_error``: the largest absolute difference of any logit as a share
    of the largest logit, of a file that gives logits; otherwise None.
    """

    n: int
    compared: int
    agreement: float
    ties: float
    max_error: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the file may be used: 99.9% of the compared pixels agree, logits within 1e-3; false for NaN."""
        return self.agreement >= MIN_AGREEMENT and (self.max_error is None or self.max_error <= TIE)

    def to_dict(self) -> dict[str, float | None]:
        """The fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        logits = "" if self.max_error is None else f", max error of a logit {self.max_error:.1e} of the largest"
        return (
            f"the class agrees in {self.agreement:.4%} of {self.compared:,} pixels ({self.ties:.2%} of all are ties, "
            f"which are left out){logits}"
        )


def compare_masks(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> MaskParity:
    """Parity of pairs of an image's logits by the model, float [classes, H, W], and what the file gives for it: the
    same, or each pixel's class, uint8 [H, W]."""
    n, pixels, compared, same, errors = 0, 0, 0, 0, list[float]()
    for expected_CHW, actual in pairs:
        seen_HW = actual
        if actual.ndim == 3:
            seen_HW = actual.argmax(0)
            largest = np.abs(expected_CHW).max()
            errors.append(float(np.abs(expected_CHW - actual).max() / max(largest, np.finfo(np.float32).tiny)))
        clear_HW, finite_HW = ~_ties(expected_CHW), np.isfinite(expected_CHW).all(0)
        n, pixels, compared = n + 1, pixels + seen_HW.size, compared + int(clear_HW.sum())
        same += int(((expected_CHW.argmax(0) == seen_HW) & clear_HW & finite_HW).sum())
    agreement = same / compared if compared else 1.0
    return MaskParity(n, compared, agreement, 1 - compared / pixels, float(np.max(errors)) if errors else None)


def _ties(logits_CHW: np.ndarray) -> np.ndarray:
    """Where the second best probability is within ``TIE`` of the best: bool [H, W]."""
    if len(logits_CHW) == 1:
        return np.zeros(logits_CHW.shape[1:], bool)
    second, best = np.partition(logits_CHW, len(logits_CHW) - 2, axis=0)[-2:]
    return best - second < -np.log1p(-TIE)
