"""Bring a mixed-precision model to float32, which integer kernels are compared with."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from keras_edgeq.graph.rebuild import clone, rebuild

# Policies under which half precision is for speed, and variables are float32.
MIXED = ("mixed_float16", "mixed_bfloat16")
# Real numbers of another size.
OTHER_TYPES = (tf.float16, tf.bfloat16, tf.float64)


def mixed_policies(model: tf_keras.Model, path: str = "") -> dict[str, str]:
    """Return the mixed policy of each layer that has one, by the layer's name in `flatten_nested`.

    A prepared model computes in float32; this is what it forgets of the user's model.
    """
    policies: dict[str, str] = {}
    for layer in model.layers:
        if isinstance(layer, tf_keras.Model):
            policies |= mixed_policies(layer, f"{path}{layer.name}/")
        elif layer.dtype_policy.name in MIXED:
            policies[f"{path}{layer.name}"] = layer.dtype_policy.name
    return policies


def to_float32(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model computing in float32; the same model where it does already."""
    if all(computes_float32(layer) for layer in model.layers):
        return model
    weights = []

    def on_layer(layer):
        if isinstance(layer, tf_keras.layers.InputLayer):
            return None
        new = clone(layer, dtype="float32")
        weights.append((layer, new))
        return new

    def on_call(_, new, args, kwargs):
        args, kwargs = tf.nest.map_structure(_constant_to_float32, (args, kwargs))
        return new(*args, **kwargs)

    result = rebuild(model, on_layer, on_call=on_call)
    for old, new in weights:
        if old.weights:
            new.set_weights([w.astype("float32") for w in old.get_weights()])
    return result


def computes_float32(layer) -> bool:
    """Tell whether a layer computes in no other float type."""
    return layer.compute_dtype not in {t.name for t in OTHER_TYPES}


def _constant_to_float32(value):
    """Cast a constant among the arguments; symbolic tensors and Python values stay."""
    if isinstance(value, tf.Tensor) and value.dtype in OTHER_TYPES:
        return tf.cast(value, tf.float32)
    return tf.float32 if value in OTHER_TYPES and isinstance(value, tf.DType) else value
