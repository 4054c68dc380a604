import numpy as np
import pytest

from keras_edgeq.numerics.affine import integer_bounds
from keras_edgeq.numerics.bins import row_bins
from keras_edgeq.numerics.clip_search import GridKind
from keras_edgeq.numerics.octav import octav_range, octav_rows
from tests import reference

RNG = np.random.default_rng(0)
DATA = {
    "normal": RNG.normal(size=4000),
    "laplace": RNG.laplace(size=4000),
    "uniform": RNG.uniform(-1, 1, size=4000),
}
NARROW = {"symmetric": True, "signed": True, "narrow_range": True}
FULL = {"symmetric": True, "signed": True, "narrow_range": False}
UNSIGNED = {"symmetric": True, "signed": False, "narrow_range": False}
ASYMMETRIC = {"symmetric": False, "signed": True, "narrow_range": False}


def error(x, low, high, grid):
    """Squared error on the grid of a range, vectorized for the brute-force search."""
    scale, zero = reference.grid_from_range(low, high, **grid)
    qmin, qmax = reference.grid_bounds(grid["bits"], grid["signed"], grid["narrow_range"])
    steps = np.clip(np.round(x / float(scale)) + zero, qmin, qmax) - zero
    return np.sum((steps * float(scale) - x) ** 2)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("kind", [NARROW, UNSIGNED])
def test_the_error_is_within_a_few_percent_of_the_least(kind, data, bits):
    x = DATA[data] if kind["signed"] else np.abs(DATA[data])
    grid = {"bits": bits, **kind}
    low, high = (float(end[0]) for end in octav_rows(x[None], GridKind(**grid)))
    peak = np.abs(x).max()
    clips = np.linspace(0.02, 1.0, 400) * peak
    least = min(error(x, -clip * kind["signed"], clip, grid) for clip in clips)
    assert error(x, low, high, grid) <= 1.04 * least


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("data", DATA)
def test_an_asymmetric_range_is_within_a_few_percent_of_the_best_pair_of_ends(data, bits):
    x = np.where(DATA[data] < 0, 0.25 * DATA[data], DATA[data])
    grid = {"bits": bits, **ASYMMETRIC}
    low, high = (float(end[0]) for end in octav_rows(x[None], GridKind(**grid)))
    shares = np.linspace(0.1, 1.0, 40)
    least = min(error(x, a * x.min(), b * x.max(), grid) for a in shares for b in shares)
    assert error(x, low, high, grid) <= 1.06 * least


@pytest.mark.parametrize("bits", [2, 4, 8, 12])
@pytest.mark.parametrize("kind", [NARROW, UNSIGNED])
def test_the_clip_is_that_of_the_papers_recursion(kind, bits):
    rows = np.stack([x[:300] for x in DATA.values()]) + 0.2
    rows[:, 250:] = 0.0
    rows = rows if kind["signed"] else np.abs(rows)
    qmax = integer_bounds(bits, kind["signed"], kind["narrow_range"])[1]
    low, high = octav_rows(rows, GridKind(bits, **kind))
    for c, row in enumerate(rows):
        assert max(-low[c], high[c]) == pytest.approx(reference.octav_clip(row, qmax), rel=1e-5)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("data", DATA)
def test_each_end_balances_the_noise_inside_and_the_clipped_values_beyond(data, bits):
    x = DATA[data] + 0.3
    (low,), (high,) = octav_rows(x[None], GridKind(bits, **ASYMMETRIC))
    inside = np.mean((x >= low) & (x <= high)) * (high - low) / (12 * (2**bits - 1) ** 2)
    assert np.mean(np.maximum(x - high, 0)) == pytest.approx(inside, rel=0.02)
    assert np.mean(np.maximum(low - x, 0)) == pytest.approx(inside, rel=0.02)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_integer_beyond_a_full_grids_range_lets_the_step_shrink(bits):
    # -2 ** (bits - 1) steps lie below zero and one fewer above.
    x = DATA["normal"]
    grid = {"bits": bits, **FULL}
    low, high = (float(end[0]) for end in octav_rows(x[None], GridKind(**grid)))
    clips = np.linspace(0.02, 1.0, 400) * np.abs(x).max()
    assert error(x, low, high, grid) <= 1.06 * min(error(x, -c, c, grid) for c in clips)
    narrow = octav_rows(x[None], GridKind(bits, **NARROW))[1][0]
    assert high < narrow


@pytest.mark.parametrize("kind", [NARROW, FULL, ASYMMETRIC])
@pytest.mark.parametrize("data", DATA)
def test_bins_give_nearly_the_range_of_the_values(data, kind):
    for bits in (4, 8):
        exact = np.ravel(octav_rows(DATA[data][None], GridKind(bits, **kind)))
        binned = np.ravel(octav_range(row_bins(DATA[data][None], 2048), GridKind(bits, **kind)))
        np.testing.assert_allclose(binned, exact, rtol=1e-2)


@pytest.mark.parametrize("rows_too", [False, True])
def test_exact_zeros_add_no_noise(rows_too):
    x = np.abs(DATA["laplace"]).astype(np.float32)
    both = np.concatenate([x, np.zeros(30_000, np.float32)])
    grid = GridKind(4, **UNSIGNED)

    def choose(x):
        return octav_rows(x[None], grid) if rows_too else octav_range(row_bins(x[None]), grid)

    np.testing.assert_allclose(np.ravel(choose(both)), np.ravel(choose(x)), rtol=5e-3)


@pytest.mark.parametrize(("bits", "above"), [(2, 1.25), (3, 1.15), (4, 1.15), (8, 1.05)])
def test_a_handful_of_values_is_close_to_the_least_error_too(bits, above):
    # A kernel of 3 x 3 has nine; with few the iteration may circle among several optima.
    rows = np.random.default_rng(3).laplace(size=(100, 9))
    grid = {"bits": bits, **NARROW}
    found = least = 0.0
    for row, *ends in zip(rows, *octav_rows(rows, GridKind(**grid)), strict=True):
        found += error(row, *ends, grid)
        clips = np.linspace(0.02, 1.0, 100) * np.abs(row).max()
        least += min(error(row, -c, c, grid) for c in clips)
    assert found <= above * least
