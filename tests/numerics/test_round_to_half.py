import numpy as np
import pytest
import tensorflow as tf

from keras_edgeq.numerics.round_to_half import LARGEST, round_to_half


def spread():
    """Numbers of all magnitudes, halves that lie midway between two, and both ends."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=4000) * 2.0 ** rng.integers(-30, 18, 4000)
    halves = np.arange(1, 0x7BFF, 37, dtype=np.uint16).view(np.float16).astype(np.float64)
    above = np.nextafter(halves.astype(np.float16), np.float16(np.inf)).astype(np.float64)
    ends = [0.0, LARGEST, LARGEST + 15.0, LARGEST + 16.0, 1e30, 2.0**-24, 2.0**-25, 2.0**-26]
    x = np.concatenate([wide, (halves + above) / 2, ends])
    return np.concatenate([x, -x]).astype(np.float32)


def test_it_is_numpys_cast_but_for_what_is_too_large():
    x = spread()
    with np.errstate(over="ignore"):
        wanted = np.clip(x, -LARGEST, LARGEST).astype(np.float16).astype(np.float32)
    got = round_to_half(tf.constant(x)).numpy()
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got, wanted)


def test_the_largest_number_is_that_of_half_precision():
    assert np.finfo(np.float16).max == LARGEST


def test_rounding_twice_is_rounding_once():
    once = round_to_half(tf.constant(spread()))
    np.testing.assert_array_equal(round_to_half(once), once)


def test_nan_stays_and_infinity_saturates():
    got = round_to_half(tf.constant([np.nan, np.inf, -np.inf])).numpy()
    np.testing.assert_array_equal(got, np.float32([np.nan, LARGEST, -LARGEST]))


@pytest.mark.parametrize("in_graph", [False, True])
def test_the_gradient_passes_where_nothing_saturates(in_graph):
    x = tf.constant([-1e6, -LARGEST, -0.1, 0.0, 3.3, LARGEST, LARGEST + 1.0])
    upstream = tf.constant([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = round_to_half(x)
        return tape.gradient(y, x, output_gradients=upstream)

    got = (tf.function(gradient) if in_graph else gradient)()
    np.testing.assert_array_equal(got, [0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0])
