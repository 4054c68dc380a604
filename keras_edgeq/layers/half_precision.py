"""How a `QuantizedLayer` trains in half precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_edgeq.numerics.round_to_steps import carry_scale

if TYPE_CHECKING:
    from keras_edgeq.layers.quantized_layer import QuantizedLayer

# Steps of grids up to so many bits are exact in both half types: 255 has 8 significant bits.
HALF_BITS = 8
HALF_STEPS = 2.0**HALF_BITS


def half_sums(
    layer: QuantizedLayer,
    steps: Any,
    params: dict[str, Any],
    input_scale: Any,
    scale: Any,
    dtype: Any,
):
    """Return the sums for an input in steps; gradients of the scales go through the steps."""
    kept = layer.quantizers[layer.kernel_name].start.shape
    kernel = carry_scale(params[layer.kernel_name], tf.reshape(scale, kept))
    steps = carry_scale(steps, input_scale)
    sums = layer.products(steps / HALF_STEPS, kernel, dtype) * HALF_STEPS
    if "bias" not in params:
        return sums
    return sums + carry_scale(params["bias"], input_scale * scale)


def half_outputs(layer: QuantizedLayer, inputs: Any, dtype: Any):
    """Return the outputs for a real input."""
    name = layer.kernel_name
    _, steps, scale = layer.quantizers[name](getattr(layer.layer, name))
    outputs = layer.products(inputs, carry_scale(steps, scale), dtype)
    outputs *= layer.per_output(tf.stop_gradient(scale))
    bias = getattr(layer.layer, "bias", None)
    return outputs if bias is None else outputs + bias
