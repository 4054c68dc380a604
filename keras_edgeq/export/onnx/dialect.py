"""Which types an ONNX file stores the integers of a grid in, and the opset that has them."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from keras_edgeq.export.onnx.graph import OPSET
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.spec.encoding import Encoding

# QuantizeLinear and DequantizeLinear take 4 and 16 bits from this opset on.
WIDE_OPSET = 21
# Container width -> unsigned and signed type.
TYPES = {
    4: (np.dtype(ml_dtypes.uint4), np.dtype(ml_dtypes.int4)),
    8: (np.dtype(np.uint8), np.dtype(np.int8)),
    16: (np.dtype(np.uint16), np.dtype(np.int16)),
}
WEIGHT_WIDTHS = (4, 8, 16)
# No runtime computes on 4-bit activations; they take 8 bits and are clipped.
ACTIVATION_WIDTHS = (8, 16)


@dataclass(frozen=True)
class Storage:
    """The integers a file stores for a grid: their type, and what to add to the grid's own."""

    dtype: np.dtype
    shift: int

    @classmethod
    def of(cls, encoding: Encoding, signed: bool, widths: tuple[int, ...]) -> Storage:
        """Return the narrowest type that holds a grid; a change of sign shifts its integers."""
        bits, has_sign = encoding.spec.bits, bool(encoding.spec.signed)
        width = next(width for width in widths if width >= bits)
        return cls(TYPES[width][signed], (int(has_sign) - int(signed)) * 2 ** (bits - 1))

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest integer of the type."""
        return bounds_of(self.dtype)

    @property
    def opset(self) -> int:
        """The first opset whose quantization operators take the type."""
        return OPSET if self.dtype.itemsize == 1 and self.bounds[1] > 15 else WIDE_OPSET


@dataclass(frozen=True)
class Dialect:
    """How a runtime wants ONNX integers.

    Args:
        signed_activations: store activations signed, at any width.
        signed_weights: the same for weights.
        opset: lowest of the file.
        blocks: operation that reads weights with a scale per block.
    """

    signed_activations: bool
    signed_weights: bool
    opset: int
    blocks: str

    @classmethod
    def of(cls, profile: TargetProfile) -> Dialect:
        """Return the dialect of a profile."""
        signed_activations = profile.onnx_activation == "int8"
        signed_weights = profile.onnx_weight == "int8"
        return cls(signed_activations, signed_weights, profile.onnx_opset, profile.onnx_blocks)

    def activation(self, encoding: Encoding) -> Storage:
        """Return how activations on a grid are stored."""
        return Storage.of(encoding, self.signed_activations, ACTIVATION_WIDTHS)

    def weight(self, encoding: Encoding) -> Storage:
        """Return how weights on a grid are stored."""
        return Storage.of(encoding, self.signed_weights, WEIGHT_WIDTHS)


def bounds_of(dtype: np.dtype) -> tuple[int, int]:
    """Return the smallest and largest integer of a type that files store."""
    limits = ml_dtypes.iinfo(dtype)
    return int(limits.min), int(limits.max)
