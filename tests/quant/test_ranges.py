import numpy as np
import pytest

from pocketvision.quant.ranges import Seen, candidates, chosen


def seen_of(*images: np.ndarray) -> Seen:
    seen = Seen()
    for image in images:
        seen.extend(image)
    for image in images:
        seen.count(image)
    return seen


@pytest.fixture(scope="module")
def far_out() -> Seen:
    """Values -1 to 1 and a few thousand times as large."""
    values = np.random.default_rng(0).uniform(-1, 1, (4, 8, 50, 50)).astype(np.float32)
    values[:, 0, 0, 0] = 1000
    return seen_of(values[:2], values[2:])


def test_sees_extremes_and_the_mean_of_each_channel():
    values = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    seen = seen_of(values[:1], values[1:])
    assert (seen.low, seen.high) == (values.min(), values.max())
    np.testing.assert_allclose(seen.channel_mean, values.mean((0, 2, 3)), rtol=1e-5)
    assert seen.counts is not None and seen.counts.sum() == values.size


def test_a_large_tensor_is_sampled_over_all_its_channels():
    values = np.arange(64, dtype=np.float32).reshape(1, 64, 1, 1).repeat(100, 2).repeat(100, 3)
    counts = seen_of(values).counts
    assert counts is not None and counts.sum() < values.size / 4 and (counts > 0).sum() == 64


def test_minmax_is_everything_and_holds_zero(far_out):
    assert chosen(far_out, "minmax") == pytest.approx((-1, 1000), abs=1e-3)
    assert chosen(seen_of(np.full((1, 2, 3, 3), 5.0, np.float32)), "minmax") == (0, 5)


def test_percentile_leaves_out_what_lies_far_out(far_out):
    low, high = chosen(far_out, "percentile")
    assert low == pytest.approx(-1, abs=0.5) and high < 1000
    assert chosen(far_out, "percentile", floor=0.0)[0] == 0


def test_least_squares_weigh_rounding_against_cutting_off():
    values = np.random.default_rng(0).laplace(size=(1, 4, 200, 80)).astype(np.float32)
    seen = seen_of(values)
    low, high = chosen(seen, "mse")

    def loss(low: float, high: float) -> float:
        step = (high - low) / 255
        zero = round(-low / step)
        return float(np.square((np.clip(np.round(values / step) + zero, 0, 255) - zero) * step - values).mean())

    assert seen.low < low < 0 < high < seen.high
    assert loss(low, high) < 0.9 * loss(seen.low, seen.high)
    assert loss(low, high) < 1.02 * min(loss(share * seen.low, share * seen.high) for share in np.linspace(0.3, 1, 50))


def test_a_ceiling_cuts_every_candidate(far_out):
    assert all(high <= 6 and low <= 0 for low, high in candidates(far_out, ceiling=6.0))
