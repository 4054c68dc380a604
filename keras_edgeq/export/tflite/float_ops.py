"""Operations that stay float, on what integers stand for; those with integer weights among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from keras_edgeq.export.fingerprints import Found
from keras_edgeq.export.tflite.constants import Constants
from keras_edgeq.export.tflite.kernels import (
    DEQUANTIZE_CHANNELS,
    DEQUANTIZE_HALF,
    HYBRID,
    WEIGHTED,
    Weighted,
)
from keras_edgeq.runtime.tflite_file import Op, TfliteGraph, round_rows_around_zero_points


@dataclass(frozen=True)
class FloatOps:
    """Writes operations whose results are float.

    Args:
        graph: the graph they are of.
        constants: its constants.
        ops: what is written so far; conversions are added.
        _float: tensor -> its float form.
    """

    graph: TfliteGraph
    constants: Constants
    ops: list[Op]
    _float: Callable[[int], int]

    def written(self, op: Op) -> Op:
        """Return an operation that reads floats, and weights as its layer holds them."""
        kernel = WEIGHTED.get(op.name)
        found = None if kernel is None else self.constants.found(op.inputs[kernel.weight])
        if kernel is None or found is None:
            return replace(op, inputs=[self._operand(i) for i in op.inputs])
        weight, version = self._weight(op, kernel, found)
        inputs = [
            weight if place == kernel.weight else self._operand(tensor)
            for place, tensor in enumerate(op.inputs)
        ]
        return replace(op, inputs=inputs, version=max(op.version, version))

    def dequantized(self, source: int, name: str, version: int) -> int:
        """Return what integers or halves stand for, in float."""
        target = self.graph.add_float_like(source, name)
        self.ops.append(Op("DEQUANTIZE", [source], [target], version))
        return target

    def _weight(self, op: Op, kernel: Weighted, found: Found) -> tuple[int, int]:
        """Return the weight that an operation reads, and the first version that takes it."""
        if op.name in HYBRID and self.constants.reads_rows(found):
            round_rows_around_zero_points(op)
            weight, packed = self.constants.weight(found, kernel, 8)
            return weight, max(HYBRID[op.name], (kernel.int4_version or 1) if packed else 1)
        stored = self.constants.stored(found, kernel)
        if stored is None:
            return self._operand(op.inputs[kernel.weight]), 1
        name = f"{self.graph.name(stored)}/float"
        return self.dequantized(stored, name, DEQUANTIZE_CHANNELS), 1

    def _operand(self, tensor: int) -> int:
        """Return a float operand, with its true values instead of fingerprints."""
        constant = self.constants.as_float(tensor)
        if constant is None:
            return self._float(tensor) if tensor >= 0 else tensor
        if self.graph.is_float(constant):
            return constant
        name = f"{self.graph.name(constant)}/float"
        return self.dequantized(constant, name, DEQUANTIZE_HALF)
