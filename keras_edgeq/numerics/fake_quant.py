"""The one fake-quant op: rounds onto an integer grid and learns it by straight-through gradients.

Reference:
    Esser et al. 2020, "Learned Step Size Quantization" (LSQ), arXiv:1902.08153, equations 1 to 3.
    Bhalgat et al. 2020, "LSQ+", arXiv:2004.09576, equations 5 and 6, for the zero point.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# The largest float32 below 0.5: floor(0.49999997 + 0.5) is 1 in float32, this gives 0.
_BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0.0)))


def fake_quant(x, scale, zero_point, qmin, qmax, half_away: bool = False):
    """Replace values by the nearest grid value, `(quantize(x) - zero_point) * scale`.

    Computes in float32 whatever the dtype of `x`. The whole grid is tensors, so that changing
    bits, scale or zero point never retraces. It does not check the grid; NaN stays NaN.

    The gradients, with `v = x / scale` and "inside" meaning `qmin <= v + zero_point <= qmax`:

    - `x`: passes inside, zero outside;
    - `scale`: `round(v) - v` inside, the clipped `v` outside, summed over the broadcast axes;
    - `zero_point`: 0 inside, `-scale` outside, summed likewise;
    - `qmin` and `qmax`: none.

    Args:
        x: real tensor of any floating dtype and shape.
        scale: positive float32 tensor broadcastable to `x`; per channel with kept dimensions.
        zero_point: float32 tensor holding integers, broadcastable to `x`.
        qmin: smallest integer, float32, broadcastable to `x`.
        qmax: largest integer, likewise.
        half_away: round ties of the grid integer `x / scale + zero_point` away from zero, as
            integer average pooling does; otherwise ties go to even. Fixed when traced.

    Returns:
        Tensor of the shape and dtype of `x`.

    Example:
        >>> fake_quant(tf.constant([0.2, 9.0]), 0.5, 0.0, -8.0, 7.0).numpy()
        array([0. , 3.5], dtype=float32)
    """
    # No cast: a variable that mixed precision autocasts to float16 must fail, not lose its grid.
    grid = [tf.convert_to_tensor(t, tf.float32) for t in (scale, zero_point, qmin, qmax)]
    op = _fake_quant_half_away if half_away else _fake_quant_half_even
    return op(tf.convert_to_tensor(x), *grid)


def round_to_steps(ratio, low, high, zero_point=0.0, half_away: bool = False):
    """Clip and round real numbers of steps; the gradient passes where nothing was clipped.

    With `ratio = x / scale`, `low = qmin - zero_point` and `high = qmax - zero_point`, the product
    with `scale` is `fake_quant`, values and gradients (the clipped share goes to the bounds, and so
    to the zero point). The result holds whole numbers, so sums of their products are exact in
    float32 up to 2**24: what an integer kernel accumulates.

    Args:
        ratio: float32 tensor.
        low: smallest result, a whole number, broadcastable to `ratio`.
        high: largest result, likewise.
        zero_point: where integer 0 lies, for `half_away`.
        half_away: round ties of `ratio + zero_point` away from zero instead of to even.

    Returns:
        float32 tensor of whole numbers in the shape of `ratio`.
    """
    bounds = [tf.convert_to_tensor(t, tf.float32) for t in (low, high)]
    if half_away:
        return _round_clipped_away(ratio, *bounds, tf.convert_to_tensor(zero_point, tf.float32))
    return _round_clipped(ratio, *bounds)


@tf.custom_gradient
def _round_clipped(ratio, low, high):
    def grad(upstream):
        return _clip_gradients(upstream, ratio, low, high)

    return tf.round(_clip(ratio, low, high)), grad


@tf.custom_gradient
def _round_clipped_away(ratio, low, high, zero_point):
    def grad(upstream):
        return *_clip_gradients(upstream, ratio, low, high), None

    return _round_half_away(_clip(ratio, low, high), zero_point), grad


def _clip_gradients(upstream, ratio, low, high):
    below, above = tf.less(ratio, low), tf.greater(ratio, high)
    dlow = _sum_like(tf.where(below, upstream, 0.0), low)
    dhigh = _sum_like(tf.where(above, upstream, 0.0), high)
    return tf.where(tf.equal(ratio, _clip(ratio, low, high)), upstream, 0.0), dlow, dhigh


@tf.custom_gradient
def _fake_quant_half_even(x, scale, zero_point, qmin, qmax):
    return _forward_and_grad(x, scale, zero_point, qmin, qmax, _round_half_even)


@tf.custom_gradient
def _fake_quant_half_away(x, scale, zero_point, qmin, qmax):
    return _forward_and_grad(x, scale, zero_point, qmin, qmax, _round_half_away)


def _forward_and_grad(x, scale, zero_point, qmin, qmax, rounding):
    """Return the output and its gradient function; only `x` and the grid outlive the forward."""

    def grad(upstream):
        upstream = tf.cast(upstream, tf.float32)
        ratio, inside_range = _clipped(x, scale, zero_point, qmin, qmax)
        inside = tf.equal(ratio, inside_range)
        dx = tf.where(inside, upstream, 0.0)
        residual = rounding(inside_range, zero_point) - tf.where(inside, ratio, 0.0)
        dscale = _sum_like(upstream * residual, scale)
        dzero_point = _sum_like((dx - upstream) * scale, zero_point)
        return tf.cast(dx, x.dtype), dscale, dzero_point, None, None

    y = rounding(_clipped(x, scale, zero_point, qmin, qmax)[1], zero_point) * scale
    return tf.cast(y, x.dtype), grad


def _clipped(x, scale, zero_point, qmin, qmax):
    """Return `x / scale` and the same clipped to the grid."""
    # Not `/`: Grappler turns division by a constant (a frozen scale) into multiplication by its
    # reciprocal, which changed 33 % of the quotients by an ulp. This op costs the same.
    ratio = tf.math.divide_no_nan(tf.cast(x, tf.float32), scale)
    return ratio, _clip(ratio, qmin - zero_point, qmax - zero_point)


def _clip(ratio, low, high):
    """Clip, in one pass where the bounds are scalars."""
    if low.shape.rank == 0 and high.shape.rank == 0:
        return tf.raw_ops.ClipByValue(t=ratio, clip_value_min=low, clip_value_max=high)
    return tf.maximum(tf.minimum(ratio, high), low)


def _round_half_even(steps, zero_point):
    """Round signed step counts; an integer zero point cannot change the nearest integer."""
    del zero_point
    return tf.round(steps)


def _round_half_away(steps, zero_point):
    """Round the grid integers `steps + zero_point`, where a tie goes away from integer 0."""
    q = steps + zero_point
    return tf.sign(q) * tf.floor(tf.abs(q) + _BELOW_HALF) - zero_point


def _sum_like(values, like):
    """Sum over the axes along which `like` was broadcast."""
    axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(values), s1=tf.shape(like)).r1
    return tf.reshape(tf.reduce_sum(values, axes), tf.shape(like))
