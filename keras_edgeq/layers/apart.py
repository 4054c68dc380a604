"""Call layers inside traced functions so that each computes what it does alone."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_edgeq.graph.rebuild import infer
from keras_edgeq.ops import op_of
from keras_edgeq.ops.plain import LEAKY_RELU


def infer_apart(layer: Any, args: tuple, kwargs: dict) -> Any:
    """Call a layer in inference mode, apart from what stands before it in a traced function.

    Where oneDNN is on, as TensorFlow (2.21) has it by default on processors with instructions for
    neural networks, a graph's convolution, bias, sum and leaky ReLU become one operation, and its
    slope is 0.2, not the layer's own. A check of a shape that is known stops that and costs
    nothing.
    """
    if op_of(layer) is LEAKY_RELU and tf.is_tensor(args[0]):
        args = (tf.ensure_shape(args[0], args[0].shape), *args[1:])
    return infer(layer, args, kwargs)
