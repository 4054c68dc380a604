import math

import numpy as np
import pytest

from keras_edgeq.numerics.metrics import Steps, agreement, sqnr_db, steps, top1


def test_sqnr_is_the_power_ratio_in_decibels():
    assert sqnr_db([3.0, 4.0], [3.0, 3.5]) == pytest.approx(20.0)
    r = np.random.default_rng(0).normal(size=(4, 5))
    expected = 10 * math.log10(sum(v * v for v in r.flat) / sum(0.01 * v * v for v in r.flat))
    assert sqnr_db(r, 0.9 * r) == pytest.approx(expected)


def test_sqnr_of_equal_tensors_is_infinite_and_of_a_zero_reference_minus_infinite():
    assert sqnr_db(np.zeros(3), np.zeros(3)) == math.inf
    assert sqnr_db([1.0, 2.0], [1.0, 2.0]) == math.inf
    assert sqnr_db([0.0], [1.0]) == -math.inf


def test_sqnr_of_half_precision_tensors_does_not_overflow():
    r = np.full(10, 60000, np.float16)
    assert sqnr_db(r, r / np.float16(2)) == pytest.approx(10 * math.log10(4))


def test_the_lowest_index_wins_a_tie():
    np.testing.assert_array_equal(top1([[1, 3, 3], [2, 2, 0], [0, 0, 1]]), [1, 0, 2])


def test_agreement_is_the_percentage_of_equal_top1():
    a = np.eye(4)
    b = np.eye(4)[[0, 1, 2, 0]]
    assert agreement(a, b) == 75.0
    assert agreement(a, 2 * a) == 100.0


def test_steps_count_integer_differences_without_wrapping():
    a = np.array([-128, 0, 5, 7], np.int8)
    b = np.array([127, 0, 5, 6], np.int8)
    assert steps(a, b) == Steps(max=255, mean=64.0, identical_share=0.5)


@pytest.mark.parametrize("metric", [sqnr_db, agreement, steps])
def test_shapes_that_differ_or_are_empty_are_errors(metric):
    for a, b in [(np.ones((2, 3)), np.ones((3, 2))), (np.ones((0, 2)), np.ones((0, 2)))]:
        with pytest.raises(ValueError, match="not empty"):
            metric(a, b)
