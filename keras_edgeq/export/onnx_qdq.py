"""Export a sim as an ONNX file in QDQ form: integers in the file, exactly the sim's scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from keras_edgeq.errors import ExportError
from keras_edgeq.export.marked import Found, MarkedModel
from keras_edgeq.export.onnx_bias import BiasScales
from keras_edgeq.export.onnx_carriers import pair_carriers
from keras_edgeq.export.onnx_convert import DEQUANTIZE, QUANTIZE, MarkedGraph, convert
from keras_edgeq.export.onnx_order import move_activations, move_biases
from keras_edgeq.numerics.affine import quantize
from keras_edgeq.runtime.onnx_file import quantized_name
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.tensor_ref import TensorRef

# 16-bit QuantizeLinear came with opset 21.
WIDE_OPSET, WIDE_IR_VERSION = 21, 10
INT32 = (-(2**31), 2**31 - 1)


def to_onnx_qdq(sim: QuantSim, weight_type: str | None = None) -> ModelProto:
    """Return the sim as an ONNX model with QuantizeLinear and DequantizeLinear pairs.

    Inputs and outputs are float32 and keep their Keras names; a free batch axis stays free.
    Weights are 8-bit initializers per channel, biases int32. The pair on a tensor is named after
    it: `conv1/quantized` holds the integers of `conv1`, `conv1/dequantized` the real values.

    Args:
        sim: a calibrated sim; it is not changed.
        weight_type: None takes the type of the profile's activations. `"uint8"` weights (zero
            point 128) are exact on every processor. `"int8"` weights (zero point 0) are what QNN
            wants, and what ONNX Runtime computes fastest on processors with VNNI; on x86 without
            it the kernels for uint8 times int8 saturate at 16 bits, and results are wrong unless
            the session sets `session.x64quantprecision` to `"1"`.

    Raises:
        ExportError: a tensor has no grid yet, an operation has no ONNX form, or the converter
            lost a tensor.
    """
    marked = MarkedModel(sim)
    converted = convert(marked)
    move_biases(converted)
    move_activations(converted.graph)
    activation_type = sim.record.profile.onnx_activation
    writer = _Writer(converted, activation_type, weight_type or activation_type)
    writer.write()
    pair_carriers(converted.graph)
    wide = {"opset": WIDE_OPSET, "ir_version": WIDE_IR_VERSION} if writer.is_wide else {}
    return converted.graph.finish(**wide)


@dataclass(frozen=True)
class Storage:
    """The integers a file stores for a grid: their type, and what to add to the grid's own."""

    dtype: np.dtype
    shift: int

    @classmethod
    def of(cls, encoding: Encoding, wanted: str | None = None) -> Storage:
        """Return the type for a grid: 8 or 16 bits; `wanted` is `"uint8"`, `"int8"` or as is."""
        wide = encoding.spec.bits > 8
        has_sign = bool(encoding.spec.signed)
        sign = has_sign if wanted is None else wanted == "int8"
        shift = (int(has_sign) - int(sign)) * 2 ** (encoding.spec.bits - 1)
        return cls(np.dtype(f"{'' if sign else 'u'}int{16 if wide else 8}"), shift)


class _Writer:
    """Puts the grids of a sim into its converted graph."""

    def __init__(self, converted: MarkedGraph, activation_type: str, weight_type: str):
        self.converted, self.graph = converted, converted.graph
        self.activation_type, self.weight_type = activation_type, weight_type
        self.bias_scales = BiasScales(converted)
        self.is_wide = False

    def write(self) -> None:
        """Exchange markers and parameters."""
        for name, found in self.converted.params.items():
            if found.param.encoding is None:
                self._write_bias(name)
            else:
                self._write_weight(name)
        for marker, nodes in self.converted.pairs():
            self._write_marker(marker.ref, marker.encoding, nodes)

    def _write_marker(self, ref: TensorRef, encoding: Encoding, nodes: list[NodeProto]) -> None:
        """Give a tensor's pair its grid; one narrower than the file's type clips first."""
        storage = self._storage(encoding, self.activation_type)
        scale = self.graph.add_constant(f"{ref}/scale", encoding.scale)
        zero_point = self.graph.add_constant(
            f"{ref}/zero_point", (encoding.zero_point + storage.shift).astype(storage.dtype)
        )
        ends = {QUANTIZE: quantized_name(ref), DEQUANTIZE: f"{ref}/dequantized"}
        for node in nodes:
            node.input[1:] = [scale, zero_point]
            del node.attribute[:]
            if node.op_type == QUANTIZE:
                self._clip(node, encoding, storage)
            if node.output[0] not in self.graph.outputs:
                self.graph.rename(node.output[0], self.graph.free_name(ends[node.op_type]))
            node.name = node.output[0]

    def _clip(self, node: NodeProto, encoding: Encoding, storage: Storage) -> None:
        limits = np.iinfo(storage.dtype)
        if tuple(b + storage.shift for b in encoding.bounds) == (limits.min, limits.max):
            return
        low = self.graph.add_constant(f"{node.output[0]}/min", np.float32(encoding.min))
        high = self.graph.add_constant(f"{node.output[0]}/max", np.float32(encoding.max))
        clipped = self.graph.free_name(f"{node.input[0]}/clipped")
        clip = self.graph.node("Clip", [node.input[0], low, high], clipped)
        self.graph.nodes.insert(self.graph.place_of(node), clip)
        node.input[0] = clipped

    def _write_weight(self, name: str) -> None:
        found = self.converted.params[name]
        encoding = found.param.encoding
        assert encoding is not None  # biases go elsewhere
        storage = self._storage(encoding, self.weight_type)
        zero_points = np.broadcast_to(encoding.zero_point, found.param.values.shape).ravel()
        self._dequantized(
            name,
            found,
            (found.integers() + storage.shift).astype(storage.dtype),
            found.scale(),
            (zero_points[found.index] + storage.shift).astype(storage.dtype),
        )

    def _write_bias(self, name: str) -> None:
        """Exchange a bias for its integers, once for each input scale it is used with."""
        found = self.converted.params[name]
        by_scale: dict[float | None, list[NodeProto]] = {}
        for node in self.graph.readers().get(name, []):
            by_scale.setdefault(self.bias_scales.input_scale(node, found), []).append(node)
        for input_scale, nodes in by_scale.items():
            own = self.graph.add_constant(name, found.values)
            for node in nodes:
                node.input[:] = [own if i == name else i for i in node.input]
            if input_scale is not None:
                scale = self.bias_scales.bias_scale(found, input_scale)
                integers = quantize(found.values, scale, 0, *INT32)
                self._dequantized(own, found, integers, scale, np.zeros_like(integers))

    def _dequantized(self, name: str, found: Found, integers, scale, zero_point) -> None:
        """Make constant `name` the DequantizeLinear of an integer constant."""
        ref = found.param.ref
        self.graph.constants.pop(name, None)
        axes = [a for a in range(scale.ndim) if _varies(scale, a) or _varies(zero_point, a)]
        if len(axes) > 1:
            raise ExportError(
                f"{ref} has a scale for each combination of axes {axes} of its ONNX layout; ONNX "
                "takes one axis. Quantize the layer per tensor or leave it float."
            )
        pick = tuple(slice(None) if a in axes else 0 for a in range(scale.ndim))
        inputs = [
            self.graph.add_constant(quantized_name(ref), integers),
            self.graph.add_constant(f"{ref}/scale", scale[pick]),
            self.graph.add_constant(f"{ref}/zero_point", zero_point[pick]),
        ]
        axis = {"axis": axes[0]} if axes else {}
        node = self.graph.node(DEQUANTIZE, inputs, name, **axis)
        self.graph.nodes.insert(0, node)
        new = self.graph.free_name(f"{ref}/dequantized")
        self.graph.rename(name, new)
        node.name = new

    def _storage(self, encoding: Encoding, wanted: str | None = None) -> Storage:
        storage = Storage.of(encoding, wanted)
        self.is_wide |= encoding.spec.bits > 8
        return storage


def _varies(values: np.ndarray, axis: int) -> bool:
    return bool(np.any(np.diff(values, axis=axis)))
