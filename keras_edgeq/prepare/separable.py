"""Separable convolutions as the two kernels that run on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.spec.tensor_ref import part_name

L = tf_keras.layers
PARTS = {
    L.SeparableConv1D: (L.DepthwiseConv1D, L.Conv1D),
    L.SeparableConv2D: (L.DepthwiseConv2D, L.Conv2D),
}


def splits(layer: Any) -> bool:
    """Tell whether a layer is two; a causal one stays: Keras has no causal depthwise layer."""
    return type(layer) in PARTS and layer.padding != "causal"


def kernels(layer: Any, weights: list[np.ndarray]) -> list[tf_keras.layers.Layer]:
    """Return a separable convolution without its activation as a depthwise and a 1x1 convolution.

    The depthwise part is named `<layer>/depthwise`; the pointwise part keeps the layer's name.

    Args:
        layer: the convolution.
        weights: its own, without those of a layer that is its activation.
    """
    depthwise_class, pointwise_class = PARTS[type(layer)]
    options = {"data_format": layer.data_format, "trainable": layer.trainable}
    depthwise = depthwise_class(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        name=part_name(layer.name, "depthwise"),
        weights=weights[:1],
        **options,
    )
    pointwise = pointwise_class(
        layer.filters,
        1,
        use_bias=layer.use_bias,
        kernel_regularizer=layer.pointwise_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_regularizer=layer.bias_regularizer,
        bias_constraint=layer.bias_constraint,
        name=layer.name,
        weights=weights[1:],
        **options,
    )
    return [depthwise, pointwise]
