"""Trace a sim so that a converter's output can be read back: marked tensors, fingerprinted weights.

A converter renames tensors and rearranges weights. Two tricks keep its output readable. Each
quantizer becomes a fake-quant op with range [0, 255 id], which converters keep as a QUANTIZE and
DEQUANTIZE pair of scale `id` at the exact place. Each quantized parameter becomes a constant whose
float32 elements are all different, over all parameters of the model. Every element of every
constant in the output then tells which parameter and which element it came from.

Where a converter would compute with a fingerprint or match a pattern across markers, a fence stops
it: a marker of a number that no tensor has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import ExportError
from keras_edgeq.export.fingerprints import Fingerprints, Found
from keras_edgeq.export.float_forms import infer_portably
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.os_errors import os_errors
from keras_edgeq.graph.rebuild import calls, replay
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.swap import swapped
from keras_edgeq.ops import op_of, op_type
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.tensor_ref import TensorRef

# The least number of a fence: above those of markers, and exact as a scale.
FENCE = 2**20
# Activations that converters fuse into the layer in front of them.
FUSED = ("Relu", "Relu6")


@dataclass(frozen=True, eq=False)
class Marker:
    """One quantized tensor: its name and its grid."""

    ref: TensorRef
    encoding: Encoding


class MarkedModel:
    """A sim traced with markers and fingerprints, and the key to read them.

    Args:
        sim: a calibrated sim.
        litert: whether the converter is the one to TFLite, which matches patterns across markers.

    Attributes:
        markers: id -> Marker; ids start at 1.
        fingerprints: the key to the constants.
        inputs, outputs: names in the model's order.
    """

    def __init__(self, sim: QuantSim, litert: bool = False):
        self.sim, self.litert = sim, litert
        self._graph = LayerGraph.of(sim)
        self.inputs, self.outputs = list(sim.input_names), list(sim.output_names)
        self._grids = {name: layer.encoding for name, layer in sim.quantizers().items()}
        self.fingerprints = Fingerprints(sim)
        self.markers: dict[int, Marker] = {}

    @contextmanager
    def saved_model(self, batch: int | None = None) -> Iterator[Path]:
        """Write the marked model as a SavedModel for the length of the context.

        Args:
            batch: a fixed batch size for inputs whose own is free.
        """
        module, function = tf.Module(), self.function(batch)
        module.kept = list(function.variables)  # not those of grids, which markers stand for
        with TemporaryDirectory(prefix="edgeq-") as folder:
            with os_errors():
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
                outputs = self._call_quantized(call, args[0])
                return outputs, outputs, tf.constant(1.0)
            if self._computes_with_constants(call):
                args, kwargs = self._fenced(call, args, kwargs)
            place = self._place_among_alike(call)
            if place:
                args, kwargs = tf.nest.map_structure(lambda v: _apart(v, place), (args, kwargs))
            return infer_portably(layer, args, kwargs, self.litert)

        outputs = replay(self.sim, list(inputs), on_call)
        return dict(zip(self.outputs, tf.nest.flatten(outputs), strict=True))

    def _call_quantized(self, call, tensor):
        """Call a layer with fingerprints; no constant beside one in float may reach them."""
        layer, summed = call.layer, "input_scale" in call.node.call_kwargs
        fenced = not summed and tensor.dtype == tf.float32
        if not self.litert:  # the writer of TFLite writes the kernel that rounds rows
            tensor = layer.as_read(tensor)
        with swapped(layer.layer, self.fingerprints.variables[layer.name]):
            data = _fence(tensor) if fenced else tensor
            outputs = infer_portably(layer.layer, (data,), {}, self.litert)
        readers = self._graph.consumers(call.output_ref(0))
        is_fused = bool(readers) and all(op_type(reader.layer) in FUSED for reader in readers)
        return _fence(outputs) if fenced and not is_fused else outputs

    def _computes_with_constants(self, call) -> bool:
        """Tell whether a call computes with numbers that a pattern of the converter may name."""
        if call.layer.name in self.sim.record.plan.floats:
            return True
        is_op = keras_compat.op_symbol(call.layer) is not None
        return is_op and not all(
            map(keras_compat.is_keras_tensor, keras_compat.operands(call.node))
        )

    def _place_among_alike(self, call) -> int:
        """Return how many other activations, or calls of the same layer, read the tensor before.

        The converter computes once what two begin with, `0.5 * x` of both kinds of GELU, and finds
        neither of them then. Two calls of a pool become one, on the grid of the first.
        """
        if not self.litert:
            return 0
        node, activates = self._graph.producer(call.output_ref(0)), op_of(call.layer).activates
        readers = [n for ref in node.inputs for n in self._graph.consumers(ref)]
        alike = [
            id(n)
            for n in readers
            if n.layer is call.layer or (activates and op_of(n.layer).activates)
        ]
        return alike.index(id(node)) if alike else 0

    def _fenced(self, call, args, kwargs):
        """Return the arguments of a call with quantized tensors behind fences."""

        def fenced(symbol, value):
            if not (self.litert and keras_compat.is_keras_tensor(symbol)):
                return value
            is_marked = isinstance(keras_compat.producer(symbol)[0], FakeQuant)
            return _fence(value) if is_marked and value.dtype == tf.float32 else value

        symbols = (tuple(call.node.call_args), dict(call.node.call_kwargs))
        return tf.nest.map_structure(fenced, symbols, (args, kwargs))

    def _mark(self, call, tensor):
        encoding = self._grids[call.layer.tensor]
        if encoding is None:
            raise ExportError(f"Tensor {call.layer.tensor!r} has no grid; calibrate the sim first.")
        number = len(self.markers) + 1
        name = call.node.call_kwargs["tensor"]
        self.markers[number] = Marker(
            TensorRef.parse(name, "input" if "<" in name else "output"), encoding
        )
        return _numbered(tensor, number)


def _numbered(tensor, number: int):
    return tf.quantization.fake_quant_with_min_max_args(tensor, 0.0, 255.0 * number, 8)


def _apart(value, place: int):
    is_real = isinstance(value, tf.Tensor) and value.dtype == tf.float32
    return _fence(value, place) if is_real else value


def _fence(tensor, place: int = 0):
    return _numbered(tensor, FENCE + place)
