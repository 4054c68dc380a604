"""Which operations of a graph LiteRT computes in integers, how wide, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_edgeq.errors import ExportError
from keras_edgeq.export.marked import Marker
from keras_edgeq.export.tflite.constants import (
    Constants,
    as_signed,
    axis_of_scale,
    scales_along,
)
from keras_edgeq.export.tflite.kernels import (
    FIXED,
    REGRID,
    SAME_GRID,
    VERSIONS,
    WEIGHTED,
    Weighted,
)
from keras_edgeq.export.tflite.reach import PAIRS, TOO_FAR, pair_fits, sums_fit
from keras_edgeq.runtime.tflite_file import Op, TfliteGraph
from keras_edgeq.spec.encoding import Encoding

MOVES = (*SAME_GRID, *REGRID)
# Their kernels round onto a grid of their own first, which a float layer of the sim does not.
OWN_GRIDS = (*REGRID, *FIXED)
MIXED = "reads and makes integers of different widths, which no kernel does"


@dataclass(frozen=True)
class Reasons:
    """Says of each operation why it stays float.

    Args:
        graph: the graph.
        grids: the grids of its tensors.
        constants: its constants.
        floats: layer -> why the sim computes it in float.
    """

    graph: TfliteGraph
    grids: Mapping[int, Marker]
    constants: Constants
    floats: Mapping[str, str]

    def why_float(self, op: Op) -> str | None:
        """Return why an operation stays float, None if a kernel computes it in integers."""
        makes_float = all(self.graph.is_float(out) for out in op.outputs)
        if op.name not in VERSIONS and op.name not in WEIGHTED:
            return "no integer kernel is known" if makes_float else "computes no real numbers"
        if not makes_float:
            return "computes no real numbers"
        if any(out not in self.grids for out in op.outputs):
            return "its result is not quantized in the sim"
        if op.name in WEIGHTED:
            return self._why_weighted_float(op, WEIGHTED[op.name])
        layer = self.grids[op.outputs[0]].ref.layer
        if op.name in OWN_GRIDS and layer in self.floats:
            return self.floats[layer]
        bits = self.width(op)
        if bits not in VERSIONS[op.name]:
            return f"LiteRT has no int{bits} kernel that computes it"
        read = [self.grid(tensor, bits) for tensor in op.inputs if self.graph.is_float(tensor)]
        if None in read:
            return "reads a tensor that is not quantized in the sim"
        operands = [grid for grid in read if grid is not None]
        if op.name not in MOVES and any(grid.spec.bits != bits for grid in operands):
            return MIXED
        fits = op.name not in PAIRS or pair_fits(op.name, operands, self._result(op))
        return None if fits else TOO_FAR

    def width(self, op: Op) -> int:
        """Return the width of the integers an op computes in: its result's, or what it moves."""
        sources = [i for i in op.inputs if self.graph.is_float(i)]
        if op.name not in MOVES or len(sources) != 1:
            return self.grids[op.outputs[0]].encoding.spec.bits
        return self.grids[sources[0]].encoding.spec.bits if sources[0] in self.grids else 8

    def grid(self, tensor: int, bits: int) -> Encoding | None:
        """Return the grid of a tensor, or of a constant for a kernel of this width."""
        if tensor in self.grids:
            return self.grids[tensor].encoding
        return self.constants.grid(tensor, bits)

    def _result(self, op: Op) -> Encoding:
        return self.grids[op.outputs[0]].encoding

    def _why_weighted_float(self, op: Op, kernel: Weighted) -> str | None:
        weight = self.constants.found(op.inputs[kernel.weight])
        if weight is None or weight.param.encoding is None:
            return "its weight is not quantized in the sim"
        if weight.param.encoding.spec.is_half:
            return "its weight is float16"
        if op.inputs[kernel.data] not in self.grids:
            return "its input is not quantized in the sim"
        if np.any(as_signed(weight.param.encoding).zero_point):
            return "its weight has a zero point other than 0"
        data, result = self.grids[op.inputs[kernel.data]].encoding, self._result(op)
        if data.spec.bits != result.spec.bits:
            return MIXED
        bias = np.zeros(1)
        if kernel.bias < len(op.inputs) and op.inputs[kernel.bias] >= 0:
            constant = self.graph.constant(op.inputs[kernel.bias])
            found = None if constant is None else self.constants.marked.fingerprints.find(constant)
            if constant is None or (np.any(constant) and found is None):
                return "its bias is not a constant on an integer grid"
            bias = bias if found is None else found.values
        if axis_of_scale(weight.scale()) not in (None, kernel.axis):
            return "channel axis"
        real = np.moveaxis(self.constants.real(weight), kernel.axis, 0)
        scales = scales_along(weight, kernel.axis)
        return None if sums_fit(real, scales, bias, data, result) else TOO_FAR


def activation_grid(marker: Marker) -> Encoding:
    """Return a tensor's grid on int8 or int16; kernels clip at the ends of these, nowhere else."""
    spec = marker.encoding.spec
    if spec.is_half:
        raise ExportError(
            f"Tensor {marker.ref} is float16; LiteRT computes float layers in float32. Give the "
            "profile FP16 without an activation grid, or export to ONNX."
        )
    if spec.bits == 8:
        return as_signed(marker.encoding)
    if spec.bits != 16:
        raise ExportError(
            f"Tensor {marker.ref} has a grid of {spec.bits} bits; TFLite export writes 8 or 16. "
            "Give the profile 8-bit activations, or export to ONNX."
        )
    if not spec.signed or np.any(marker.encoding.zero_point):
        raise ExportError(
            f"Tensor {marker.ref} has a 16-bit grid with zero point "
            f"{int(marker.encoding.zero_point)}; LiteRT's int16 kernels take signed integers with "
            "zero point 0. Make 16-bit activations signed and symmetric in the profile."
        )
    return marker.encoding
