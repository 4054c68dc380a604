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
        scale: float32, shape `()` or the tensor's shape with 1 on every axis not in `spec.axes`;
            where each block owns one, that axis counts the blocks.
        zero_point: int32 on the grid of the spec, same shape.
        multiples: of blocks that share the scale of their channel, float32 whole numbers in the
            shape that scales of blocks have; None for all other grids.

    Half precision has scale 1 and zero point 0.
    """

    spec: QuantSpec
    scale: np.ndarray
    zero_point: np.ndarray
    multiples: np.ndarray | None = None

    def __repr__(self) -> str:
        if self.spec.is_half:
            return brief("Encoding", self.spec.type_name)
        channels = f"{self.scale.size} {'blocks' if self.spec.scales_blocks else 'channels'}"
        channels = channels if self.scale.size > 1 else ""
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
        return self.units * (self.bounds[0] - self.zero_point).astype("float32")

    @property
    def max(self) -> np.ndarray:
        """Largest real value on the grid."""
        return self.units * (self.bounds[1] - self.zero_point).astype("float32")

    @property
    def units(self) -> np.ndarray:
        """What a step is worth: in the shape of the scale, or per block."""
        return self.scale if self.multiples is None else self.scale * self.multiples

    def unit(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return what a step of each element of a tensor is worth, broadcastable to its shape."""
        return self._spread(self.units, shape)

    def multiple(self, shape: tuple[int, ...]) -> np.ndarray | float:
        """Return what multiplies the scale of each element's channel, broadcastable to a shape."""
        return 1.0 if self.multiples is None else self._spread(self.multiples, shape)

    def ends(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return `min` and `max` for the elements of a tensor, broadcastable to its shape."""
        return self._spread(self.min, shape), self._spread(self.max, shape)

    def _spread(self, numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if not self.spec.block_size:
            return numbers
        from keras_edgeq.numerics.blocks import spread

        return spread(numbers, shape, self.spec.axes, self.spec.block_size)

    def same_grid(self, other: Encoding) -> bool:
        """Tell whether integers of one grid mean the same on the other."""
        import numpy as np

        return (
            (self.spec.bits, self.spec.signed, self.spec.dtype)
            == (other.spec.bits, other.spec.signed, other.spec.dtype)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
            and _equal(self.multiples, other.multiples)
        )


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    import numpy as np

    return one is other or (one is not None and other is not None and np.array_equal(one, other))
