"""Constants of a converted graph in the form an integer or a float kernel reads them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from keras_edgeq.errors import ExportError
from keras_edgeq.export.fingerprints import Found
from keras_edgeq.export.marked import MarkedModel
from keras_edgeq.export.tflite.kernels import Weighted, grid
from keras_edgeq.layers.quantized_layer import BIAS_MAX
from keras_edgeq.runtime.tflite_file import TfliteGraph, quantization
from keras_edgeq.spec.encoding import HALF_MAX, Encoding

INT4_BITS = 4
LARGEST = {8: np.float32(127), 16: np.float32(32767)}
TYPES = {8: np.int8, 16: np.int16}


@dataclass(frozen=True)
class Constants:
    """Reads constants, fingerprints among them, and adds their true form to the graph.

    Methods that take `bits` do it for a kernel whose activations are that wide.
    """

    graph: TfliteGraph
    marked: MarkedModel
    _made: dict[tuple[str, str, bytes], int] = field(default_factory=dict, init=False)

    def found(self, tensor: int) -> Found | None:
        """Return the parameter behind a tensor, None if there is none."""
        constant = self.graph.constant(tensor) if tensor >= 0 else None
        return None if constant is None else self.marked.fingerprints.find(constant)

    def grid(self, tensor: int, bits: int) -> Encoding | None:
        """Return the grid of a constant operand: a parameter's own, or exact for a scalar."""
        found = self.found(tensor)
        if found is not None:
            encoding = found.param.encoding
            if encoding is None or encoding.spec.is_half or encoding.scale.ndim:
                return None
            return in_container(encoding, bits)
        constant = self.graph.constant(tensor)
        if constant is None or constant.size != 1:
            return None
        return grid(bits, float(np.abs(constant).max() / LARGEST[bits]) or 1.0)

    def as_integer(self, tensor: int, bits: int) -> int:
        """Add a constant operand on its grid."""
        found, encoding = self.found(tensor), self.grid(tensor, bits)
        assert encoding is not None  # the caller asked
        if found is not None and found.param.encoding is not None:
            shift = encoding.zero_point - found.param.encoding.zero_point
            values, name = found.integers() + shift, str(found.param.ref)
        else:
            values = np.rint(self.graph.constant(tensor) / encoding.scale)
            name = self.graph.name(tensor)
        quant = quantization(encoding.scale, encoding.zero_point)
        return self.graph.add_constant(values.astype(TYPES[bits]), name, quant)

    def on_grid(self, tensor: int, grid: Encoding) -> int:
        """Add a constant operand that is no parameter, rounded onto the grid of what is beside."""
        constant = self.graph.constant(tensor)
        assert constant is not None  # the caller asked
        values = np.clip(constant, grid.min, grid.max).astype(np.float32)
        integers = np.rint(values / np.float32(grid.scale)) + grid.zero_point
        integers = np.clip(integers, *grid.bounds).astype(TYPES[grid.spec.bits])
        quant = quantization(grid.scale, grid.zero_point)
        return self.graph.add_constant(integers, self.graph.name(tensor), quant)

    def weight(self, found: Found, kernel: Weighted, bits: int) -> tuple[int, bool]:
        """Add a weight of an integer kernel, once; also tell whether it was packed as int4.

        Raises:
            ExportError: it does not fit int8.
        """
        assert found.param.encoding is not None  # the caller asked
        width = as_signed(found.param.encoding).spec.bits
        packed = width <= INT4_BITS and bits == 8 and kernel.int4_version is not None
        name = str(found.param.ref)
        key = name, "int4" if packed else "int8", found.index.tobytes()
        if key not in self._made:
            quant = quantization(scales_along(found, kernel.axis), 0, kernel.axis)
            integers = found.integers().astype(np.int8)
            self._made[key] = self.graph.add_constant(integers, name, quant, int4=packed)
        return self._made[key], packed

    def reads_rows(self, found: Found) -> bool:
        """Tell whether the kernel of a weight rounds the rows that it multiplies as it runs."""
        return self.marked.sim.quantized_layers()[found.param.ref.layer].rounds_rows

    def stored(self, found: Found, kernel: Weighted) -> int | None:
        """Add a weight in integers for a kernel that computes with what they stand for.

        None where its layer reads integers, or these have no symmetric grid along one axis.
        """
        ref, encoding = found.param.ref, found.param.encoding
        chosen = self.marked.sim.record.plan.kernels[ref.layer].precision
        weight_only = self.marked.sim.record.profile.precision(chosen).activation is None
        if encoding is None or encoding.spec.is_half or not weight_only:
            return None
        is_plain = axis_of_scale(found.scale()) in (None, kernel.axis)
        if not is_plain or np.any(as_signed(encoding).zero_point):
            return None
        return self.weight(found, replace(kernel, int4_version=None), 8)[0]

    def as_float(self, tensor: int) -> int | None:
        """Add a parameter as the sim rounds it, in float, once; None for other tensors.

        It is float16 where that is its grid, float32 otherwise.
        """
        found = self.found(tensor)
        if found is None:
            return None
        name = str(found.param.ref)
        key = name, "float", found.index.tobytes()
        if key not in self._made:
            self._made[key] = self.graph.add_constant(self.real(found), name)
        return self._made[key]

    def real(self, found: Found) -> np.ndarray:
        """Return a parameter as the sim rounds it, in the constant's layout."""
        encoding = found.param.encoding
        if encoding is None:
            return self.marked.rounded_bias(found).astype(np.float32)
        if encoding.spec.is_half:
            return np.clip(found.values, -HALF_MAX, HALF_MAX).astype(np.float16)
        values = (found.integers() - found.zero_point()) * found.scale()
        return values.astype(np.float32)

    def bias(self, tensor: int, scales: np.ndarray, bits: int) -> int:
        """Add a bias on the grid input scale times weight scale, as the sim rounds it.

        int32, and int64 with int16 activations: their kernels misread an int32 one.
        """
        constant, found = self.graph.constant(tensor), self.found(tensor)
        assert constant is not None  # the caller asked
        values = np.zeros(constant.shape, np.float32) if found is None else found.values
        steps = np.rint(values.astype(np.float32) / scales.astype(np.float32))
        most = BIAS_MAX[32 if bits == 8 else 64]
        integers = np.clip(steps.astype(np.float64), -most - 1.0, most)
        name = self.graph.name(tensor) if found is None else str(found.param.ref)
        kind = np.int32 if bits == 8 else np.int64
        quant = quantization(scales, np.zeros(1))
        return self.graph.add_constant(integers.astype(kind), name, quant)


def in_container(encoding: Encoding, bits: int) -> Encoding | None:
    """Return a parameter's grid on int8 or int16, as kernels of that width take it.

    None if int16 would need a zero point other than 0, which its kernels do not have.
    """
    signed = as_signed(encoding)
    if bits == 16 and np.any(signed.zero_point):
        return None
    return replace(signed, spec=replace(signed.spec, bits=bits))


def as_signed(encoding: Encoding) -> Encoding:
    """Return a parameter's grid on signed integers.

    Raises:
        ExportError: it has more than 8 bits.
    """
    if encoding.spec.bits > 8:
        raise ExportError(
            f"TFLite export writes weights of up to 8 bits; one has {encoding.spec.bits}."
        )
    if encoding.spec.signed:
        return encoding
    shift = 2 ** (encoding.spec.bits - 1)
    spec = replace(encoding.spec, signed=True)
    return Encoding(spec, encoding.scale, encoding.zero_point - np.int32(shift))


def scales_along(found: Found, axis: int) -> np.ndarray:
    """Return the scale of a weight, or its scales along the axis that has several."""
    scale = found.scale()
    return scale.ravel()[:1] if axis_of_scale(scale) is None else along(scale, axis)


def axis_of_scale(scale: np.ndarray) -> int | None:
    """Return the axis along which a weight's scale varies; None for one scale, -1 for several."""
    axes = [a for a in range(scale.ndim) if np.any(scale != np.take(scale, [0], a))]
    return None if not axes else axes[0] if len(axes) == 1 else -1


def along(scale: np.ndarray, axis: int) -> np.ndarray:
    """Return the scales along an axis."""
    return np.moveaxis(scale, axis, 0).reshape(scale.shape[axis], -1)[:, 0]
