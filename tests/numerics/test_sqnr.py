import numpy as np
import pytest

from keras_edgeq.numerics.affine import grid_from_range, integer_bounds
from keras_edgeq.numerics.bins import Bins, row_bins
from keras_edgeq.numerics.clip_search import GridKind
from keras_edgeq.numerics.range_rules import weight_range
from keras_edgeq.numerics.sqnr import (
    ASYMMETRIC_FACTORS,
    OFFSETS,
    SYMMETRIC_FACTORS,
    sqnr_grid,
    sqnr_range,
)
from tests import reference

S = np.sinh(np.linspace(-3, 3, 2001))
DATA = {"L": np.linspace(-1, 3, 1001), "S": S, "R": np.maximum(S, 0)}
ASYMMETRIC = (False, True, False)
SYMMETRIC = (True, True, False)
STRICT = (True, True, True)
UNSIGNED = (True, False, False)

# AIMET's encodings: step, offset, lowest and highest value.
MINMAX = [
    ("L", 8, ASYMMETRIC, 0.0156863, -64, -1.0039216, 2.9960784),
    ("L", 8, SYMMETRIC, 0.0236220, -128, -3.0236220, 3.0),
    ("L", 8, STRICT, 0.0236220, -127, -3.0, 3.0),
    ("S", 8, ASYMMETRIC, 0.0785716, -128, -10.0571607, 9.9785891),
    ("S", 8, SYMMETRIC, 0.0788809, -128, -10.0967558, 10.0178749),
    ("S", 8, STRICT, 0.0788809, -127, -10.0178749, 10.0178749),
    ("R", 8, ASYMMETRIC, 0.0392858, 0, 0.0, 10.0178749),
    ("R", 8, UNSIGNED, 0.0392858, 0, 0.0, 10.0178749),
    ("R", 8, SYMMETRIC, 0.0788809, -128, -10.0967558, 10.0178749),
    ("R", 8, STRICT, 0.0788809, -127, -10.0178749, 10.0178749),
]
SQNR = [
    ("L", 8, ASYMMETRIC, 0.0156250, -64, -1.0, 2.984375),
    ("L", 8, SYMMETRIC, 0.0234681, -128, -3.0039196, 2.9804515),
    ("L", 8, STRICT, 0.0235605, -127, -2.9921856, 2.9921856),
    ("L", 4, ASYMMETRIC, 0.265625, -4, -1.0625, 2.921875),
    ("L", 4, SYMMETRIC, 0.4029479, -8, -3.2235813, 2.8206336),
    ("S", 8, ASYMMETRIC, 0.0782646, -128, -10.0178738, 9.9396091),
    ("S", 8, SYMMETRIC, 0.0782646, -128, -10.0178671, 9.9396025),
    ("S", 8, STRICT, 0.0785727, -127, -9.9787355, 9.9787355),
    ("S", 4, ASYMMETRIC, 1.2750615, -7, -8.9254304, 10.2004919),
    ("S", 4, SYMMETRIC, 1.3438032, -8, -10.7504253, 9.4066222),
    ("R", 8, ASYMMETRIC, 0.0392091, 0, 0.0, 9.9983094),
    ("R", 8, SYMMETRIC, 0.0784181, -128, -10.0375118, 9.9590938),
    ("R", 8, STRICT, 0.0779395, -127, -9.8983197, 9.8983197),
    ("R", 4, ASYMMETRIC, 0.6609993, 0, 0.0, 9.9149895),
    ("R", 4, SYMMETRIC, 1.3464381, -8, -10.7715044, 9.4250664),
]


def aimet_bins(x):
    """AIMET's histogram; what it takes for the extremes are left edges of bins."""
    start, width, counts = reference.aimet_histogram(x)
    used = np.flatnonzero(counts)
    fields = (start, width, start + used[0] * width, start + used[-1] * width)
    return Bins(counts[None], *(np.array([field]) for field in fields))


def assert_encoding(bits, kind, low, high, expected):
    symmetric, signed, narrow = kind
    options = {"symmetric": symmetric, "signed": signed, "narrow_range": narrow}
    scale, zero_point = grid_from_range(low, high, bits=bits, **options)
    qmin, qmax = integer_bounds(bits, signed, narrow)
    ends = [(q - zero_point) * np.float64(scale) for q in (qmin, qmax)]
    assert qmin - zero_point == expected[1]
    # AIMET's factors are sums in float32, which are off by a millionth.
    np.testing.assert_allclose([scale, *ends], [expected[0], *expected[2:]], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(("data", "bits", "kind", *("step", "offset", "low", "high")), SQNR)
def test_the_encodings_are_those_of_aimets_tf_enhanced(data, bits, kind, step, offset, low, high):
    bins = aimet_bins(DATA[data])
    ends = (end[0] for end in sqnr_range(bins, GridKind(bits, *kind)))
    assert_encoding(bits, kind, *ends, (step, offset, low, high))


@pytest.mark.parametrize(("data", "bits", "kind", *("step", "offset", "low", "high")), MINMAX)
def test_the_encodings_of_minmax_are_those_of_aimets_tf(data, bits, kind, step, offset, low, high):
    # Where they differ: AIMET widens a range below 0.01 to 0.01, and all zeros become [-1, 1].
    names = dict(zip(("symmetric", "signed", "narrow_range"), kind, strict=True))
    ends = weight_range(DATA[data], (), "minmax", bits=bits, **names)
    assert_encoding(bits, kind, *(end.item() for end in ends), (step, offset, low, high))


def candidates(low, high, bits, symmetric, signed, narrow):
    """AIMET's candidates of one channel, `(step, offset)` in order."""
    steps = 2**bits - 1 - int(narrow)
    if symmetric:
        largest = max(-low, high) / (steps / 2 if signed else steps)
        offset = -((steps + 1) // 2) if signed else 0
        return [(factor * largest, offset) for factor in SYMMETRIC_FACTORS]
    observed = float(np.float32((high - low) / steps))
    observed_offset = reference.round_half_away(low / observed)
    low, high = observed * observed_offset, observed * (observed_offset + steps)
    found = []
    for factor in ASYMMETRIC_FACTORS:
        for i in range(OFFSETS):
            offset = int(-steps + steps / 20 * i)
            bottom, top = factor * observed * offset, factor * observed * (offset + steps)
            if not (bottom < low and top > high):
                bottom, top = max(bottom, low), min(top, high)
                if bottom < top:
                    step = (top - bottom) / steps
                    found.append((step, reference.round_half_away(bottom / step)))
    return [*found, (observed, observed_offset)]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", [ASYMMETRIC, SYMMETRIC, STRICT, UNSIGNED])
def test_every_channel_gets_the_cheapest_candidate_of_the_reference(kind, bits, monkeypatch):
    monkeypatch.setattr("keras_edgeq.numerics.bins.BLOCK", 100)
    rows = np.random.default_rng(0).laplace(size=(3, 200))
    rows = np.abs(rows) if not kind[1] else rows + np.array([[0.0], [0.5], [-2.0]])
    bins = row_bins(rows, bins=40)
    step, offset = sqnr_grid(bins, GridKind(bits, *kind))
    for c in range(3):
        histogram = (bins.start[c], bins.width[c], [*bins.counts[c], 0.0])
        low, high = min(rows[c].min(), 0.0), max(rows[c].max(), 0.0)
        costs = [
            reference.sqnr_cost(*histogram, *candidate, 2**bits - 1)
            for candidate in candidates(low, high, bits, *kind)
        ]
        cost = reference.sqnr_cost(*histogram, step[c], offset[c], 2**bits - 1)
        assert cost == pytest.approx(min(costs), rel=1e-9)


def test_zeros_among_other_channels_have_the_empty_range():
    rows = np.array([[0.0, 0.0], [-1.0, 2.0]])
    for kind in (ASYMMETRIC, SYMMETRIC):
        low, high = sqnr_range(row_bins(rows), GridKind(8, *kind))
        assert (low[0], high[0]) == (0.0, 0.0)
        assert low[1] < 0.0 < high[1]
