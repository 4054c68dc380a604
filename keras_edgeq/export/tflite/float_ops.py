"""Operations that stay float, on what integers stand for; those with integer weights among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from keras_edgeq.export.tflite.constants import Constants
from keras_edgeq.export.tflite.kernels import (
    DEQUANTIZE_CHANNELS,
    DEQUANTIZE_HALF,
    HYBRID,
    WEIGHTED,
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
        return self._hybrid(op) or replace(op, inputs=self._inputs(op))

    def dequantized(self, source: int, name: str, version: int) -> int:
        """Return what integers or halves stand for, in float."""
        target = self.graph.add_float_like(source, name)
        self.ops.append(Op("DEQUANTIZE", [source], [target], version))
        return target

    def _hybrid(self, op: Op) -> Op | None:
        """Return an op that reads a float tensor and integer weights; None where it is none.

        Its kernel rounds each row of the tensor onto an 8-bit grid as it runs.
        """
        if op.name not in HYBRID:
            return None
        kernel = WEIGHTED[op.name]
        found = self.constants.found(op.inputs[kernel.weight])
        if found is None or not self.constants.reads_rows(found):
            return None
        inputs = self._inputs(op)
        inputs[kernel.weight], packed = self.constants.weight(found, kernel, 8)
        round_rows_around_zero_points(op)
        version = HYBRID[op.name] if not packed else max(HYBRID[op.name], kernel.int4_version or 1)
        return replace(op, inputs=inputs, version=max(op.version, version))

    def _inputs(self, op: Op) -> list[int]:
        """Return float operands, with the true values instead of fingerprints."""
        inputs = [self._operand(i) if i >= 0 else i for i in op.inputs]
        if op.name in WEIGHTED:
            kernel = WEIGHTED[op.name]
            found = self.constants.found(op.inputs[kernel.weight])
            stored = found and self.constants.stored(found, kernel)
            if stored is not None:
                name = f"{self.graph.name(stored)}/float"
                inputs[kernel.weight] = self.dequantized(stored, name, DEQUANTIZE_CHANNELS)
        return inputs

    def _operand(self, tensor: int) -> int:
        constant = self.constants.as_float(tensor)
        if constant is None:
            return self._float(tensor)
        if self.graph.is_float(constant):
            return constant
        name = f"{self.graph.name(constant)}/float"
        return self.dequantized(constant, name, DEQUANTIZE_HALF)
