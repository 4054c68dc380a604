"""Masks as tensors of the graph, so that whoever walks the model carries them along.

Keras hangs a mask on a tensor as an attribute. Whatever makes another tensor of it, such as a
quantizer, a stream of stored activations or a traced export, loses it.
"""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.masks import Masks
from keras_edgeq.graph.rebuild import calls, rebuild


def masks_to_tensors(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with every implicit mask passed to its readers as an argument.

    A mask is computed by the layers that Keras has compute it, as operations named
    `<layer>/mask`. A mask that the user passes stays.

    Args:
        model: a functional model without models inside; it is not changed.
    """
    made = (t for call in calls(model) for t in tf.nest.flatten(call.node.outputs))
    if all(keras_compat.mask_of(tensor) is None for tensor in made):
        return model
    masks = Masks()
    return rebuild(model, on_call=lambda _, new, args, kwargs: masks.call(new, args, kwargs))
