"""`Encoding`: a calibrated grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_edgeq.spec.quant_spec import QuantSpec


@dataclass(frozen=True, eq=False)
class Encoding:
    """A grid with numbers: `real = scale * (integer - zero_point)`.

    Args:
        spec: the grid asked for, with `signed` settled.
        scale: float32, shape `()` or the tensor's shape with 1 on every axis not in `spec.axes`.
        zero_point: int32 on the grid of the spec, same shape.
    """

    spec: QuantSpec
    scale: np.ndarray
    zero_point: np.ndarray

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest integer of the grid."""
        from keras_edgeq.numerics.affine import integer_bounds

        return integer_bounds(self.spec.bits, bool(self.spec.signed), self.spec.narrow_range)

    @property
    def min(self) -> np.ndarray:
        """Smallest real value on the grid."""
        return self.scale * (self.bounds[0] - self.zero_point).astype(np.float32)

    @property
    def max(self) -> np.ndarray:
        """Largest real value on the grid."""
        return self.scale * (self.bounds[1] - self.zero_point).astype(np.float32)

    def same_grid(self, other: Encoding) -> bool:
        """Tell whether integers of one grid mean the same on the other."""
        return (
            (self.spec.bits, self.spec.signed) == (other.spec.bits, other.spec.signed)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )
