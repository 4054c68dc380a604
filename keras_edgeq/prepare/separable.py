"""Split separable convolutions into the two kernels that run on a device."""

from __future__ import annotations

import tf_keras

from keras_edgeq.graph.rebuild import rebuild
from keras_edgeq.spec.tensor_ref import part_name

L = tf_keras.layers
PARTS = {
    L.SeparableConv1D: (L.DepthwiseConv1D, L.Conv1D),
    L.SeparableConv2D: (L.DepthwiseConv2D, L.Conv2D),
}


def split_separable(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with each SeparableConv as a depthwise and a 1x1 convolution.

    The depthwise part is named `<layer>/depthwise`; the pointwise part keeps the layer's name.
    A causal SeparableConv1D stays whole: Keras has no causal depthwise layer.
    """
    if not any(type(layer) in PARTS for layer in model.layers):
        return model
    return rebuild(model, _parts)


def _parts(layer):
    if type(layer) not in PARTS or layer.padding == "causal":
        return None
    depthwise_class, pointwise_class = PARTS[type(layer)]
    kernels = layer.get_weights()
    depthwise = depthwise_class(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        name=part_name(layer.name, "depthwise"),
        weights=kernels[:1],
    )
    pointwise = pointwise_class(
        layer.filters,
        1,
        data_format=layer.data_format,
        activation=layer.activation,
        use_bias=layer.use_bias,
        name=layer.name,
        weights=kernels[1:],
    )
    return lambda x: pointwise(depthwise(x))
