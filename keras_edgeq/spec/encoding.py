"""`Encoding`: a calibrated grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_edgeq.spec.quant_spec import QuantSpec
from keras_edgeq.table import brief, span

if TYPE_CHECKING:
    import numpy as np

HALF_MAX = 65504


@dataclass(frozen=True, eq=False)
class Encoding:
    """A grid with numbers: `real = scale * (integer - zero_point)`.

    Args:
        spec: the grid asked for, with `signed` settled.
        scale: float32, shape `()` or the tensor's shape with 1 on every axis not in `spec.axes`.
        zero_point: int32 on the grid of the spec, same shape.

    Half precision has scale 1 and zero point 0.
    """

    spec: QuantSpec
    scale: np.ndarray
    zero_point: np.ndarray

    def __repr__(self) -> str:
        if self.spec.is_half:
            return brief("Encoding", self.spec.type_name)
        channels = f"{self.scale.size} channels" if self.scale.size > 1 else ""
        scale = f"scale {span(self.scale.min(), self.scale.max())}"
        zero_point = f"zero point {span(self.zero_point.min(), self.zero_point.max())}"
        return brief("Encoding", self.spec.type_name, channels, scale, zero_point)

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest integer of the grid; the largest half-precision numbers."""
        if self.spec.is_half:
            return -HALF_MAX, HALF_MAX
        from keras_edgeq.numerics.affine import integer_bounds

        return integer_bounds(self.spec.bits, bool(self.spec.signed), self.spec.narrow_range)

    @property
    def min(self) -> np.ndarray:
        """Smallest real value on the grid."""
        return self.scale * (self.bounds[0] - self.zero_point).astype("float32")

    @property
    def max(self) -> np.ndarray:
        """Largest real value on the grid."""
        return self.scale * (self.bounds[1] - self.zero_point).astype("float32")

    def same_grid(self, other: Encoding) -> bool:
        """Tell whether integers of one grid mean the same on the other."""
        import numpy as np

        return (
            (self.spec.bits, self.spec.signed, self.spec.dtype)
            == (other.spec.bits, other.spec.signed, other.spec.dtype)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )
