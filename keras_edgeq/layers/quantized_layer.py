"""`QuantizedLayer`: a layer whose parameters are fake-quantized, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.known_outputs import KnownOutputs
from keras_edgeq.layers.arithmetic import ROUNDED, Arithmetic
from keras_edgeq.layers.as_written import as_written
from keras_edgeq.layers.fake_quant import FakeQuant
from keras_edgeq.layers.half_precision import HALF_BITS, HALF_STEPS, half_outputs, half_sums
from keras_edgeq.layers.swap import LOCK, swapped
from keras_edgeq.numerics.round_to_steps import to_steps
from keras_edgeq.ops import weights_of
from keras_edgeq.ops.einsum import summed_axes
from keras_edgeq.ops.table import activation_name
from keras_edgeq.spec.quant_spec import QuantSpec
from keras_edgeq.table import brief

# Largest bias a kernel adds, by the bits of its grid; int64 accumulators of LiteRT hold 40 bits.
BIAS_MAX = {32: float(2**31 - 1), 64: float(2**39 - 1)}


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class QuantizedLayer(KnownOutputs, tf_keras.layers.Wrapper):
    """Runs a layer with its kernel on an integer grid and its bias on the int32 grid of a kernel.

    The wrapped layer sees the rounded tensors instead of its variables for the length of the
    call, so gradients reach both the variables and the scales.

    It computes in float32, and inference always does. Under `dtype="mixed_float16"` or
    `"mixed_bfloat16"` a call with `training=True` multiplies in half precision: steps of inputs and
    of the kernel, divided by 256 so that nothing overflows, which is exact for grids of up to 8
    bits; a real input is cast. The products go back to float32 and to whole sums, of which half
    precision keeps 11 bits, or 8. The bias, all variables and their gradients stay float32. A
    kernel of more bits, of floats or with scales of blocks, a layer that sums no products, an
    activation or activity regularizer inside the layer, and a `training` that is known only at run
    time leave it in float32.

    Args:
        layer: a layer that `weights_of` knows.
        params: parameter name -> `QuantSpec` (or its JSON). A bias has rule `"derived"`, or is half
            precision as the kernel is.
        training: parameter name -> `learn` and `ewgs` of its `FakeQuant`.
        constant: whether the parameters are constants of the user's model: no training changes
            them, regardless of `trainable`.
        rounds_rows: whether the kernel rounds each row of a float input as it runs (`round_rows`).
        dtype: the policy that it trains under; a mixed one only where inputs in steps have at most
            8 bits.

    Call arguments:
        inputs: what the layer takes.
        input_scale: scalar scale of the input's grid. With it the layer sums integers, exactly as
            the kernel does, and its bias is rounded; without it the bias stays float.
        in_steps: `inputs` are in steps of that scale already.

    Returns:
        `(outputs, sums, scale)`: the layer's output; the integer sums it is made of, and the scale
        per channel that makes one of the other, of up to 4 bits in float64, as kernels that round
        twice take it. Without `input_scale` the sums are the outputs.
    """

    arithmetic: Arithmetic = ROUNDED

    def __init__(
        self,
        layer: Any,
        params: Mapping[str, Any],
        training: Mapping[str, Mapping[str, Any]] | None = None,
        constant: bool = False,
        rounds_rows: bool = False,
        **kwargs: Any,
    ):
        defaults = {"name": layer.name, "dtype": "float32"}
        super().__init__(layer, **{**defaults, **kwargs, "autocast": False})
        specs = {
            name: spec if isinstance(spec, QuantSpec) else QuantSpec.from_json(spec)
            for name, spec in params.items()
        }
        self.bias_spec = next((s for s in specs.values() if s.rule == "derived"), None)
        self.constant, self.rounds_rows, options = constant, rounds_rows, training or {}
        self.quantizers = {
            name: FakeQuant(
                spec,
                f"{layer.name}/{name}",
                per_sample=False,
                name=f"{name}_grid",
                **options.get(name, {}),
            )
            for name, spec in specs.items()
            if spec.rule != "derived"
        }
        self.supports_masking = layer.supports_masking

    @property
    def trainable_weights(self):
        """The variables that training changes."""
        return [] if self.constant else super().trainable_weights

    @property
    def non_trainable_weights(self):
        """All other variables."""
        if not self.constant:
            return super().non_trainable_weights
        return [*super().trainable_weights, *super().non_trainable_weights]

    @property
    def kernel_name(self) -> str:
        """Attribute name of the wrapped layer's kernel."""
        trait = weights_of(self.layer)
        if trait is None:
            raise ValueError(f"{type(self.layer).__name__} has no quantizable kernel.")
        return trait.kernel

    def build(self, input_shape: Any = None):
        """Build the wrapped layer and the grids of its parameters."""
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True
        for name, quantizer in self.quantizers.items():
            if not quantizer.built:
                with tf.name_scope(quantizer.name):
                    quantizer.build(getattr(self.layer, name).shape)
        self.built = True

    def __call__(self, *args: Any, **kwargs: Any):
        """Call the layer while no other thread exchanges its attributes."""
        with LOCK:
            return super().__call__(*args, **kwargs)

    @as_written
    def call(
        self,
        inputs: Any,
        input_scale: tf.Tensor | None = None,
        in_steps: bool = False,
        training: Any = None,
    ):
        """Call the wrapped layer on its rounded parameters."""
        half = self._half(training)
        if input_scale is None:
            inputs = self.as_read(inputs)
            if half is None:
                outputs = self._call_layer(inputs, self.rounded_params(), training)
            else:
                outputs = half_outputs(self, inputs, half)
            return outputs, outputs, tf.constant(1.0)
        steps = inputs if in_steps else to_steps(inputs, input_scale, self.arithmetic.whole)
        params, scale = self.integer_params(input_scale)
        if half is None:
            sums = self._call_layer(steps, params, training)
        else:
            sums = half_sums(self, steps, params, input_scale, scale, half)
            input_scale, scale = tf.stop_gradient(input_scale), tf.stop_gradient(scale)
        return sums * (input_scale * scale), sums, self._exact(input_scale, scale)

    def as_read(self, inputs: Any):
        """Return a float input as the kernel reads it."""
        if not self.rounds_rows:
            return inputs
        return self.arithmetic.rows(inputs, summed_axes(self.layer, inputs.shape.rank))

    def output_specs(self, inputs: Any, input_scale: tf.Tensor | None = None, **_):
        """Return what a call makes.

        None if the layer adds a loss or makes a mask, or does not know the size it makes.
        """
        layer = self.layer
        makes_mask = getattr(layer, "mask_zero", False)
        if layer.activity_regularizer is not None or makes_mask or inputs.shape.rank is None:
            return None
        made = tf.TensorSpec(layer.compute_output_shape(inputs.shape), tf.float32)
        if inputs.shape[1:].is_fully_defined() and not made.shape[1:].is_fully_defined():
            return None
        if input_scale is None:
            return made, made, tf.TensorSpec([], tf.float32)
        kernel = self.quantizers[self.kernel_name]
        scale = tf.TensorShape(kernel.start.shape)
        shape = self._channels(scale) if scale.rank else []
        return made, made, tf.TensorSpec(shape, tf.float64 if self._few_bits else tf.float32)

    def compute_mask(self, inputs: Any, mask: Any = None):
        """Pass on what the wrapped layer makes of the mask."""
        mask = self.layer.compute_mask(inputs, mask)
        return [mask, mask, None]

    @property
    def sums_integers(self) -> bool:
        """Tell whether the layer is a sum of products that one scale per channel multiplies."""
        trait = weights_of(self.layer)
        if trait is None or trait.bias is None:
            return False
        spec = self.quantizers[trait.kernel].spec
        return not (spec.is_half or spec.scales_blocks)

    def rounded_params(self) -> dict[str, Any]:
        """Return the quantized parameters rounded, in real units, by attribute name."""
        return {name: q(getattr(self.layer, name))[0] for name, q in self.quantizers.items()}

    def integer_params(self, input_scale: tf.Tensor) -> tuple[dict[str, Any], Any]:
        """Return the parameters in integers as the kernel holds them, and the weights' scale.

        The bias lies on the grid input scale times weight scale, int32; one that the target keeps
        in float is only divided by it. The scale broadcasts to the output's last axes.
        """
        name = self.kernel_name
        _, steps, scale = self.quantizers[name](getattr(self.layer, name))
        scale = self.per_output(scale)
        params = {name: steps}
        if getattr(self.layer, "bias", None) is not None:
            bias = self.layer.bias
            full = input_scale * scale
            if self.bias_spec is None:
                params["bias"] = bias / full
            else:
                ratio, most = tf.math.divide_no_nan(bias, full), BIAS_MAX[self.bias_spec.bits]
                params["bias"] = self.arithmetic.to_steps(ratio, -most - 1.0, most)
        return params, scale

    def per_output(self, scale: tf.Tensor):
        """Return a scale of the kernel as it broadcasts to the output's last axes."""
        return tf.reshape(scale, self._channels(scale.shape)) if scale.shape.rank else scale

    def _exact(self, input_scale: tf.Tensor, scale: tf.Tensor):
        """Return the product of the scales, in float64 for a kernel that may be rounded twice."""
        if not self._few_bits:
            return input_scale * scale
        return tf.cast(input_scale, tf.float64) * tf.cast(scale, tf.float64)

    @property
    def _few_bits(self) -> bool:
        """Tell whether the kernel has so few bits that a target may round its sums twice."""
        return self.quantizers[self.kernel_name].spec.bits <= 4

    def _channels(self, kept: tf.TensorShape) -> list[int]:
        """Return the shape in which a scale per channel broadcasts to the output's last axes."""
        if isinstance(self.layer, tf_keras.layers.EinsumDense):
            return [int(kept[axis]) for axis in self.quantizers[self.kernel_name].spec.axes]
        return [int(kept.num_elements())]

    def _call_layer(self, inputs: Any, params: dict[str, Any], training: Any):
        with swapped(self.layer, params):
            options = {"training": training} if keras_compat.takes_training(self.layer) else {}
            return self.layer(inputs, **options)

    def _half(self, training: Any) -> tf.DType | None:
        """Return the half type that a call multiplies in, None for float32."""
        dtype = tf.as_dtype(self.compute_dtype)
        if dtype not in (tf.float16, tf.bfloat16) or not tf.get_static_value(training):
            return None
        layer = self.layer
        is_plain = self.sums_integers and activation_name(layer.activation) == "linear"
        few_bits = is_plain and self.quantizers[self.kernel_name].spec.bits <= HALF_BITS
        return dtype if few_bits and layer.activity_regularizer is None else None

    def products(self, inputs: Any, steps: tf.Tensor, dtype: tf.DType):
        """Sum the products of inputs and kernel steps in `dtype`, without the bias; float32."""
        # Divided in float32: behind the cast, gradients would lose bits to it in half precision.
        params = {self.kernel_name: tf.cast(steps / HALF_STEPS, dtype)}
        without_bias = {"use_bias": False, "bias": None}
        params |= {k: v for k, v in without_bias.items() if k in vars(self.layer)}
        params |= keras_compat.computing_in(dtype)
        products = self._call_layer(tf.cast(inputs, dtype), params, True)
        return tf.cast(products, tf.float32) * HALF_STEPS

    def __repr__(self) -> str:
        specs = {name: quantizer.spec for name, quantizer in self.quantizers.items()}
        told = (f"{name} {spec.type_name}" for name, spec in specs.items())
        return brief(f"QuantizedLayer {self.name!r} ({type(self.layer).__name__})", *told)

    def get_config(self):
        """Return the wrapped layer and the grids of its parameters."""
        specs = {name: q.spec.to_json() for name, q in self.quantizers.items()}
        if self.bias_spec is not None:
            specs["bias"] = self.bias_spec.to_json()
        training = {n: {"learn": q.learn, "ewgs": q.ewgs} for n, q in self.quantizers.items()}
        own = {"params": specs, "training": training, "constant": self.constant}
        if self.rounds_rows:
            own["rounds_rows"] = True
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None):
        """Return the layer that `get_config` is of, also around one of this package's classes."""
        inner = config["layer"]
        # Keras takes this for its older format, in which those have other names.
        kind = tf_keras.saving.get_registered_object(inner.get("registered_name"))
        if kind is None:
            return super().from_config(config, custom_objects)
        rest = {name: value for name, value in config.items() if name != "layer"}
        return cls(kind.from_config(inner["config"]), **rest)
