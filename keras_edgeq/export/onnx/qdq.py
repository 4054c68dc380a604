"""Export a sim as an ONNX file in QDQ form: integers in the file, exactly the sim's scales."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from keras_edgeq.errors import ExportError
from keras_edgeq.export.fingerprints import Found
from keras_edgeq.export.marked import MarkedModel
from keras_edgeq.export.onnx.bias import BiasScales
from keras_edgeq.export.onnx.blocks import NBITS, Blocks
from keras_edgeq.export.onnx.carriers import pair_carriers
from keras_edgeq.export.onnx.convert import MarkedGraph, convert
from keras_edgeq.export.onnx.dialect import WIDE_OPSET, Dialect, Storage
from keras_edgeq.export.onnx.graph import DEQUANTIZE, OPSET, QUANTIZE
from keras_edgeq.export.onnx.guards import guard
from keras_edgeq.export.onnx.order import move_activations, move_biases
from keras_edgeq.layers.quantized_layer import BIAS_MAX
from keras_edgeq.runtime.onnx_file import half_name, quantized_name
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.tensor_ref import TensorRef

INT32 = np.iinfo(np.int32)


def to_onnx_qdq(sim: QuantSim) -> ModelProto:
    """Return the sim as an ONNX model with QuantizeLinear and DequantizeLinear pairs.

    Inputs and outputs are float32 and keep their Keras names; a free batch axis stays free. The
    pair on a tensor is named after it: `conv1/quantized` holds the integers of `conv1`,
    `conv1/dequantized` the real values. Weights are initializers of 4, 8 or 16 bits, the next that
    hold their grid, with a scale per channel or block; activations have 8 or 16 bits, and a Clip
    where their grid is narrower; biases are int32. What the sim holds in half precision is a
    FLOAT16 initializer, or a Cast to FLOAT16 (`conv1/half`) and back; a number beyond 65504, where
    the sim saturates, becomes infinite there.

    The profile says whether integers are signed, and the lowest opset; 4 and 16 bits need 21.
    Weights of `"uint8"` (zero point 128) are exact on every processor. `"int8"` weights (zero point
    0) are what accelerators want; on x86 processors without VNNI the kernels of ONNX Runtime for
    them saturate at 16 bits, and results are wrong unless the session sets
    `session.x64quantprecision` to `"1"`.

    Args:
        sim: a calibrated sim; it is not changed.

    Raises:
        ExportError: a tensor has no grid yet, an operation has no ONNX form, or the converter
            lost a tensor.
    """
    converted = convert(MarkedModel(sim))
    move_biases(converted)
    move_activations(converted.graph)
    dialect = Dialect.of(sim.record.profile)
    writer = _Writer(converted, dialect)
    writer.write()
    # ONNX Runtime pulls signed pairs through a Transpose or Reshape that has none behind it, and
    # from opset 21 on cannot load what it made (issue 25526).
    everywhere = dialect.signed_activations and writer.opset >= WIDE_OPSET
    pair_carriers(converted.graph, everywhere)
    guard(converted.graph, converted.ranks)
    return converted.graph.finish(writer.opset)


class _Writer:
    """Puts the grids of a sim into its converted graph.

    Attributes:
        opset: the lowest that has what was written.
    """

    def __init__(self, converted: MarkedGraph, dialect: Dialect):
        self.converted, self.graph, self.dialect = converted, converted.graph, dialect
        self.bias_scales = BiasScales(converted)
        self.opset = max(OPSET, dialect.opset)
        self.readers = self.graph.readers()

    def write(self) -> None:
        """Exchange markers and parameters."""
        for name, found in self.converted.params.items():
            if name in self.readers:
                self._write_param(name, found)
        for marker, nodes in self.converted.pairs():
            if marker.encoding.spec.is_half:
                self._write_casts(marker.ref, nodes)
            else:
                self._write_pair(marker.ref, marker.encoding, nodes)
        self.graph.rename_now()

    def _write_pair(self, ref: TensorRef, encoding: Encoding, nodes: list[NodeProto]) -> None:
        """Give a tensor's pair its grid; one narrower than the file's type clips first."""
        storage = self._stored(self.dialect.activation(encoding))
        zero_point = (encoding.zero_point + storage.shift).astype(storage.dtype)
        grid = [
            self.graph.add_constant(f"{ref}/scale", encoding.scale),
            self.graph.add_constant(f"{ref}/zero_point", zero_point),
        ]
        ends = {QUANTIZE: quantized_name(ref), DEQUANTIZE: f"{ref}/dequantized"}
        for node in nodes:
            node.input[1:] = grid
            del node.attribute[:]
            self._call(node, ends[node.op_type])
            if node.op_type == QUANTIZE:
                self._clip(node, encoding, storage)

    def _write_casts(self, ref: TensorRef, nodes: list[NodeProto]) -> None:
        """Make a tensor's pair a cast to half precision and one back."""
        ends = {
            QUANTIZE: (half_name(ref), TensorProto.FLOAT16),
            DEQUANTIZE: (f"{ref}/dequantized", TensorProto.FLOAT),
        }
        for node in nodes:
            name, kind = ends[node.op_type]
            cast = self.graph.node("Cast", node.input[:1], node.output[0], to=kind)
            node.CopyFrom(cast)
            self._call(node, name)

    def _call(self, node: NodeProto, wanted: str) -> None:
        """Name a node, and in the end its result, unless that is an output of the graph."""
        node.name = node.output[0]
        if node.output[0] not in self.graph.outputs:
            node.name = self.graph.free_name(wanted)
            self.graph.rename_later(node.output[0], node.name)

    def _clip(self, node: NodeProto, encoding: Encoding, storage: Storage) -> None:
        if tuple(b + storage.shift for b in encoding.bounds) == storage.bounds:
            return
        low = self.graph.add_constant(f"{node.name}/min", np.float32(encoding.min))
        high = self.graph.add_constant(f"{node.name}/max", np.float32(encoding.max))
        clipped = self.graph.free_name(f"{node.name}/clipped")
        clip = self.graph.node("Clip", [node.input[0], low, high], clipped)
        self.graph.nodes.insert(self.graph.place_of(node), clip)
        node.input[0] = clipped

    def _write_param(self, name: str, found: Found) -> None:
        encoding = found.param.encoding
        if encoding is None:
            self._write_bias(name, found)
        elif encoding.spec.is_half:
            self._write_half(name, found)
        else:
            self._write_weight(name, found, encoding)

    def _write_weight(self, name: str, found: Found, encoding: Encoding) -> None:
        storage = self._stored(self.dialect.weight(encoding))
        integers = (found.integers() + storage.shift).astype(storage.dtype)
        zero_point = (found.zero_point() + storage.shift).astype(storage.dtype)
        for own in self._copies(name) if storage.dtype == np.int8 else [name]:
            if encoding.spec.block_size:
                self._write_blocks(own, Blocks.of(found), integers, zero_point)
            else:
                self._dequantized(own, found, integers, found.scale(), zero_point)

    def _copies(self, name: str) -> list[str]:
        """Give each node that reads a constant one of its own.

        ONNX Runtime stores int8 weights as uint8 where `session.x64quantprecision` asks for it, and
        cannot load a file in which two nodes read the same.
        """
        names = [name]
        for node in self.readers[name][1:]:
            names.append(self.graph.add_constant(name, self.graph.constants[name]))
            self.graph.redirect({name: names[-1]}, [node])
            self.readers[names[-1]] = [node]
        self.readers[name] = self.readers[name][:1]
        return names

    def _write_blocks(self, name: str, blocks: Blocks, integers, zero_point) -> None:
        """Exchange a weight with a scale per block for its integers."""
        found = blocks.found
        self.opset = max(self.opset, WIDE_OPSET)
        nodes = self.readers[name]
        if self.dialect.blocks == NBITS and blocks.are_read_by_products(name, nodes):
            blocks.write_products(nodes, self.graph)
            return
        self.graph.constants.pop(name, None)
        scale, maker = blocks.scale(self.graph)
        inputs = [
            self.graph.add_constant(quantized_name(found.param.ref), integers),
            scale,
            self.graph.add_constant(f"{found.param.ref}/zero_point", blocks.per_block(zero_point)),
        ]
        options = {"axis": blocks.axis, "block_size": blocks.size}
        self._computed(self.graph.node(DEQUANTIZE, inputs, name, **options), found)
        self.graph.nodes[:0] = maker

    def _write_half(self, name: str, found: Found) -> None:
        """Make constant `name` the Cast of a half-precision constant."""
        del self.graph.constants[name]
        half = self.graph.add_constant(half_name(found.param.ref), found.half())
        self._computed(self.graph.node("Cast", [half], name, to=TensorProto.FLOAT), found)

    def _write_bias(self, name: str, found: Found) -> None:
        """Exchange a bias for its integers, once for each input scale it is used with."""
        by_scale: dict[float | None, list[NodeProto]] = {}
        for node in self.readers[name]:
            by_scale.setdefault(self.bias_scales.input_scale(node, found), []).append(node)
        for input_scale, nodes in by_scale.items():
            own = self.graph.add_constant(name, found.values)
            for node in nodes:
                node.input[:] = [own if i == name else i for i in node.input]
            if input_scale is None:
                continue
            self._write_bias_on(own, found, self.bias_scales.bias_scale(found, input_scale))

    def _write_bias_on(self, name: str, found: Found, scale: np.ndarray) -> None:
        """Exchange a bias for its integers; beyond int32 it becomes their real values."""
        most = BIAS_MAX[self.bias_scales.spec(found).bits]
        whole = np.clip(np.rint(found.values / scale).astype(np.float64), -most - 1.0, most)
        if np.any((whole < INT32.min) | (whole > INT32.max)):
            self.graph.constants[name] = (whole * scale).astype(np.float32)
            return
        integers = whole.astype(np.int32)
        self._dequantized(name, found, integers, scale, np.zeros_like(integers))

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
        self._computed(self.graph.node(DEQUANTIZE, inputs, name, **axis), found)

    def _computed(self, node: NodeProto, found: Found) -> None:
        """Put in the node that makes a parameter from what the file stores of it."""
        self.graph.nodes.insert(0, node)
        self._call(node, f"{found.param.ref}/dequantized")

    def _stored(self, storage: Storage) -> Storage:
        self.opset = max(self.opset, storage.opset)
        return storage


def _varies(values: np.ndarray, axis: int) -> bool:
    return bool(np.any(np.diff(values, axis=axis)))
