"""Take the quantizers out again: the float model a sim stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.name_operations import name_operations
from keras_edgeq.graph.rebuild import clone, copy_weights, rebuild
from keras_edgeq.layers import FakeQuant, FreezableBatchNorm, QuantizedLayer
from keras_edgeq.layers.fake_quant import BOUNDS
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
    activations = _Activations(sim)

    def on_layer(layer):
        if isinstance(layer, FakeQuant):
            return layer
        if isinstance(layer, FreezableBatchNorm):
            plain = L.BatchNormalization.from_config(layer.get_config())
            batch_norms.append((layer, plain))
            return plain
        if not isinstance(layer, QuantizedLayer):
            return activations.layers.get(layer.name)
        inner = clone(layer.layer)
        copies.append((layer.layer, inner))
        return inner

    def on_call(call, new, args, kwargs):
        if isinstance(new, FakeQuant):
            return (activations.apply(args[0], call.node.call_kwargs),) * 3
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


class _Activations:
    """Activations that quantizers took over, as layers again, with their names.

    Args:
        sim: where calls of such a layer are none that a quantizer took over, it is there, too.

    Attributes:
        layers: by their names.
    """

    def __init__(self, sim: QuantSim):
        own = {layer.name: layer for layer in sim.layers}
        calls = (node.call.node.call_kwargs for node in LayerGraph.of(sim).nodes)
        fused = [_name(options) for options in calls if options.get("activation") is not None]
        self.layers = {name: clone(own[name]) for name in fused if name in own}

    def apply(self, tensor: Any, options: Mapping[str, Any]) -> Any:
        """Return what a fused activation makes; a layer that is called twice is one layer."""
        activation = options.get("activation")
        if activation is None:
            return tensor
        name = _name(options)
        low, high = BOUNDS[activation] if isinstance(activation, str) else activation
        layer = self.layers.get(name)
        if layer is None and low == 0.0:
            layer = L.ReLU(high if np.isfinite(high) else None, name=name)
        if layer is None:
            made = tf.clip_by_value(tensor, low, high)
            name_operations(made, {id(keras_compat.producer(tensor)[0])}, iter([name]))
            self.layers[name] = keras_compat.producer(made)[0]
            return made
        self.layers[name] = layer
        if keras_compat.op_symbol(layer) is None:
            return layer(tensor)
        return layer(tensor, clip_value_min=low, clip_value_max=high)


def _name(options: Mapping[str, Any]) -> str:
    ref = replace(TensorRef.parse(options["tensor"], "output"), call=0)
    return layer_name(ref).removesuffix("/quant")
