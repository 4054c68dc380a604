"""The tensors of a TFLite file: their grids, and the values of the constant ones."""

from __future__ import annotations

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.runtime.integer.call import Grid
from keras_edgeq.runtime.tflite_file import TENSOR_TYPE as _TYPE
from keras_edgeq.runtime.tflite_file import TfliteGraph

DTYPES = {
    _TYPE.FLOAT32: np.dtype(np.float32),
    _TYPE.FLOAT16: np.dtype(np.float16),
    _TYPE.INT4: np.dtype(np.int8),
    _TYPE.INT8: np.dtype(np.int8),
    _TYPE.UINT8: np.dtype(np.uint8),
    _TYPE.INT16: np.dtype(np.int16),
    _TYPE.INT32: np.dtype(np.int32),
    _TYPE.INT64: np.dtype(np.int64),
    _TYPE.BOOL: np.dtype(np.bool_),
}


def read_grid(graph: TfliteGraph, number: int) -> Grid:
    """Return a tensor's grid.

    Raises:
        EdgeqError: integer models do not have its type, or its channels differ in zero point.
    """
    raw, name = graph.tensors[number], graph.name(number)
    if raw.type not in DTYPES:
        names = {v: k for k, v in vars(_TYPE).items() if isinstance(v, int)}
        raise EdgeqError(
            f"Tensor {name!r} has type {names.get(raw.type, raw.type)}, which the integer executor "
            "does not read; run the file on LiteRT instead."
        )
    quant = raw.quantization
    scale, zero_point = None, 0
    if quant is not None and quant.scale is not None and len(quant.scale):
        scale = np.asarray(quant.scale, np.float32)
        if not np.all(np.isfinite(scale) & (scale > 0)):
            raise EdgeqError(f"Tensor {name!r} has a scale that is not a positive number: {scale}.")
        zeros = {int(z) for z in (quant.zeroPoint if quant.zeroPoint is not None else [0])}
        if len(zeros) > 1:
            raise EdgeqError(
                f"Tensor {name!r} has different zero points per channel; no integer kernel takes "
                "that. Export it with symmetric weights."
            )
        zero_point = zeros.pop() if zeros else 0
    signature = raw.shapeSignature if raw.shapeSignature is not None else raw.shape
    return Grid(
        name=name,
        dtype=DTYPES[raw.type],
        scale=scale,
        zero_point=zero_point,
        axis=0 if quant is None else int(quant.quantizedDimension),
        shape=() if signature is None else tuple(int(s) for s in signature),
        bits=4 if raw.type == _TYPE.INT4 else 8 * DTYPES[raw.type].itemsize,
        const=read_constant(graph, number) is not None,
    )


def read_constant(graph: TfliteGraph, number: int) -> np.ndarray | None:
    """Return the values of a constant tensor, None for others; int4 is unpacked to int8."""
    raw = graph.tensors[number]
    data = graph.model.buffers[raw.buffer].data
    shape = [] if raw.shape is None else [int(s) for s in raw.shape]
    if data is None or not len(data):
        return None
    content = np.asarray(data, np.uint8)
    if raw.type == _TYPE.INT4:
        # Two values share a byte, the first in its low half; the shifts carry the sign down.
        pairs = np.stack([(content << 4).view(np.int8) >> 4, content.view(np.int8) >> 4], -1)
        values = pairs.ravel()[: int(np.prod(shape))]
    else:
        values = np.frombuffer(content.tobytes(), DTYPES[raw.type])
    if values.size != int(np.prod(shape)):
        raise EdgeqError(
            f"Tensor {graph.name(number)!r} has {values.size} values in the file and shape "
            f"{shape}; the file is damaged."
        )
    return values.reshape(shape)
