"""Random augmentation of integers: its cast, which is all that it does at inference, as a layer."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import calls, rebuild
from keras_edgeq.ops.plain import AUGMENTATIONS
from keras_edgeq.spec.tensor_ref import part_name


def cast_in_front(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with a cast in front of augmentations that read integers, such as pixels.

    Args:
        model: a functional model without models inside; it is not changed.
    """
    if not any(_reads_integers(call.layer, call.node.keras_inputs) for call in calls(model)):
        return model
    return rebuild(model, on_call=_call)


def _call(call, new, args, kwargs):
    if _reads_integers(call.layer, args):
        cast = tf.cast(args[0], tf.float32)
        name = part_name(call.layer.name, f"cast_{call.number}" if call.number else "cast")
        keras_compat.rename(keras_compat.producer(cast)[0], name)
        args = (cast, *args[1:])
    return new(*args, **kwargs)


def _reads_integers(layer, inputs) -> bool:
    return type(layer) in AUGMENTATIONS and not inputs[0].dtype.is_floating
