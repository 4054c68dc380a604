"""Weights in blocks in encodings: numbers per channel and per block, in the order of the files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.errors import EncodingsError
from keras_edgeq.numerics.blocks import inner_axes
from keras_edgeq.spec.encoding import Encoding

READ = (
    "Encodings with blocks are written and not read: quantize the float model with a precision of "
    "such blocks."
)


def block_axis(encoding: Encoding) -> int:
    """Return the axis of a weight along which the elements of a block follow each other."""
    (inner,) = inner_axes(encoding.scale.ndim, encoding.spec.axes)
    return inner


def check_whole(name: str, encoding: Encoding, shape: Sequence[int]) -> None:
    """Raise where a weight does not end with a whole block, as all of AIMET's do.

    Raises:
        EncodingsError: names the weight.
    """
    size, length = encoding.spec.block_size, shape[block_axis(encoding)]
    if length % size:
        raise EncodingsError(
            f"{name!r} has {length} inputs in blocks of {size}, of which the last is shorter; "
            "encodings hold whole blocks. Give the layer a block_size that divides them, or a "
            "precision without blocks."
        )


def flat_fields(encoding: Encoding) -> dict[str, Any]:
    """Return the fields of version 1.0.0: `PER_BLOCK`, or `LPBQ` for multiples of one scale.

    Channels come first and blocks second in its lists, whatever the layout of the weight.
    """
    spec, axis = encoding.spec, block_axis(encoding)

    def flat(numbers: NDArray) -> NDArray:
        return np.moveaxis(numbers, axis, -1).ravel()

    scale = [float(s) for s in flat(encoding.scale)]
    made: dict[str, Any] = {"dtype": "INT", "is_sym": True, "block_size": spec.block_size}
    if encoding.multiples is None:
        made |= {"enc_type": "PER_BLOCK", "bw": spec.bits}
    else:
        made |= {
            "enc_type": "LPBQ",
            "bw": spec.bits + spec.block_bits,
            "compressed_bw": spec.bits,
            "per_block_int_scale": [int(m) for m in flat(encoding.multiples)],
        }
    return {**made, "scale": scale, "offset": [-(2 ** (made["bw"] - 1))] * len(scale)}


def nested_fields(name: str, encoding: Encoding) -> dict[str, Any]:
    """Return the fields of version 2.0.0, in the layout of the weight.

    Raises:
        EncodingsError: multiples have not as many bits as the weight.
    """
    spec = encoding.spec
    made: dict[str, Any] = {"axis": block_axis(encoding), "block_size": spec.block_size}
    if encoding.multiples is None:
        return {"y_scale": encoding.scale.astype(float).tolist(), **made}
    if spec.block_bits != spec.bits:
        raise EncodingsError(
            f"{name!r} has multiples of {spec.block_bits} bits over integers of {spec.bits}; "
            "encodings 2.0.0 hold as many of both. Version 1.0.0 holds it."
        )
    return {
        "per_channel_float_scale": encoding.scale.astype(float).tolist(),
        "per_block_int_scale": encoding.multiples.astype(int).tolist(),
        **made,
    }
