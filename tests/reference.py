"""Slow, plain NumPy definitions that the package is tested against; nothing here imports it.

Loops over single numbers, so that each rule can be read off. `f32` marks where a real runtime
computes in float32.
"""

from __future__ import annotations

import math

import numpy as np

f32 = np.float32
BIN_HALF = 2048


def grid_bounds(bits, signed, narrow_range=False):
    """Integers of a grid, from the definition of two's complement."""
    if signed:
        return -(1 << (bits - 1)) + (1 if narrow_range else 0), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def grid_from_range(low, high, bits, symmetric, signed, narrow_range, smallest=2.0**-60):
    """Scale and zero point of one range of Python floats."""
    qmin, qmax = grid_bounds(bits, signed, narrow_range)
    low, high = min(low, 0.0), max(high, 0.0)
    width = max(abs(low), abs(high)) / qmax if symmetric else (high - low) / (qmax - qmin)
    scale = f32(1.0) if width == 0.0 else f32(max(width, smallest))
    if symmetric:
        end = f32(min(max(abs(low), abs(high)), float(np.finfo(f32).max)))
        for _ in range(2):  # the end of the range must not lie beyond the last integer
            if end / scale > qmax or end * (f32(1.0) / scale) > qmax:
                scale = np.nextafter(scale, f32(np.inf))
        return scale, 0
    # Python's round is half to even.
    return scale, int(min(max(round(qmin - low / float(scale)), qmin), qmax))


def round_half_even(value):
    """Nearest integer of a Python float, ties to even."""
    return round(value)


def round_half_away(value):
    """Nearest integer of a Python float, ties away from zero, without float addition."""
    whole = math.trunc(value)
    if abs(value - whole) >= 0.5:
        whole += 1 if value > 0 else -1
    return whole


def _elements(x, *grid):
    """Yield index and numbers of `x` and the broadcast grid."""
    arrays = [np.broadcast_to(np.asarray(g), np.shape(x)) for g in grid]
    for index in np.ndindex(np.shape(x)):
        yield index, x[index], *(a[index] for a in arrays)


def quantize(x, scale, zero_point, qmin, qmax, half_away=False):
    """Grid integers of `x`: one float32 division, then exact rounding and clipping."""
    out = np.zeros(np.shape(x), np.int64)
    for index, value, s, z, bottom, top in _elements(x, scale, zero_point, qmin, qmax):
        ratio = float(f32(value) / f32(s))
        if half_away:
            q = round_half_away(float(f32(ratio) + f32(z)))
        else:
            q = round_half_even(ratio) + int(z)
        out[index] = min(max(q, int(bottom)), int(top))
    return out


def fake_quant(x, scale, zero_point, qmin, qmax, half_away=False):
    """Quantize, then dequantize in float32."""
    q = quantize(x, scale, zero_point, qmin, qmax, half_away)
    out = np.zeros(np.shape(x), f32)
    for index, integer, s, z in _elements(q, scale, zero_point):
        out[index] = f32(integer - int(z)) * f32(s)
    return out


def fake_quant_gradients(x, upstream, scale, zero_point, qmin, qmax, half_away=False):
    """Gradients to `x`, scale and zero point, before summing over broadcast axes; float64.

    LSQ (arXiv:1902.08153) equation 3 for the scale, with the ends counted as inside; LSQ+
    (arXiv:2004.09576) for the zero point.
    """
    dx, dscale, dzero = (np.zeros(np.shape(x)) for _ in range(3))
    integers = quantize(x, scale, zero_point, qmin, qmax, half_away)
    for index, value, s, z, bottom, top in _elements(x, scale, zero_point, qmin, qmax):
        ratio = float(f32(value) / f32(s))
        g = float(upstream[index])
        if ratio < bottom - z:
            dscale[index], dzero[index] = g * (bottom - z), -g * float(s)
        elif ratio > top - z:
            dscale[index], dzero[index] = g * (top - z), -g * float(s)
        else:
            dx[index] = g
            dscale[index] = g * (int(integers[index]) - int(z) - ratio)
    return dx, dscale, dzero


def sum_to_shape(values, shape):
    """Sum over the axes in which an array of `shape` was broadcast to `values`."""
    out = np.zeros(shape)
    targets = np.broadcast_to(np.arange(out.size).reshape(shape), values.shape)
    for index in np.ndindex(values.shape):
        out.flat[targets[index]] += values[index]
    return out


def histogram_exponent(values, smallest=-100):
    """Smallest k with every value in `[-2048 * 2**k, 2048 * 2**k)`, by trying each."""
    k = smallest
    while not all(-BIN_HALF * 2.0**k <= float(v) < BIN_HALF * 2.0**k for v in np.ravel(values)):
        k += 1
    return k


def histogram_counts(values, exponent):
    """Counts of the bins, by exact division of Python floats."""
    counts = np.zeros(2 * BIN_HALF, np.int64)
    for value in np.ravel(values):
        counts[math.floor(float(value) / 2.0**exponent) + BIN_HALF] += 1
    return counts


def squared_error(values, low, high, bits, symmetric, signed, narrow_range):
    """Summed squared error of rounding `values` onto the grid of a range."""
    scale, zero = grid_from_range(low, high, bits, symmetric, signed, narrow_range)
    y = fake_quant(values, scale, zero, *grid_bounds(bits, signed, narrow_range))
    return sum(
        (float(a) - float(b)) ** 2 for a, b in zip(np.ravel(y), np.ravel(values), strict=True)
    )


def aimet_histogram(values, bins=512):
    """Start, bin width and counts of AIMET's histogram of one tensor: three times its range."""
    low, high = float(np.min(values)), float(np.max(values))
    center = (low + high) / 2
    start = center - 3 * (center - low)
    width = (center + 3 * (high - center) - start) / bins
    counts = np.zeros(bins)
    for value in np.ravel(values):
        counts[round_half_away(float(value) / width - start / width)] += 1
    return start, width, counts


def sqnr_cost(start, width, counts, step, offset, steps):
    """AIMET's cost of a grid of `steps` steps: squared errors, those of clipped bins threefold."""

    def center(i):
        return start + (i + 0.5) * width

    def index(value):
        return min(max(math.floor((value - start) / width), 0), len(counts) - 1)

    first, stop = index(step * offset), index(step * (offset + steps))
    cost = 0.0
    for i, count in enumerate(counts):
        if i < first:
            cost += 3.0 * count * (center(i) - center(first)) ** 2
        elif i >= stop:
            cost += 3.0 * count * (center(i) - center(stop)) ** 2
        else:
            cost += count * (center(i) - step * round_half_away(center(i) / step)) ** 2
    return cost / sum(counts)


def kl_divergence(counts, levels, bottom, top, unseen=0.25):
    """Divergence of rounded from clipped counts, where `levels` holds each bin's integer."""
    total = sum(counts)
    inside = [i for i, level in enumerate(levels) if bottom <= level <= top]
    if not inside:
        return math.inf
    kept = sum(counts[i] for i in inside)
    clipped = {i: counts[i] for i in inside}
    clipped[inside[0]] += sum(counts[: inside[0]])
    clipped[inside[-1]] += sum(counts[inside[-1] + 1 :])
    divergence = 0.0
    for i in inside:
        if clipped[i] == 0:
            continue
        level = [j for j in inside if levels[j] == levels[i]]
        mean = sum(counts[j] for j in level) / sum(clipped[j] > 0 for j in level)
        p, q = clipped[i] / total, max(mean / max(kept, 1.0), unseen / total)
        divergence += p * math.log(p / q)
    return divergence


def octav_clip(values, steps, iterations=64):
    """OCTAV's recursion for `|values|` from 0, with `steps` steps from zero to the clip."""
    sizes = [abs(float(value)) for value in np.ravel(values)]
    noise, clip = 1 / (12 * steps**2), 0.0
    for _ in range(iterations):
        beyond = [size for size in sizes if size > clip]
        inside = sum(0.0 < size <= clip for size in sizes)
        if beyond:
            clip = sum(beyond) / (noise * inside + len(beyond))
    return clip


def moving_average(values, momentum):
    """Mean of the values with weights that fall by `momentum` from the last one backwards."""
    weights = [momentum ** (len(values) - 1 - i) for i in range(len(values))]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
