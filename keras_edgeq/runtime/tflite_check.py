"""Look through a TFLite file for damage that its runtime answers by ending the process."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.runtime.tflite_file import TENSOR_TYPE, Op, TfliteGraph

MOST_ELEMENTS = 2**28
SUMS = ("ADD", "SUB")
# LiteRT brings the integers that it adds to twice the larger scale with so many fractional bits, by
# the bits of the result, and ends the process where a step of the result is below the last of them.
FRACTIONS = {8: 20, 16: 15}


def check_tflite(content: bytes) -> None:
    """Raise on sizes and scales that no exporter writes and no kernel checks.

    What LiteRT checks itself (offsets, numbers of tensors, buffer sizes) is left to it.

    Raises:
        EdgeqError: names the tensor.
    """
    try:
        graph = TfliteGraph(content)
        scales = [_checked(graph, tensor) for tensor in range(len(graph.tensors))]
        for op in graph.ops:
            if op.name in SUMS:
                _check_sum(graph, op, scales)
    except EdgeqError as error:
        raise EdgeqError(f"LiteRT cannot run the file: {error}") from None
    except Exception as error:  # the reader may meet any bytes instead of a table
        raise EdgeqError(
            f"LiteRT cannot load the file: it is not a TFLite model, or damaged ({error})."
        ) from None


def _checked(graph: TfliteGraph, tensor: int) -> np.ndarray:
    """Return the scales of a tensor, none for a float one."""
    raw = graph.tensors[tensor]
    shape = [] if raw.shape is None else [int(size) for size in raw.shape]
    if min(shape, default=0) < 0 or math.prod(shape) > MOST_ELEMENTS:
        raise EdgeqError(f"tensor {graph.name(tensor)[:100]!r} has the shape {shape}.")
    quant: Any = raw.quantization
    if quant is None or quant.scale is None or not len(quant.scale):
        return np.zeros(0, np.float32)
    scale = np.asarray(quant.scale, np.float32)
    if not np.all(np.isfinite(scale) & (scale >= np.finfo(np.float32).tiny)):
        raise EdgeqError(
            f"tensor {graph.name(tensor)[:100]!r} has a scale that is not a positive number."
        )
    return scale


def _check_sum(graph: TfliteGraph, op: Op, scales: list[np.ndarray]) -> None:
    found = [scales[i] for i in (*op.inputs, op.outputs[0])]
    if not all(map(len, found)):
        return
    out = graph.tensors[op.outputs[0]]
    bits = 16 if out.type == TENSOR_TYPE.INT16 else 8
    *operands, result = (float(scale[0]) for scale in found)
    if 2.0 * max(operands) >= 2.0 ** FRACTIONS[bits] * result:
        name = graph.name(op.outputs[0])[:100]
        raise EdgeqError(f"the scales that meet in {name!r} lie too far apart.")
