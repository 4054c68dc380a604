"""The one rounding op: real numbers of steps onto an integer grid, with straight-through gradients.

`round_to_steps(x / s, qmin - z, qmax - z) * s` is fake quantization. Clipping before rounding makes
its gradients, by the product rule alone, those of the papers.

Reference:
    Esser et al. 2020, "Learned Step Size Quantization" (LSQ), arXiv:1902.08153, equations 1 to 3.
    Bhalgat et al. 2020, "LSQ+", arXiv:2004.09576, equations 5 and 6, for the zero point.
    Lee et al. 2021, "Network Quantization with Element-wise Gradient Scaling" (EWGS),
        arXiv:2104.00903, equation 3.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import tensorflow as tf

from keras_edgeq.numerics.own_gradient import own_gradient

# Ways of rounding that `scale_sums` comes before.
TWICE = ("twice", "twice_away", "twice_lanes")
# Channels that a vector of LiteRT's depthwise kernel holds.
LANES = 8
# The largest float32 below 0.5: floor(0.49999997 + 0.5) is 1 in float32, this gives 0.
_BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0.0)))


def round_to_steps(
    ratio, low, high, zero_point=0.0, rounding: str = "half_even", ewgs: float = 0.0
):
    """Clip and round real numbers of steps; the gradient passes where nothing was clipped.

    The clipped share of the gradient goes to the bounds, and through them to the zero point. The
    result holds whole numbers, so sums of their products are exact in float32 up to 2**24: what an
    integer kernel accumulates. The bounds are tensors: changing bits never retraces. NaN stays NaN.

    Args:
        ratio: float32 tensor, `x / scale`.
        low: smallest result, `qmin - zero_point`, broadcastable to `ratio`.
        high: largest result, `qmax - zero_point`, of the same shape.
        zero_point: where integer 0 lies; `"half_away"` needs it.
        rounding: what happens to ties: `"half_even"`, `"half_up"`, or `"half_away"`, away from
            integer 0 of the stored `ratio + zero_point`; behind `scale_sums`, `"twice"` is half up,
            `"twice_away"` away from `ratio` 0, and `"twice_lanes"` half up for channels that fill
            vectors of 8 and away from 0 for the rest. Fixed when traced.
        ewgs: strength of element-wise gradient scaling. A gradient is multiplied by
            `1 + ewgs * sign(gradient) * (x - rounded)`, both in [0, 1] over the range; 0 passes it
            straight through.

    Returns:
        float32 tensor of whole numbers in the shape of `ratio`.

    Example:
        >>> round_to_steps(tf.constant([0.4, 9.0]), -8.0, 7.0).numpy()
        array([0., 7.], dtype=float32)
    """
    grid = [tf.convert_to_tensor(t, tf.float32) for t in (low, high, zero_point)]
    return _op(_ROUND[rounding], ewgs)(ratio, *grid)


def _of_product(upstream, result, sums, factor):
    del result
    by_factor = tf.cast(_sum_like(upstream * sums, factor), factor.dtype)
    return _sum_like(upstream * tf.cast(factor, tf.float32), sums), by_factor


@own_gradient("scale_sums", _of_product)
def scale_sums(sums, factor):
    """Return `sums * factor` as LiteRT's fixed-point kernels round it before they round again.

    They multiply by the fraction of a factor below 1, in [0.5, 1), to a whole number, and round
    once more where they shift by its power of two. Where the shift is small, as behind 4-bit
    weights, that is another integer for some percent of the sums. The gradient is that of the
    product.

    Args:
        sums: float32 tensor of whole numbers.
        factor: positive tensor, broadcastable to `sums`; float64 as the kernels, which are given
            the factor in 31 bits, keep it.

    Example:
        >>> float(scale_sums(tf.constant(5.0), tf.constant(0.28)))
        1.5
    """
    # The float32 with the factor's exponent plus one: the power of two above the factor.
    bits = tf.bitcast(tf.cast(factor, tf.float32), tf.int32)
    exponent = tf.bitwise.bitwise_and(bits, 0x7F800000) + 0x00800000
    power = tf.minimum(tf.bitcast(exponent, tf.float32), 1.0)
    product = tf.cast(sums, factor.dtype) * (factor / tf.cast(power, factor.dtype))
    return tf.cast(tf.floor(product + 0.5), tf.float32) * power


def to_steps(inputs, scale, whole=tf.round):
    """Return a tensor that lies on a grid, up to float noise, in whole steps of its scale.

    Args:
        inputs: float32 tensor, in real units.
        scale: scale of the grid, broadcastable to `inputs`.
        whole: what rounds the steps; the gradient passes it.
    """
    ratio = inputs * tf.math.divide_no_nan(1.0, scale)
    return ratio + tf.stop_gradient(whole(ratio) - ratio)


def _finite(upstream, *_):
    return [tf.where(tf.math.is_finite(upstream), upstream, 0.0)]


@own_gradient("with_finite_gradient", _finite)
def with_finite_gradient(x):
    """Return `x`; what is infinite or no number in its gradient becomes zero.

    Functions that are steep at zero read it: a logarithm has no gradient where rounding made a
    small number zero.
    """
    return tf.identity(x)


def _also_to_scale(upstream, steps, _, scale):
    by_scale = _sum_like(upstream * steps, scale)
    return upstream, tf.math.divide_no_nan(by_scale, scale)


@own_gradient("carry_scale", _also_to_scale)
def carry_scale(steps, scale):
    """Return `steps` unchanged; their gradient also reaches the scale of what they stand for.

    A sum of products of such steps is multiplied with scales that have no gradient of their own.
    What rounding gives a scale nearly cancels what the multiplication gives it; here both are sums
    over the same gradients of steps, so the difference is as good as those, in half precision too.
    """
    del scale
    return tf.identity(steps)


@cache
def _op(rounded, ewgs: float):
    """Return the op for one way of rounding and one strength of gradient scaling."""

    def gradient(upstream, steps, ratio, low, high, _):
        inside = tf.equal(ratio, _clip(ratio, low, high))
        dlow = _sum_like(tf.where(tf.less(ratio, low), upstream, 0.0), low)
        dhigh = _sum_like(tf.where(tf.greater(ratio, high), upstream, 0.0), high)
        passed = upstream
        if ewgs:
            error = tf.math.divide_no_nan(ratio - steps, high - low)
            passed = upstream * (1.0 + ewgs * tf.sign(upstream) * error)
        return tf.where(inside, passed, 0.0), dlow, dhigh, None

    @own_gradient(f"round_to_steps{rounded.__name__}.{ewgs!r}", gradient)
    def op(ratio, low, high, zero_point):
        return rounded(_clip(ratio, low, high), zero_point)

    return op


def _half_away(steps, zero_point):
    integers = steps + zero_point
    return tf.sign(integers) * tf.floor(tf.abs(integers) + _BELOW_HALF) - zero_point


def _half_even(steps, _):
    return tf.math.rint(steps)


def _half_up(steps, _):
    return tf.floor(steps + 0.5)


def _away_from_zero(steps, _):
    return tf.sign(steps) * tf.floor(tf.abs(steps) + 0.5)


def _by_lanes(steps, zero_point):
    whole = int(steps.shape[-1]) // LANES * LANES
    ends = _half_up(steps[..., :whole], zero_point), _away_from_zero(steps[..., whole:], zero_point)
    return tf.concat(ends, -1)


_ROUND = {
    "half_even": _half_even,
    "half_up": _half_up,
    "half_away": _half_away,
    # Behind `scale_sums`: most kernels, and those without vector instructions.
    "twice": _half_up,
    "twice_away": _away_from_zero,
    "twice_lanes": _by_lanes,
}


def _clip(ratio, low, high):
    """Clip, in one pass where the bounds are scalars."""
    if low.shape.rank == 0 and high.shape.rank == 0:
        return tf.raw_ops.ClipByValue(t=ratio, clip_value_min=low, clip_value_max=high)
    return tf.maximum(tf.minimum(ratio, high), low)


def _sum_like(values, like):
    """Sum over the axes along which `like` was broadcast."""
    axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(values), s1=tf.shape(like)).r1
    return tf.reshape(tf.reduce_sum(values, axes), tf.shape(like))
