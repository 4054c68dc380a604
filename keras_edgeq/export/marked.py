"""Trace a sim so that a converter's output can be read back: marked tensors, fingerprinted weights.

A converter renames tensors and rearranges weights. Two tricks make its output readable whatever it
does. Each quantizer becomes a fake-quant op with range [0, 255 id], which converters keep as a
QUANTIZE and DEQUANTIZE pair of scale `id` at the exact place. Each quantized parameter becomes a
constant whose float32 elements are all different, over all parameters of the model, so that every
element of every constant in the output tells which parameter and which element it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import ExportError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import calls, infer, replay
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.swap import swapped
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import HALF_MAX, Encoding
from keras_edgeq.spec.tensor_ref import TensorRef

# Fingerprints are consecutive float32 bit patterns from an odd number of about 1e18 up, where no
# constant of a model lies. Converters only move them.
FIRST_PATTERN = 0x5D9A3C17
LAST_PATTERN = 0x7F000000


@dataclass(frozen=True, eq=False)
class Marker:
    """One quantized tensor: its name and its grid."""

    ref: TensorRef
    encoding: Encoding


@dataclass(frozen=True, eq=False)
class Param:
    """One parameter of a quantized layer, as the artifact has to hold it.

    Args:
        ref: its name.
        values: the float values before rounding.
        encoding: its grid; None for a bias whose grid follows from its use.
        integers: int32 values on the grid, as the sim rounds them; None for such a bias, and in
            half precision.
        first: position of its first element among all fingerprints.
    """

    ref: TensorRef
    values: np.ndarray
    encoding: Encoding | None
    integers: np.ndarray | None
    first: int

    @property
    def is_bias(self) -> bool:
        """Whether this is a layer's bias, whatever its precision."""
        return self.ref.param == "bias"


@dataclass(frozen=True, eq=False)
class Found:
    """A constant of the converter's output, recognized: `param.values.flat[index]`."""

    param: Param
    index: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The float values before rounding, in the constant's layout."""
        return self.param.values.ravel()[self.index]

    def scale(self) -> np.ndarray:
        """Scale of every element, in the constant's layout."""
        assert self.param.encoding is not None  # asked for weights only
        return self._spread(self.param.encoding.scale)

    def zero_point(self) -> np.ndarray:
        """Zero point of every element, in the constant's layout."""
        assert self.param.encoding is not None  # asked for weights only
        return self._spread(self.param.encoding.zero_point)

    def integers(self) -> np.ndarray:
        """Integers in the constant's layout, int32."""
        assert self.param.integers is not None  # asked for weights only
        return self.param.integers.ravel()[self.index]

    def half(self) -> np.ndarray:
        """Values in half precision in the constant's layout; the sim saturates at the largest."""
        return np.clip(self.values, -HALF_MAX, HALF_MAX).astype(np.float16)

    def _spread(self, numbers: np.ndarray) -> np.ndarray:
        return np.broadcast_to(numbers, self.param.values.shape).ravel()[self.index]


class MarkedModel:
    """A sim traced with markers and fingerprints, and the key to read them.

    Attributes:
        markers: id -> Marker; ids start at 1.
        inputs, outputs: names in the model's order.
    """

    def __init__(self, sim: QuantSim):
        self.sim = sim
        self.inputs, self.outputs = list(sim.input_names), list(sim.output_names)
        self._grids = {name: layer.encoding for name, layer in sim.quantizers().items()}
        self._fingerprints: dict[str, dict[str, tf.Variable]] = {}
        self._params: list[Param] = []
        self._starts = np.zeros(0, np.int64)
        self.markers: dict[int, Marker] = {}
        self._make_fingerprints()

    @contextmanager
    def saved_model(self, batch: int | None = None) -> Iterator[Path]:
        """Write the marked model as a SavedModel for the length of the context.

        Args:
            batch: a fixed batch size for inputs whose own is free.
        """
        module = tf.Module()
        module.kept = [self.sim.variables, self._fingerprints]
        function = self.function(batch)
        with TemporaryDirectory(prefix="edgeq-") as folder:
            with keras_compat.os_errors():
                tf.saved_model.save(module, folder, signatures={"serving_default": function})
            yield Path(folder)

    def function(self, batch: int | None = None):
        """Return the marked model as a concrete function with the model's input names."""
        specs = [
            tf.TensorSpec([tensor.shape[0] or batch, *tensor.shape[1:]], tensor.dtype, name=name)
            for tensor, name in zip(self.sim.inputs, self.inputs, strict=True)
        ]
        traced = tf.function(self._call, input_signature=specs, autograph=False)
        return traced.get_concrete_function()

    def find(self, constant: np.ndarray) -> Found | None:
        """Recognize a constant of the converter's output; None where it is no parameter's."""
        if constant.dtype != np.float32 or not constant.size or not self._params:
            return None
        position = constant.view(np.int32).astype(np.int64) - FIRST_PATTERN
        end = self._params[-1].first + self._params[-1].values.size
        if position.min() < 0 or position.max() >= end:
            return None
        owner = int(np.searchsorted(self._starts, position.flat[0], side="right")) - 1
        param = self._params[owner]
        index = position - param.first
        if index.min() < 0 or index.max() >= param.values.size:
            return None
        return Found(param, index)

    def rounded_bias(self, found: Found) -> np.ndarray:
        """Return a bias as the sim rounds it, for an op that stays float.

        Raises:
            ExportError: the layer is called on several grids, so there is no one rounded bias.
        """
        layer = self.sim.quantized_layers()[found.param.ref.layer]
        nodes = [c.node for c in calls(self.sim) if c.layer is layer]
        symbols = [n.call_kwargs["input_scale"] for n in nodes if "input_scale" in n.call_kwargs]
        scales = {float(keras_compat.producer(s)[0].scale) for s in symbols}
        if len(scales) != 1:
            raise ExportError(
                f"Layer {layer.name!r} is called on {len(scales)} input grids and the converter "
                "put its bias where no integer kernel takes it; give each call a layer of its own."
            )
        input_scale = tf.constant(scales.pop())
        params, scale = layer.integer_params(input_scale)
        return (params["bias"] * (input_scale * scale)).numpy().ravel()[found.index]

    def _call(self, *inputs):
        self.markers.clear()

        def on_call(call, args, kwargs):
            layer = call.layer
            if isinstance(layer, FakeQuant):
                marked = self._mark(call, layer.activate(args[0], kwargs))
                return marked, marked, tf.constant(1.0)
            if isinstance(layer, QuantizedLayer):
                with swapped(layer.layer, self._fingerprints[layer.name]):
                    outputs = _call_flat(layer.layer, args[0])
                    return outputs, outputs, tf.constant(1.0)
            return infer(layer, args, kwargs)

        outputs = replay(self.sim, list(inputs), on_call)
        return dict(zip(self.outputs, tf.nest.flatten(outputs), strict=True))

    def _mark(self, call, tensor):
        encoding = self._grids[call.layer.tensor]
        if encoding is None:
            raise ExportError(f"Tensor {call.layer.tensor!r} has no grid; calibrate the sim first.")
        number = len(self.markers) + 1
        name = call.node.call_kwargs["tensor"]
        self.markers[number] = Marker(
            TensorRef.parse(name, "input" if "<" in name else "output"), encoding
        )
        return tf.quantization.fake_quant_with_min_max_args(tensor, 0.0, 255.0 * number, 8)

    def _make_fingerprints(self) -> None:
        first = 0
        for layer in self.sim.quantized_layers().values():
            own = self._fingerprints.setdefault(layer.name, {})
            names = [*layer.quantizers, *(["bias"] if layer.bias_spec else [])]
            for name in names:
                values = getattr(layer.layer, name).numpy()
                grid, integers = _on_grid(layer, name) if name in layer.quantizers else (None, None)
                ref = TensorRef(layer.name, "param", param=name)
                self._params.append(Param(ref, values, grid, integers, first))
                pattern = FIRST_PATTERN + first + np.arange(values.size, dtype=np.int64)
                if pattern.size and pattern[-1] > LAST_PATTERN:
                    raise ExportError(
                        "The model has more than half a billion quantized parameters."
                    )
                own[name] = tf.Variable(
                    pattern.astype(np.int32).view(np.float32).reshape(values.shape),
                    trainable=False,
                )
                first += values.size
        self._starts = np.array([p.first for p in self._params], np.int64)


def _on_grid(layer: QuantizedLayer, name: str) -> tuple[Encoding, np.ndarray | None]:
    """Return the grid of a parameter and its integers, as the sim rounds it."""
    encoding = layer.quantizers[name].encoding
    if encoding is None:
        raise ExportError(f"Weight {layer.name}/{name} has no grid; calibrate the sim first.")
    if encoding.spec.is_half:
        return encoding, None
    steps = layer.quantizers[name](getattr(layer.layer, name))[1].numpy()
    return encoding, steps.astype(np.int32) + encoding.zero_point


def _call_flat(layer, inputs):
    """Call a layer; a Dense on more than two axes as one matrix product between constant reshapes.

    Keras computes it with shapes read at run time, which keeps integer kernels and delegates away.
    """
    shape = inputs.shape
    if type(layer) is not tf_keras.layers.Dense or shape.rank < 3 or None in shape[1:]:
        return layer(inputs)
    outputs = layer(tf.reshape(inputs, [-1, shape[-1]]))
    return tf.reshape(outputs, [-1, *shape[1:-1], layer.units])
