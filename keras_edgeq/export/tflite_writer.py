"""Write integer operations with a sim's scales into a graph whose grids are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from keras_edgeq.errors import ExportError
from keras_edgeq.export.marked import MarkedModel, Marker
from keras_edgeq.export.tflite_constants import Constants, along, as_int8, axis_of_scale
from keras_edgeq.export.tflite_kernels import (
    FIXED,
    REGRID,
    SAME_GRID,
    SHAPE_ONLY,
    VERSIONS,
    WEIGHTED,
    Weighted,
)
from keras_edgeq.export.tflite_markers import spread_grids, take_markers
from keras_edgeq.runtime.tflite_file import Op, TfliteGraph, multiplication, quantization
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
        self.grids = {t: Marker(m.ref, _activation_grid(m)) for t, m in grids.items()}
        self.ops: list[Op] = []
        self.as_integer: dict[int, int] = {}
        self.as_float: dict[int, int] = {}
        self.floats: dict[str, str] = {}
        self.integers = 0
        self._one: int | None = None

    def write(self, float_io: bool) -> None:
        """Rewrite the operations, then the inputs and outputs.

        Args:
            float_io: keep inputs and outputs float; otherwise quantized ones are int8.
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
            self.as_integer[op.outputs[0]] = self._new_integer(op.outputs[0])
            self._requantize(self._integer(op.inputs[0]), self.as_integer[op.outputs[0]])
            return
        if op.name in SHAPE_ONLY:
            made = op.inputs[0] in self.as_integer
            source = self._integer(op.inputs[0]) if made else self._float(op.inputs[0])
            self.ops.append(replace(op, inputs=[source]))
            return
        why = self._why_float(op)
        if why is None:
            self._write_integer(op)
            self.integers += 1
            return
        if any(self.graph.is_float(out) for out in op.outputs):
            self.floats[self.graph.name(op.outputs[0])] = f"{op.name}: {why}"
        self.ops.append(replace(op, inputs=self._float_inputs(op)))
        self.as_float.update({out: out for out in op.outputs})

    def _why_float(self, op: Op) -> str | None:
        graph = self.graph
        makes_float = all(graph.is_float(out) for out in op.outputs)
        if op.name not in VERSIONS and op.name not in WEIGHTED:
            return "no integer kernel is known" if makes_float else "computes no real numbers"
        if not makes_float:
            return "computes no real numbers"
        bare = [out for out in op.outputs if out not in self.grids]
        if bare:
            return "its result is not quantized in the sim"
        if op.name in WEIGHTED:
            return self._why_weighted_float(op, WEIGHTED[op.name])
        for tensor in op.inputs:
            if (
                graph.is_float(tensor)
                and tensor not in self.grids
                and self.constants.grid(tensor) is None
            ):
                return "reads a tensor that is not quantized in the sim"
        return None

    def _why_weighted_float(self, op: Op, kernel: Weighted) -> str | None:
        if op.inputs[kernel.data] not in self.grids:
            return "its input is not quantized in the sim"
        weight = self.constants.found(op.inputs[kernel.weight])
        if weight is None or weight.param.encoding is None:
            return "its weight is not quantized in the sim"
        if kernel.bias < len(op.inputs) and op.inputs[kernel.bias] >= 0:
            constant = self.graph.constant(op.inputs[kernel.bias])
            if constant is None or (np.any(constant) and self.marked.find(constant) is None):
                return "its bias is no constant on an int32 grid"
        return None if axis_of_scale(weight.scale()) in (None, kernel.axis) else "channel axis"

    def _write_integer(self, op: Op) -> None:
        if op.name in WEIGHTED:
            self._write_weighted(op, WEIGHTED[op.name])
        elif op.name in FIXED:
            version, fixed = FIXED[op.name]
            inputs = [self._operand(i) for i in op.inputs]
            self._emit_onto(op, inputs, lambda _: fixed, version)
        elif op.name in SAME_GRID or op.name in REGRID:
            self._write_same_grid(op)
        else:
            inputs = [self._operand(i) for i in op.inputs]
            self._emit(op, inputs, self._new_outputs(op), VERSIONS[op.name])

    def _write_same_grid(self, op: Op) -> None:
        """Emit an op with one grid on all sides; what differs is requantized in or out."""
        sources = [i for i in op.inputs if self.graph.is_float(i)]
        grid = self._grid(sources[0])
        if len(sources) > 1:
            grid = self.grids[op.outputs[0]].encoding
        inputs = []
        for tensor in op.inputs:
            operand = self._operand(tensor)
            if self.graph.is_float(tensor) and not self._grid(tensor).same_grid(grid):
                target = self.graph.add_like(tensor, f"{self.graph.name(tensor)}/requantized", grid)
                self._requantize(operand, target)
                operand = target
            inputs.append(operand)
        self._emit_onto(op, inputs, lambda _: grid, VERSIONS[op.name])

    def _write_weighted(self, op: Op, kernel: Weighted) -> None:
        weight = self.constants.found(op.inputs[kernel.weight])
        data = op.inputs[kernel.data]
        assert weight is not None  # _why_weighted_float asked
        scale, axis = weight.scale(), axis_of_scale(weight.scale())
        scales = scale.ravel()[:1] if axis is None else along(scale, axis)
        name = str(weight.param.ref)
        inputs = list(op.inputs)
        inputs[kernel.data] = self._operand(data)
        inputs[kernel.weight] = self.graph.add_constant(
            weight.integers().astype(np.int8), name, quantization(scales, 0, kernel.axis)
        )
        if kernel.bias < len(inputs) and inputs[kernel.bias] >= 0:
            grid = np.float32(self.grids[data].encoding.scale) * scales
            inputs[kernel.bias] = self.constants.bias(inputs[kernel.bias], grid)
        version = kernel.version if axis is None else kernel.per_channel_version
        self._emit(op, inputs, self._new_outputs(op), version)

    def _emit_onto(self, op: Op, inputs: list[int], grid_of: Callable, version: int) -> None:
        """Emit an op whose output grid is given, and requantize where the sim has another."""
        outputs, after = [], []
        for out in op.outputs:
            grid, wanted = grid_of(out), self.grids[out]
            if wanted.encoding.same_grid(grid):
                outputs.append(self._new_integer(out))
                self.as_integer[out] = outputs[-1]
            else:
                between = self.graph.add_like(out, f"{wanted.ref}/before", grid)
                outputs.append(between)
                after.append((between, out))
        self._emit(op, inputs, outputs, version)
        for between, out in after:
            self.as_integer[out] = self._new_integer(out)
            self._requantize(between, self.as_integer[out])

    def _emit(self, op: Op, inputs: list[int], outputs: list[int], version: int) -> None:
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

    def _requantize(self, source: int, target: int) -> None:
        """Bring integers onto another grid, by a multiplication by one.

        An int8 to int8 QUANTIZE would do, but XNNPACK computes it with an 8-bit factor, which is a
        step off for one element in nine; its multiplication is exact.
        """
        if self._one is None:
            scale = np.float32(1.0 / 127.0)
            self._one = self.graph.add_constant(np.int8(127), "one", quantization(scale, 0))
        self.ops.append(multiplication([source, self._one], [target]))

    def _integer(self, tensor: int) -> int:
        """Return the integer form of a tensor, quantized here where it was made in float."""
        if tensor not in self.as_integer:
            self.as_integer[tensor] = self._new_integer(tensor)
            self.ops.append(Op("QUANTIZE", [self.as_float[tensor]], [self.as_integer[tensor]]))
        return self.as_integer[tensor]

    def _float(self, tensor: int) -> int:
        """Return the float form of a tensor: on its grid where it has one."""
        if tensor not in self.grids:
            return tensor
        made_here = self.as_float.get(tensor)
        if made_here is None or made_here == tensor:
            source = self._integer(tensor)
            target = self.graph.add_float_like(tensor, f"{self.grids[tensor].ref}/float")
            self.ops.append(Op("DEQUANTIZE", [source], [target], 2))
            self.as_float[tensor] = target
        return self.as_float[tensor]

    def _operand(self, tensor: int) -> int:
        """Return what an integer op reads: integer tensor, integer constant, or as it is."""
        if not self.graph.is_float(tensor):
            return tensor
        if tensor in self.grids:
            return self._integer(tensor)
        return self.constants.as_integer(tensor)

    def _grid(self, tensor: int) -> Encoding:
        grid = self.grids[tensor].encoding if tensor in self.grids else self.constants.grid(tensor)
        assert grid is not None  # _why_float asked
        return grid

    def _float_inputs(self, op: Op) -> list[int]:
        """Return float operands, with the true values in place of fingerprints."""
        return [self._float_operand(i) if i >= 0 else i for i in op.inputs]

    def _float_operand(self, tensor: int) -> int:
        constant = self.constants.as_float(tensor)
        return self._float(tensor) if constant is None else constant


def _activation_grid(marker: Marker) -> Encoding:
    """Return a tensor's grid on int8; kernels clip at the ends of int8 and nowhere else."""
    bits = marker.encoding.spec.bits
    if bits != 8:
        raise ExportError(
            f"Tensor {marker.ref} has a grid of {bits} bits; TFLite export writes 8. "
            "Give the profile 8-bit activations, or export to ONNX."
        )
    return as_int8(marker.encoding)
