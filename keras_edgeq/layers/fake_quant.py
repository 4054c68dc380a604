"""`FakeQuant`: rounds a tensor onto an integer grid and keeps it float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph.known_outputs import KnownOutputs
from keras_edgeq.layers.arithmetic import ROUNDED, Arithmetic
from keras_edgeq.layers.as_written import as_written
from keras_edgeq.layers.block_scales import of_steps, unit_of
from keras_edgeq.layers.learned_range import LearnedRange
from keras_edgeq.layers.swap import LOCK
from keras_edgeq.numerics.affine import integer_bounds
from keras_edgeq.numerics.blocks import shape_of_blocks
from keras_edgeq.numerics.round_to_steps import TWICE, to_steps, with_finite_gradient
from keras_edgeq.spec.encoding import HALF_MAX, Encoding
from keras_edgeq.spec.quant_spec import QuantSpec
from keras_edgeq.table import brief

# By name, what converters fuse into kernels, and between which numbers its results lie.
ACTIVATIONS = {"relu": tf.nn.relu, "relu6": tf.nn.relu6}
BOUNDS = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0)}

# Numbers beyond this stand for infinity.
FAR = 1e3


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class FakeQuant(KnownOutputs):
    """Rounds its input onto a grid held in variables, so bits change without retracing.

    Computes `s * (clip(round(x * (1 / s)) + z, qmin, qmax) - z)` in float32, or casts to half
    precision and back, under any policy of the model: only `QuantizedLayer` trains in another
    type. Calling one instance on several tensors makes them share a grid.

    Args:
        spec: the grid, as a `QuantSpec` or its JSON.
        tensor: printed `TensorRef` of the tensor that owns the grid.
        learn: how the range is trained, one of `"lsq"`, `"tqt"`, `"pact"`; None if it is not.
        ewgs: strength of element-wise gradient scaling, as in `round_to_steps`.
        per_sample: the first axis of the inputs counts samples.

    Attributes:
        start: variable: the scale, without what was learned since training began.
        start_zero_point: the same for the zero point.
        qmin: variable: least integer.
        qmax: variable: greatest integer.
        learned: `LearnedRange`, None if nothing is learned.
        multiples: variable: of the scale of its channel, for each block; None for other grids.

    Call arguments:
        inputs: float tensor.
        input_scale: what to multiply `inputs` with first, broadcastable to its last axis: the sums
            of a `QuantizedLayer` arrive so, and are requantized with one factor as in a kernel.
        unit: what one step of the sums is worth that `inputs`, in real units, will be once a batch
            norm is folded; broadcastable to `inputs`. They are rounded to such steps first.
        activation: fused into the quantizer, whose bounds it moves: the least and greatest result
            of one that cuts numbers off, or `"relu"` or `"relu6"`.
        rounding: what happens to ties, as in `round_to_steps`; those of `TWICE` round sums
            as fixed-point kernels do.
        keys: where masked scores are -1e9 or alike, among how many a softmax shares; 0 elsewhere.
            Their grid has room below the others for what becomes 0.
        steep: whether what reads it is steep at zero: its gradient is kept finite.
        tensor: printed `TensorRef` of the tensor that this call quantizes.

    Returns:
        `(rounded, steps, scale)`: the rounded tensor; the same in steps of the scale, which a
        weighted layer sums exactly as an integer kernel does; the scale as a scalar (per channel:
        with the spec's axes kept; per block: with an axis for blocks, and in steps of those).
        Results that no layer reads are not computed in a traced model.
    """

    learned: LearnedRange | None = None
    multiples: Any = None
    arithmetic: Arithmetic = ROUNDED

    def __init__(
        self,
        spec: QuantSpec | dict,
        tensor: str = "",
        learn: str | None = None,
        ewgs: float = 0.0,
        per_sample: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        self.spec = spec if isinstance(spec, QuantSpec) else QuantSpec.from_json(spec)
        self.tensor = tensor
        self.learn, self.ewgs, self.per_sample = learn, ewgs, per_sample
        self.supports_masking = True

    def build(self, input_shape: Any):
        """Create the grid's variables; a scale of 0 marks a grid that was not calibrated."""
        rank = len(input_shape)
        axes = {axis % rank for axis in self.spec.axes}
        shape = [int(input_shape[i]) if i in axes else 1 for i in range(rank)] if axes else []
        if self.spec.is_half:
            qmin, qmax = -HALF_MAX, HALF_MAX
        else:
            signed = self.spec.signed is not False
            qmin, qmax = integer_bounds(self.spec.bits, signed, self.spec.narrow_range)

        def variable(name: str, value: Any, shape: Any):
            return self.add_weight(
                name=name,
                shape=shape,
                dtype="float32",
                trainable=False,
                experimental_autocast=False,
                initializer=tf_keras.initializers.Constant(float(value)),
            )

        if self.spec.block_size:
            blocks = list(shape_of_blocks(input_shape, self.spec.axes, self.spec.block_size))
            if self.spec.block_bits:
                self.multiples = variable("multiples", 1.0, blocks)
            else:
                shape = blocks
        self.start = variable("scale", 1.0 if self.spec.is_half else 0.0, shape)
        # One zero for all channels keeps the bounds scalars, and clipping a single pass.
        zero_shape = [] if self.spec.symmetric else shape
        self.start_zero_point = variable("zero_point", 0.0, zero_shape)
        self.qmin = variable("qmin", qmin, [])
        self.qmax = variable("qmax", qmax, [])
        if self.learn is not None:
            self.learned = LearnedRange(self, self.learn)
        super().build(input_shape)

    @property
    def scale(self):
        """The present scale, a tensor."""
        return tf.convert_to_tensor(self.start) if self.learned is None else self.learned.scale()

    @property
    def zero_point(self):
        """The present zero point, a tensor of whole numbers."""
        if self.learned is None:
            return tf.convert_to_tensor(self.start_zero_point)
        return self.learned.zero_point()

    def __call__(self, *args: Any, **kwargs: Any):
        """Call the layer while no other thread exchanges its attributes."""
        with LOCK:
            return super().__call__(*args, **kwargs)

    @as_written
    def call(
        self,
        inputs: Any,
        input_scale: tf.Tensor = None,
        unit: Any = None,
        activation: Any = None,
        rounding: str = "half_even",
        keys: int = 0,
        steep: bool = False,
        tensor: str = "",
    ):
        """Return the rounded tensor, its steps and the scale."""
        del keys, tensor
        inputs = tf.cast(inputs, tf.float32)
        scale, zero_point, gain = self._grid(inputs)
        if unit is not None:
            inputs = to_steps(inputs, tf.cast(unit, tf.float32), self.arithmetic.whole)
            input_scale = unit
        exact = input_scale
        input_scale = None if input_scale is None else tf.cast(input_scale, tf.float32)
        if self.spec.is_half:
            real = inputs if input_scale is None else inputs * input_scale
            if activation is not None:
                real = _activated(real, activation)
            half = self.arithmetic.to_half(real)
            return half, half, scale
        # One multiplication per element, as the kernels do it. Division by a constant would become
        # one anyway in a frozen graph, and differ by an ulp from this graph.
        if rounding in TWICE:
            exact = 1.0 if exact is None else tf.cast(exact, tf.float64)
            factor = tf.math.divide_no_nan(exact, tf.cast(scale, tf.float64))
            ratio = self.arithmetic.scale_sums(inputs, factor)
        else:
            ratio = inputs * tf.math.divide_no_nan(
                1.0 if input_scale is None else input_scale, unit_of(self, scale, inputs.shape)
            )
        low, high = self.qmin - zero_point, self.qmax - zero_point
        if gain is not None:
            low, high = low * gain, high * gain
        if activation is not None:
            least, most = (
                self.arithmetic.whole(tf.math.divide_no_nan(end, scale))
                for end in (BOUNDS[activation] if isinstance(activation, str) else activation)
            )
            low, high = tf.clip_by_value(low, least, most), tf.clip_by_value(high, least, most)
        steps = self.arithmetic.to_steps(ratio, low, high, zero_point, rounding, self.ewgs)
        made = of_steps(self, steps, scale)
        return (*map(with_finite_gradient, made[:2]), scale) if steep else made

    def output_specs(self, inputs: Any, *_, **__: Any):
        """Return what a call makes: the tensor twice, and the scale."""
        tensor = tf.TensorSpec(inputs.shape, tf.float32)
        return tensor, tensor, tf.TensorSpec(self.start.shape, tf.float32)

    def _grid(self, inputs: Any):
        """Return scale, zero point, and for PACT a 1 whose gradient moves the clipping bounds."""
        if self.learned is None:
            return self.scale, self.zero_point, None
        shape = inputs.shape[1:] if self.per_sample else inputs.shape
        count = shape.num_elements()
        if count is None:
            count = tf.size(inputs) / (tf.shape(inputs)[0] if self.per_sample else 1)
        elements = count / self.start.shape.num_elements()
        scale, zero_point = self.learned.scale(elements), self.learned.zero_point(elements)
        if self.learn != "pact":
            return scale, zero_point, None
        fixed = tf.stop_gradient(scale)
        return fixed, zero_point, tf.math.divide_no_nan(scale, fixed)

    @staticmethod
    def activate(inputs: Any, call_arguments: Mapping[str, Any]):
        """Apply the fused activation of a call in float, for walks that do not round."""
        activation = call_arguments.get("activation")
        return inputs if activation is None else _activated(inputs, activation)

    @staticmethod
    def is_masked(inputs: Any, call_arguments: Mapping[str, Any]):
        """Return which elements are masked scores, whose numbers do not count; None for none."""
        return inputs <= -FAR if call_arguments.get("keys") else None

    def compute_mask(self, inputs: Any, mask: Any = None):
        """Pass the mask of the tensor on; the scale has none."""
        return [mask, mask, None]

    @property
    def encoding(self) -> Encoding | None:
        """The calibrated grid, None before calibration."""
        scale = np.asarray(self.scale)
        if not np.all(scale > 0.0):
            return None
        if self.spec.is_half:
            return Encoding(self.spec, scale, np.zeros(scale.shape, np.int32))
        bits = round(float(np.log2(self.qmax.numpy() - self.qmin.numpy() + 1.5)))
        spec = replace(self.spec, bits=bits, signed=bool(self.qmin.numpy() < 0.0))
        zero_point = np.rint(self.zero_point).astype(np.int32)
        multiples = None if self.multiples is None else np.asarray(self.multiples)
        return Encoding(spec, scale, np.broadcast_to(zero_point, scale.shape), multiples)

    def assign(self, encoding: Encoding) -> None:
        """Take a grid: scale, zero point and integer bounds; learning goes on from there."""
        qmin, qmax = encoding.bounds
        self.start.assign(np.reshape(encoding.scale, self.start.shape))
        zero_point = np.float32(encoding.zero_point)
        if self.spec.symmetric and np.any(zero_point):
            raise ValueError(f"The grid of {self.tensor!r} is symmetric; its zero point is 0.")
        shape = self.start_zero_point.shape
        self.start_zero_point.assign(0.0 if self.spec.symmetric else np.reshape(zero_point, shape))
        self.qmin.assign(float(qmin))
        self.qmax.assign(float(qmax))
        if self.multiples is not None:
            self.multiples.assign(encoding.multiples)
        if self.learned is not None:
            self.learned.reset()

    @property
    def is_learning(self) -> bool:
        """Whether training changes the range."""
        return self.learned is not None and float(self.learned.active) > 0.0

    def hold(self) -> None:
        """Keep the present range, against all optimizers; calling it again changes nothing."""
        if self.learned is None or not self.is_learning:
            return
        scale, zero_point = self.scale, self.zero_point
        self.start.assign(scale)
        self.start_zero_point.assign(zero_point)
        self.learned.reset()
        self.learned.active.assign(0.0)

    def __repr__(self) -> str:
        encoding = self.encoding if self.built and tf.executing_eagerly() else None
        grid = self.spec.type_name if encoding is None else repr(encoding)
        return brief(f"FakeQuant {self.tensor!r}", grid.removeprefix("<Encoding: ").rstrip(">"))

    def get_config(self):
        """Return the grid asked for, the tensor's name and how its range is trained."""
        own = {"spec": self.spec.to_json(), "tensor": self.tensor, "per_sample": self.per_sample}
        return {**super().get_config(), **own, "learn": self.learn, "ewgs": self.ewgs}


def _activated(x: tf.Tensor, activation: str | Sequence[float]):
    """Apply a fused activation, given by name or by its bounds."""
    if isinstance(activation, str):
        return ACTIVATIONS[activation](x)
    return tf.clip_by_value(x, *activation)
