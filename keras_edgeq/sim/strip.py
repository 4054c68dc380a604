"""Take the quantizers out again: the float model a sim stands for."""

from __future__ import annotations

from dataclasses import replace

import tf_keras

from keras_edgeq.graph.rebuild import clone, copy_weights, rebuild
from keras_edgeq.layers import FakeQuant, FreezableBatchNorm, QuantizedLayer
from keras_edgeq.sim.beside import Floats
from keras_edgeq.sim.identity import check_identity
from keras_edgeq.sim.insert import layer_name
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.samples import few, samples_of
from keras_edgeq.spec.tensor_ref import TensorRef

L = tf_keras.layers


def strip(sim: QuantSim) -> tf_keras.Model:
    """Return the float Keras model inside a sim: plain layers, present weights, no rounding.

    It is the prepared form of the user's model: one operation per layer, batch norms folded except
    those that train. It loads without keras_edgeq.

    Example:
        >>> plain = eq.strip(sim)
        >>> [layer.name for layer in plain.layers if layer.weights]
        ['conv', 'head']

    Raises:
        SimMismatchError: it would not compute what the sim does without rounding, which is a fault
            of this package.
    """
    model = stripped(sim)
    check_identity(Floats(model, few(samples_of(sim)[0], sim)), sim)
    return model


def stripped(sim: QuantSim) -> tf_keras.Model:
    """Do what `strip` does, unchecked: for callers that check their own result."""
    copies, batch_norms = [], []
    activations: dict[str, tf_keras.layers.Layer] = {}

    def on_layer(layer):
        if isinstance(layer, FakeQuant):
            return layer
        if isinstance(layer, FreezableBatchNorm):
            plain = L.BatchNormalization.from_config(layer.get_config())
            batch_norms.append((layer, plain))
            return plain
        if not isinstance(layer, QuantizedLayer):
            return None
        inner = clone(layer.layer)
        copies.append((layer.layer, inner))
        return inner

    def on_call(call, new, args, kwargs):
        if isinstance(new, FakeQuant):
            return (_activated(args[0], call.node.call_kwargs, activations),) * 3
        if isinstance(call.layer, QuantizedLayer):
            return (new(args[0]),) * 3
        if "unit" in kwargs and isinstance(call.layer, FreezableBatchNorm):
            made = new(*args, **{name: value for name, value in kwargs.items() if name != "unit"})
            return made, made
        return new(*args, **kwargs)

    model = rebuild(sim, on_layer, on_call=on_call)
    for old, new in copies:
        copy_weights(old, new)
    for old, new in batch_norms:
        new.set_weights(old.get_weights()[:-1])
    return model


def _activated(tensor, options, activations):
    """Give a fused activation its layer and its name back; a layer called twice shares it."""
    activation = options.get("activation")
    if activation is None:
        return tensor
    ref = replace(TensorRef.parse(options["tensor"], "output"), call=0)
    name = layer_name(ref).removesuffix("/quant")
    if name not in activations:
        activations[name] = L.ReLU(6.0 if activation == "relu6" else None, name=name)
    return activations[name](tensor)
