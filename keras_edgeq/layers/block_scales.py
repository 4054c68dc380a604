"""How a `FakeQuant` of a weight in blocks finds the scale of each element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_edgeq.numerics.blocks import spread

if TYPE_CHECKING:
    from keras_edgeq.layers.fake_quant import FakeQuant


def unit_of(grid: FakeQuant, scale: Any, shape: tf.TensorShape):
    """Return what a step of each element is worth, broadcastable to a shape."""
    if not grid.spec.block_size:
        return scale
    if grid.multiples is not None:
        scale = scale * tf.convert_to_tensor(grid.multiples)
    return _spread(grid, scale, shape)


def of_steps(grid: FakeQuant, steps: Any, scale: Any):
    """Return what a quantizer makes of numbers that are rounded to these steps."""
    if grid.multiples is not None:
        steps = steps * _spread(grid, tf.convert_to_tensor(grid.multiples), steps.shape)
        return steps * scale, steps, scale
    return steps * unit_of(grid, scale, steps.shape), steps, scale


def _spread(grid: FakeQuant, numbers: Any, shape: tf.TensorShape):
    return spread(numbers, shape, grid.spec.axes, grid.spec.block_size, tf)
