"""MobileOne S0 to S4 (arXiv:2206.04040, Table 7) and micro variants (Table 17). FACTS A19 to A24, C-12."""

from ..spec.heads import ClassifierHead
from ..spec.model import BackboneSpec, ModelSpec
from ..spec.rows import MobileOneBlock, MobileOneConv, Row, SqueezeExcite
from ..spec.transform import without_se

BASE = (64, 64, 128, 256, 256, 512)  # channels of each stage before its multiplier
STRIDES = (2, 2, 2, 2, 1, 2)
BLOCKS = (1, 2, 8, 5, 5, 1)
SE = SqueezeExcite(reduction=16, divisor=1, gate="sigmoid")

# multiplier of each stage, over-parameterisation factor k
S0 = ((0.75, 0.75, 1, 1, 1, 2), 4)
S1 = ((1.5, 1.5, 1.5, 2, 2, 2.5), 1)
S2 = ((1.5, 1.5, 2, 2.5, 2.5, 4), 1)
S3 = ((2, 2, 2.5, 3, 3, 4), 1)
S4 = ((3, 3, 3.5, 3.5, 3.5, 4), 1)
# blocks and multiplier of each stage, k
MU0 = ((1, 2, 4, 3, 3, 1), (0.75, 0.75, 0.5, 0.5, 0.5, 0.75), 3)
MU1 = ((1, 2, 6, 4, 4, 1), (0.75, 0.75, 0.75, 0.75, 0.75, 1), 2)
MU2 = ((1, 2, 6, 4, 4, 1), (0.75, 0.75, 1, 1, 1, 1), 2)


def _spec(
    name: str, widths: tuple[float, ...], branches: int, blocks: tuple[int, ...] = BLOCKS, se_stages: int = 0
) -> ModelSpec:
    """``se_stages``: how many of the last stages have squeeze-and-excitation in every convolution."""
    # the published code caps the stem at 64 channels and gives it one branch (FACTS C-12)
    rows: list[Row] = [MobileOneConv(min(64, int(64 * widths[0])), stride=2)]
    for stage in range(1, 6):
        se = SE if stage >= 6 - se_stages else None
        for index in range(blocks[stage]):
            stride = STRIDES[stage] if index == 0 else 1
            out = int(BASE[stage] * widths[stage])
            rows.append(MobileOneBlock(out, stride=stride, branches=branches, se=se))
    return ModelSpec(BackboneSpec(name, tuple(rows)), ClassifierHead(1000, dropout=0.0))


def mobileone_s0() -> ModelSpec:
    """2,078,504 parameters, 275.1 M multiply-adds when folded."""
    return _spec("mobileone_s0", *S0)


def mobileone_s1() -> ModelSpec:
    """4,764,840 parameters, 825.1 M multiply-adds when folded."""
    return _spec("mobileone_s1", *S1)


def mobileone_s2() -> ModelSpec:
    """7,808,168 parameters, 1298.4 M multiply-adds when folded."""
    return _spec("mobileone_s2", *S2)


def mobileone_s3() -> ModelSpec:
    """10,078,312 parameters, 1895.8 M multiply-adds when folded."""
    return _spec("mobileone_s3", *S3)


def mobileone_s4() -> ModelSpec:
    """14,838,352 parameters, 2979.3 M multiply-adds when folded; SE-ReLU in the last two stages."""
    return _spec("mobileone_s4", *S4, se_stages=2)


def mobileone_s4_no_se() -> ModelSpec:
    """13,197,544 parameters, 2977.6 M multiply-adds when folded: S4 for dense prediction (FACTS A21)."""
    return without_se(_spec("mobileone_s4_no_se", *S4))


def mobileone_mu0() -> ModelSpec:
    """558,760 parameters, 68.9 M multiply-adds when folded."""
    return _spec("mobileone_mu0", MU0[1], MU0[2], MU0[0])


def mobileone_mu1() -> ModelSpec:
    """969,704 parameters, 139.0 M multiply-adds when folded."""
    return _spec("mobileone_mu1", MU1[1], MU1[2], MU1[0])


def mobileone_mu2() -> ModelSpec:
    """1,262,632 parameters, 214.1 M multiply-adds when folded."""
    return _spec("mobileone_mu2", MU2[1], MU2[2], MU2[0])
