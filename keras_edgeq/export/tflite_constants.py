"""Constants of a converted graph in the form an integer or a float kernel reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from keras_edgeq.errors import ExportError
from keras_edgeq.export.marked import Found, MarkedModel
from keras_edgeq.export.tflite_kernels import UNIT
from keras_edgeq.runtime.tflite_file import TfliteGraph, quantization
from keras_edgeq.spec.encoding import Encoding


@dataclass(frozen=True)
class Constants:
    """Reads constants, fingerprints among them, and adds their true form to the graph."""

    graph: TfliteGraph
    marked: MarkedModel

    def found(self, tensor: int) -> Found | None:
        """Return the parameter behind a tensor, None where it is none."""
        constant = self.graph.constant(tensor) if tensor >= 0 else None
        return None if constant is None else self.marked.find(constant)

    def grid(self, tensor: int) -> Encoding | None:
        """Return the grid of a constant operand: a parameter's own, or exact for a scalar."""
        found = self.found(tensor)
        if found is not None:
            encoding = found.param.encoding
            return None if encoding is None or encoding.scale.ndim else as_int8(encoding)
        constant = self.graph.constant(tensor)
        if constant is None or constant.size != 1:
            return None
        scale = np.float32(np.abs(constant).max() / 127.0) or np.float32(1.0)
        return Encoding(UNIT, np.array(scale), np.zeros((), np.int32))

    def as_integer(self, tensor: int) -> int:
        """Add a constant operand on its grid, int8."""
        found, grid = self.found(tensor), self.grid(tensor)
        assert grid is not None  # the caller asked
        if found is not None and found.param.encoding is not None:
            shift = grid.zero_point - found.param.encoding.zero_point
            values, name = found.integers() + shift, str(found.param.ref)
        else:
            values = np.rint(self.graph.constant(tensor) / grid.scale)
            name = self.graph.name(tensor)
        quant = quantization(grid.scale, grid.zero_point)
        return self.graph.add_constant(values.astype(np.int8), name, quant)

    def as_float(self, tensor: int) -> int | None:
        """Add a parameter as the sim rounds it, in float; None for other tensors."""
        found = self.found(tensor)
        if found is None:
            return None
        if found.param.encoding is not None:
            zero_point = found.param.encoding.zero_point.ravel()[0]
            values = (found.integers() - zero_point) * found.scale()
        else:
            values = self.marked.rounded_bias(found)
        return self.graph.add_constant(values.astype(np.float32), str(found.param.ref))

    def bias(self, tensor: int, grid: np.ndarray) -> int:
        """Add a bias on the int32 grid input scale times weight scale, as the sim rounds it."""
        constant, found = self.graph.constant(tensor), self.found(tensor)
        assert constant is not None  # the caller asked
        values = np.zeros(constant.shape, np.float32) if found is None else found.values
        steps = np.rint(values.astype(np.float32) / grid.astype(np.float32))
        integers = np.clip(steps, -(2.0**31), 2.0**31 - 1).astype(np.int64).astype(np.int32)
        name = self.graph.name(tensor) if found is None else str(found.param.ref)
        return self.graph.add_constant(integers, name, quantization(grid, np.zeros(1)))


def as_int8(encoding: Encoding) -> Encoding:
    """Return the same grid on int8, which TFLite's kernels take; a wider one is an error."""
    if encoding.spec.bits > 8:
        raise ExportError(
            f"TFLite export writes weights of up to 8 bits; one has {encoding.spec.bits}."
        )
    if encoding.spec.signed:
        return encoding
    shift = 2 ** (encoding.spec.bits - 1)
    spec = replace(encoding.spec, signed=True)
    return Encoding(spec, encoding.scale, encoding.zero_point - np.int32(shift))


def axis_of_scale(scale: np.ndarray) -> int | None:
    """Return the axis along which a weight's scale varies; None for one scale, -1 for several."""
    axes = [a for a in range(scale.ndim) if np.any(scale != np.take(scale, [0], a))]
    return None if not axes else axes[0] if len(axes) == 1 else -1


def along(scale: np.ndarray, axis: int) -> np.ndarray:
    """Return the scales along an axis."""
    return np.moveaxis(scale, axis, 0).reshape(scale.shape[axis], -1)[:, 0]
