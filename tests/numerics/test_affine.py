import itertools

import numpy as np
import pytest

from keras_edgeq.numerics.affine import (
    SMALLEST_SCALE,
    dequantize,
    grid_from_range,
    integer_bounds,
    quantize,
)
from tests import reference

KINDS = {
    "asymmetric": {"symmetric": False, "signed": True, "narrow_range": False},
    "asymmetric narrow": {"symmetric": False, "signed": True, "narrow_range": True},
    "asymmetric unsigned": {"symmetric": False, "signed": False, "narrow_range": False},
    "symmetric": {"symmetric": True, "signed": True, "narrow_range": False},
    "symmetric narrow": {"symmetric": True, "signed": True, "narrow_range": True},
    "symmetric unsigned": {"symmetric": True, "signed": False, "narrow_range": False},
}
RANGES = [
    (-1.0, 3.0),
    (-3.7, 0.2),
    (0.5, 6.0),
    (-6.0, -0.5),
    (0.0, 0.0),
    (0.0, 6.0),
    (-1e-30, 1e-30),
    (-3e38, 3e38),
    (-0.013, 0.0131),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", range(2, 17))
def test_grids_equal_the_reference(bits, kind):
    grid = KINDS[kind]
    ranges = [(max(low, 0.0), abs(high)) if kind == "symmetric unsigned" else (low, high)
              for low, high in RANGES]  # fmt: skip
    low, high = np.array(ranges).T
    scale, zero_point = grid_from_range(low, high, bits=bits, **grid)
    assert scale.dtype == np.float32
    assert zero_point.dtype == np.int32
    for i, (a, b) in enumerate(ranges):
        expected = reference.grid_from_range(a, b, bits, **grid)
        assert (scale[i], zero_point[i]) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", range(2, 17))
def test_integers_and_values_equal_the_reference(bits, kind):
    grid = KINDS[kind]
    rng = np.random.default_rng(bits)
    low = np.zeros(3) if kind == "symmetric unsigned" else -rng.random(3)
    scale, zero_point = grid_from_range(low, rng.random(3), bits=bits, **grid)
    bounds = integer_bounds(bits, grid["signed"], grid["narrow_range"])
    ties = (np.arange(-6, 6)[:, None] + np.float32(0.5)) * scale
    x = np.concatenate([rng.normal(size=(40, 3)), ties]).astype(np.float32)
    q = quantize(x, scale, zero_point, *bounds)
    assert q.dtype == np.int32
    np.testing.assert_array_equal(q, reference.quantize(x, scale, zero_point, *bounds))
    y = dequantize(q, scale, zero_point)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, reference.fake_quant(x, scale, zero_point, *bounds))


@pytest.mark.parametrize(("bits", "signed", "narrow", "expected"), [
    (8, True, False, (-128, 127)),
    (8, True, True, (-127, 127)),
    (8, False, False, (0, 255)),
    (2, True, True, (-1, 1)),
    (16, False, False, (0, 65535)),
    (32, True, False, (-(2**31), 2**31 - 1)),
])  # fmt: skip
def test_integer_bounds_are_those_of_the_hardware(bits, signed, narrow, expected):
    assert integer_bounds(bits, signed, narrow) == expected


@pytest.mark.parametrize(("bits", "signed", "narrow"), [
    (1, True, False), (17, True, False), (31, True, False), (32, False, False), (8, False, True),
])  # fmt: skip
def test_unsupported_widths_are_errors(bits, signed, narrow):
    with pytest.raises(ValueError, match=r"use 2 to 16 bits|needs signed=True"):
        integer_bounds(bits, signed, narrow)


def test_zero_is_always_exactly_a_grid_point():
    kinds = [k for name, k in KINDS.items() if name != "symmetric unsigned"]
    for (low, high), grid in itertools.product(RANGES, kinds):
        scale, zero_point = grid_from_range(low, high, bits=8, **grid)
        bounds = integer_bounds(8, grid["signed"], grid["narrow_range"])
        q = quantize(np.float32(0.0), scale, zero_point, *bounds)
        assert dequantize(q, scale, zero_point) == 0.0


def test_an_all_zero_range_gets_scale_one_and_a_tiny_range_the_smallest_scale():
    low, high = np.array([0.0, -1e-40]), np.array([0.0, 1e-40])
    scale, _ = grid_from_range(low, high, bits=8, symmetric=True, signed=True)
    np.testing.assert_array_equal(scale, np.float32([1.0, SMALLEST_SCALE]))


def test_grids_keep_the_shape_of_the_range():
    low = -np.random.default_rng(0).random((1, 3, 1, 2))
    scale, zero_point = grid_from_range(low, -low, bits=4, symmetric=False, signed=True)
    assert scale.shape == zero_point.shape == (1, 3, 1, 2)
    scale, zero_point = grid_from_range(-1.0, 1.0, bits=4, symmetric=True, signed=True)
    assert scale.shape == zero_point.shape == ()


@pytest.mark.parametrize(("low", "high", "match"), [
    (np.nan, 1.0, "NaN"), (0.0, np.inf, "NaN or infinity"), (1.0, -1.0, "low > high"),
    (-1e300, 1e300, "float32"),
])  # fmt: skip
def test_ranges_that_no_grid_represents_are_errors(low, high, match):
    with pytest.raises(ValueError, match=match):
        grid_from_range(low, high, bits=8, symmetric=False, signed=True)


def test_a_symmetric_unsigned_grid_refuses_negative_values():
    with pytest.raises(ValueError, match=r"starts at -0\.1"):
        grid_from_range(-0.1, 1.0, bits=8, symmetric=True, signed=False)


def test_infinities_and_overflowing_quotients_saturate():
    x = np.float32([-np.inf, np.inf, 3e38, -3e38])
    q = quantize(x, 2.0**-60, 0, -128, 127)
    np.testing.assert_array_equal(q, [-128, 127, 127, -128])


def test_bias_integers_saturate_at_32_bits():
    q = quantize(np.float32([-1e30, 1e30, 7.0]), 1.0, 0, *integer_bounds(32, signed=True))
    np.testing.assert_array_equal(q, [-(2**31), 2**31 - 1, 7])
