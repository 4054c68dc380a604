"""`QuantizedLayer`: a layer whose parameters are fake-quantized, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.layers.fake_quant import FakeQuant
from keras_edgeq.layers.layer_traits import weight_trait
from keras_edgeq.numerics.fake_quant import fake_quant
from keras_edgeq.spec.quant_spec import QuantSpec

INT32_MAX = float(2**31 - 1)


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class QuantizedLayer(tf_keras.layers.Wrapper):
    """Runs a layer with its kernel on an integer grid and its bias on the int32 grid of a kernel.

    The wrapped layer sees the rounded tensors in place of its variables for the length of the
    call, so gradients reach both the variables and the scales.

    Args:
        layer: a layer that `weight_trait` knows.
        params: parameter name -> `QuantSpec` (or its JSON). A bias has rule `"derived"`.

    Call arguments:
        inputs: what the layer takes.
        input_scale: scalar scale of the input's grid; without it the bias stays float.
    """

    def __init__(self, layer: Any, params: Mapping[str, Any], **kwargs: Any):
        super().__init__(layer, **{"name": layer.name, "dtype": "float32", **kwargs})
        specs = {
            name: spec if isinstance(spec, QuantSpec) else QuantSpec.from_json(spec)
            for name, spec in params.items()
        }
        self.bias_spec = specs.get("bias")
        self.quantizers = {
            name: FakeQuant(spec, f"{layer.name}/{name}", name=f"{name}_grid")
            for name, spec in specs.items()
            if spec.rule != "derived"
        }
        self.supports_masking = layer.supports_masking

    @property
    def kernel_name(self) -> str:
        """Attribute name of the wrapped layer's kernel."""
        trait = weight_trait(self.layer)
        if trait is None:
            raise ValueError(f"{type(self.layer).__name__} has no quantizable kernel.")
        return trait.kernel

    def build(self, input_shape=None):
        """Build the wrapped layer and the grids of its parameters."""
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True
        for name, quantizer in self.quantizers.items():
            if not quantizer.built:
                with tf.name_scope(quantizer.name):
                    quantizer.build(getattr(self.layer, name).shape)
        self.built = True

    def call(self, inputs, input_scale=None, training=None):
        """Call the wrapped layer on its rounded parameters."""
        with swapped(self.layer, self.rounded_params(input_scale)):
            if self.layer._expects_training_arg:
                return self.layer(inputs, training=training)
            return self.layer(inputs)

    def rounded_params(self, input_scale=None) -> dict[str, Any]:
        """Return the parameters as the target stores them, in float, by attribute name."""
        rounded, scales = {}, {}
        for name, quantizer in self.quantizers.items():
            rounded[name], scales[name] = quantizer(getattr(self.layer, name))
        if self.bias_spec is not None and input_scale is not None:
            scale = self.bias_scale(input_scale, scales[self.kernel_name])
            bias = self.layer.bias
            rounded["bias"] = fake_quant(bias, scale, 0.0, -INT32_MAX - 1.0, INT32_MAX)
        return rounded

    def bias_scale(self, input_scale, kernel_scale):
        """Return the bias grid, input scale times kernel scale, shaped to broadcast to the bias."""
        if len(kernel_scale.shape) == 0:
            return input_scale * kernel_scale
        return input_scale * tf.reshape(kernel_scale, self.layer.bias.shape)

    def get_config(self):
        """Return the wrapped layer and the grids of its parameters."""
        specs = {name: q.spec.to_json() for name, q in self.quantizers.items()}
        if self.bias_spec is not None:
            specs["bias"] = self.bias_spec.to_json()
        return {**super().get_config(), "params": specs}


@contextmanager
def swapped(layer: Any, values: Mapping[str, Any]):
    """Let `layer` see `values` in place of its attributes, and give it back what it had.

    Plain `setattr` would re-track the attribute and reorder the layer's weights.
    """
    kept = {name: layer.__dict__[name] for name in values}
    try:
        for name, value in values.items():
            object.__setattr__(layer, name, value)
        yield
    finally:
        for name, value in kept.items():
            object.__setattr__(layer, name, value)
