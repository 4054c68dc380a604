"""Write integer operations with a sim's scales into a graph whose grids are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from keras_edgeq.export.marked import MarkedModel, Marker
from keras_edgeq.export.tflite.constants import (
    LARGEST,
    TYPES,
    Constants,
    scales_along,
)
from keras_edgeq.export.tflite.float_ops import FloatOps
from keras_edgeq.export.tflite.integers import MOVES, Reasons, activation_grid
from keras_edgeq.export.tflite.kernels import (
    COMPARES,
    DEQUANTIZE,
    FIXED,
    QUANTIZE,
    SHAPE_ONLY,
    VERSIONS,
    WEIGHTED,
    Weighted,
)
from keras_edgeq.export.tflite.markers import spread_grids, take_markers
from keras_edgeq.runtime.tflite_file import (
    Op,
    TfliteGraph,
    multiplication,
    quantization,
    take_activation,
    without_needless_relu6,
    without_power_of_two_scales,
)
from keras_edgeq.spec.encoding import Encoding


class IntegerWriter:
    """Turns a float graph with grids into one with integer kernels.

    Each op becomes integer where its kernel takes what it reads and makes, and stays float between
    DEQUANTIZE and QUANTIZE otherwise; both compute what the sim computes.

    Attributes:
        floats: name of the made tensor -> op that stayed float, and why.
        integers: number of integer ops.
    """

    def __init__(self, graph: TfliteGraph, marked: MarkedModel):
        grids = take_markers(graph, marked)
        self.graph, self.marked = graph, marked
        self.constants = Constants(graph, marked)
        self.marked_tensors = set(grids)
        spread_grids(graph, grids)
        self.grids = {t: Marker(m.ref, activation_grid(m)) for t, m in grids.items()}
        floats = marked.sim.record.plan.floats
        self.reasons = Reasons(graph, self.grids, self.constants, floats)
        self.ops: list[Op] = []
        self.float_ops = FloatOps(graph, self.constants, self.ops, self._float)
        self.as_integer: dict[int, int] = {}
        self.as_float: dict[int, int] = {}
        self.before: dict[int, tuple[int, Encoding]] = {}
        self.floats: dict[str, str] = {}
        self.integers = 0
        self._ones: dict[int, int] = {}

    def write(self, float_io: bool) -> None:
        """Rewrite the operations, then the inputs and outputs.

        Args:
            float_io: keep inputs and outputs float; otherwise quantized ones are integers.
        """
        inputs = {}
        for tensor in self.graph.inputs:
            if tensor in self.grids and not float_io:
                inputs[tensor] = self.as_integer[tensor] = self._new_integer(tensor)
            else:
                self.as_float[tensor] = tensor
        for op in self.graph.ops:
            self._write_op(op)
        outputs = {}
        for tensor in self.graph.outputs:
            integer = tensor in self.grids and not float_io
            outputs[tensor] = self._integer(tensor) if integer else self._float(tensor)
        self.graph.ops = self.ops
        self.graph.set_signature(inputs, outputs)

    def _write_op(self, op: Op) -> None:
        if op.name == "QUANTIZE":
            (source,), (out,) = op.inputs, op.outputs
            if source not in self.grids:
                self.as_float[out] = self._float(source)
                return
            self.as_integer[out] = self._new_integer(out)
            # A second grid of one tensor is not reached through the first.
            made, grid = self.before.get(source) or (
                self._integer(source),
                self.grids[source].encoding,
            )
            self._requantize(made, self.as_integer[out], grid, self.grids[out].encoding)
            return
        if op.name in SHAPE_ONLY:
            made = op.inputs[0] in self.as_integer
            source = self._integer(op.inputs[0]) if made else self._float(op.inputs[0])
            self.ops.append(replace(op, inputs=[source]))
            return
        why = self.reasons.why_float(op)
        if why is None:
            self._write_integer(op)
            self.integers += 1
            return
        if any(self.graph.is_float(out) for out in op.outputs):
            self.floats[self.graph.name(op.outputs[0])] = f"{op.name}: {why}"
        self.ops.append(self.float_ops.written(op))
        self.as_float.update({out: out for out in op.outputs})

    def _write_integer(self, op: Op) -> None:
        if op.name in WEIGHTED:
            self._write_weighted(op, WEIGHTED[op.name])
            return
        bits = self.reasons.width(op)
        if op.name in MOVES:
            self._write_same_grid(op, bits)
            return
        inputs = [self._operand(i, bits) for i in op.inputs]
        if op.name in FIXED:
            fixed = FIXED[op.name][1][bits]
            self._emit_onto(op, inputs, fixed, VERSIONS[op.name][bits])
        else:
            without_power_of_two_scales(op)
            self._emit(op, inputs, self._new_outputs(op), VERSIONS[op.name][bits])

    def _write_same_grid(self, op: Op, bits: int) -> None:
        """Emit an op with one grid on all sides; what differs is requantized in or out."""
        sources = [i for i in op.inputs if self.graph.is_float(i)]
        grid = self._grid(sources[0], bits)
        if len(sources) > 1 or op.name in COMPARES:
            grid = self.grids[op.outputs[0]].encoding
        inputs = []
        for tensor in op.inputs:
            if self._is_number(tensor):
                inputs.append(self.constants.on_grid(tensor, grid))
                continue
            operand = self._operand(tensor, bits)
            if self.graph.is_float(tensor):
                own = self._grid(tensor, bits)
                if not own.same_grid(grid):
                    name = f"{self.graph.name(tensor)}/requantized"
                    target = self.graph.add_like(tensor, name, grid)
                    self._requantize(operand, target, own, grid)
                    operand = target
            inputs.append(operand)
        self._emit_onto(op, inputs, grid, VERSIONS[op.name][bits])

    def _write_weighted(self, op: Op, kernel: Weighted) -> None:
        found = self.constants.found(op.inputs[kernel.weight])
        data = self.grids[op.inputs[kernel.data]].encoding
        assert found is not None  # Reasons asked
        bits, inputs = data.spec.bits, list(op.inputs)
        scales = scales_along(found, kernel.axis)
        inputs[kernel.data] = self._operand(op.inputs[kernel.data], bits)
        inputs[kernel.weight], packed = self.constants.weight(found, kernel, bits)
        if kernel.bias < len(inputs) and inputs[kernel.bias] >= 0:
            product = np.float32(data.scale) * scales
            inputs[kernel.bias] = self.constants.bias(inputs[kernel.bias], product, bits)
        version = max(
            kernel.versions[bits],
            kernel.per_channel_version if scales.size > 1 else 1,
            (kernel.int4_version or 1) if packed else 1,
        )
        self._emit(op, inputs, self._new_outputs(op), version)

    def _emit_onto(self, op: Op, inputs: list[int], grid: Encoding, version: int) -> None:
        """Emit an op whose output grid is given, and requantize where the sim has another."""
        outputs, after = [], []
        for out in op.outputs:
            wanted = self.grids[out]
            if wanted.encoding.same_grid(grid):
                outputs.append(self._new_integer(out))
                self.as_integer[out] = outputs[-1]
            else:
                between = self.graph.add_like(out, f"{wanted.ref}/before", grid)
                self.before[out] = between, grid
                outputs.append(between)
                after.append((between, out))
        widths = {self.grids[out].encoding.spec.bits for out in op.outputs}
        # An activation cuts off at steps of the grid that the sim has.
        activation = take_activation(op) if after and widths == {grid.spec.bits} else 0
        self._emit(op, inputs, outputs, version)
        for between, out in after:
            made = self.as_integer[out] = self._new_integer(out)
            self._requantize(between, made, grid, self.grids[out].encoding, activation)

    def _emit(self, op: Op, inputs: list[int], outputs: list[int], version: int) -> None:
        for out in op.outputs:
            without_needless_relu6(op, float(self.grids[out].encoding.scale))
        self.ops.append(
            replace(op, inputs=inputs, outputs=outputs, version=max(op.version, version))
        )
        self.as_integer.update(zip(op.outputs, outputs, strict=True))

    def _new_outputs(self, op: Op) -> list[int]:
        return [self._new_integer(out) for out in op.outputs]

    def _new_integer(self, tensor: int) -> int:
        marker = self.grids[tensor]
        name = str(marker.ref) if tensor in self.marked_tensors else self.graph.name(tensor)
        return self.graph.add_like(tensor, name, marker.encoding)

    def _requantize(
        self, source: int, target: int, old: Encoding, new: Encoding, activation: int = 0
    ) -> None:
        """Bring integers onto another grid: of the same width by a multiplication by one.

        A QUANTIZE would do, but XNNPACK computes int8 to int8 with an 8-bit factor, which is a
        step off for one element in nine, and LiteRT's own int16 to int16 is for one in sixty. The
        multiplication is exact there, and here off for one in two thousand.
        """
        bits = new.spec.bits
        if old.spec.bits != bits:
            self.ops.append(Op("QUANTIZE", [source], [target], QUANTIZE[bits]))
            return
        if bits not in self._ones:
            one = LARGEST[bits]
            quant = quantization(np.float32(1.0) / one, 0)
            self._ones[bits] = self.graph.add_constant(one.astype(TYPES[bits]), "one", quant)
        version = VERSIONS["MUL"][bits]
        product = multiplication([source, self._ones[bits]], [target], version, activation)
        without_needless_relu6(product, float(new.scale))
        self.ops.append(product)

    def _integer(self, tensor: int) -> int:
        """Return the integer form of a tensor, quantized here where it was made in float."""
        if tensor not in self.as_integer:
            version = QUANTIZE[self.grids[tensor].encoding.spec.bits]
            made = self.as_integer[tensor] = self._new_integer(tensor)
            self.ops.append(Op("QUANTIZE", [self.as_float[tensor]], [made], version))
        return self.as_integer[tensor]

    def _float(self, tensor: int) -> int:
        """Return the float form of a tensor: on its grid where it has one."""
        if tensor not in self.grids:
            return tensor
        made_here = self.as_float.get(tensor)
        if made_here is None or made_here == tensor:
            source, name = self._integer(tensor), f"{self.grids[tensor].ref}/float"
            version = DEQUANTIZE[self.grids[tensor].encoding.spec.bits]
            self.as_float[tensor] = self.float_ops.dequantized(source, name, version)
        return self.as_float[tensor]

    def _operand(self, tensor: int, bits: int) -> int:
        """Return what an integer op reads: integer tensor, integer constant, or as it is."""
        if not self.graph.is_float(tensor):
            return tensor
        if tensor in self.grids:
            return self._integer(tensor)
        return self.constants.as_integer(tensor, bits)

    def _is_number(self, tensor: int) -> bool:
        """Tell whether a tensor is a real constant, and no parameter of the sim."""
        return (
            self.graph.is_float(tensor)
            and tensor not in self.grids
            and self.graph.constant(tensor) is not None
            and self.constants.found(tensor) is None
        )

    def _grid(self, tensor: int, bits: int) -> Encoding:
        grid = self.reasons.grid(tensor, bits)
        assert grid is not None  # Reasons asked
        return grid
