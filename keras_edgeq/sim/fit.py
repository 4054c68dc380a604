"""Fit grids: to the values of a weight, or to a range."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.numerics.affine import grid_from_range
from keras_edgeq.numerics.blocks import in_blocks, multiples_of, shape_of_blocks
from keras_edgeq.numerics.range_rules import weight_range
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.quant_spec import QuantSpec


def fit_weight(spec: QuantSpec, values: NDArray) -> Encoding:
    """Return the grid that a weight of finite values gets, by the rule of its spec."""
    if not spec.block_size:
        return fit_range(spec, *weight_range(values, spec.axes, spec.rule, **grid_options(spec)))
    blocks, axes = in_blocks(values, spec.axes, spec.block_size)
    shape = shape_of_blocks(values.shape, spec.axes, spec.block_size)
    ends = weight_range(blocks, axes, spec.rule, **grid_options(spec))
    low, high = (end.reshape(shape) for end in ends)
    own = fit_range(spec, low, high)
    if not spec.block_bits:
        return own
    # Blocks of zeros fit any scale, and say nothing about that of their channel.
    wanted = np.where((low == 0.0) & (high == 0.0), np.float32(0.0), own.scale)
    scale, multiples = multiples_of(wanted, spec.axes, spec.block_bits)
    return Encoding(spec, scale, np.zeros(scale.shape, np.int32), multiples)


def fit_range(spec: QuantSpec, low: Any, high: Any) -> Encoding:
    """Return the grid of a range, or of one per channel."""
    options = {k: v for k, v in grid_options(spec).items() if k != "percentile"}
    scale, zero_point = grid_from_range(low, high, **options)
    return Encoding(spec, scale, zero_point)


def grid_options(spec: QuantSpec) -> dict[str, Any]:
    """Return the fields of a spec that range rules look at."""
    return {
        "bits": spec.bits,
        "symmetric": spec.symmetric,
        "signed": bool(spec.signed),
        "narrow_range": spec.narrow_range,
        "percentile": spec.percentile,
    }
