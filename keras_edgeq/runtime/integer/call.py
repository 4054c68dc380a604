"""What a kernel of the executor is given: one operation with its values, grids and options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError

FUSED = {0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}


@dataclass(frozen=True, eq=False)
class Grid:
    """A tensor of the file without its values.

    Args:
        name: its name in the file.
        dtype: of its values; int4 is held in int8.
        scale: float32, one or one per channel; None if it has no grid.
        zero_point: one for all channels.
        axis: of the channels.
        shape: as the file has it; -1 where the size is free.
        bits: of its integers.
        const: whether the file holds its values.
    """

    name: str
    dtype: np.dtype
    scale: np.ndarray | None
    zero_point: int
    axis: int
    shape: tuple[int, ...]
    bits: int
    const: bool

    @property
    def step(self) -> np.float32:
        """The scale of a tensor with only one."""
        if self.scale is None or len(self.scale) != 1:
            raise EdgeqError(
                f"Tensor {self.name!r} needs one scale and has "
                f"{0 if self.scale is None else len(self.scale)}; the file is not an integer model."
            )
        return self.scale[0]

    @property
    def is_integer(self) -> bool:
        """Whether its integers stand for real numbers."""
        return self.scale is not None and self.dtype.kind in "iu"

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and largest integer of its type."""
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)

    def store(self, integers: np.ndarray, low: int | None = None, high: int | None = None):
        """Return integers cut to the type's range, or to a tighter one, in that type."""
        least, most = self.limits
        least, most = least if low is None else low, most if high is None else high
        return np.clip(integers, least, most).astype(self.dtype)

    def fused(self, activation: int, xnnpack: bool = False) -> tuple[int, int]:
        """Return the range that a fused activation leaves of the grid."""
        if activation not in FUSED:
            raise EdgeqError(f"Tensor {self.name!r} has fused activation {activation}: unknown.")
        least, most = self.limits
        low, high = FUSED[activation]
        if low is not None:
            least = max(least, self.integer(low, xnnpack))
        if high is not None:
            most = min(most, self.integer(high, xnnpack))
        return least, most

    def integer(self, real: float, xnnpack: bool = False) -> int:
        """Return a real number's integer, in float32: half away from zero, XNNPACK half to even."""
        steps = np.float32(real) / self.step
        rounded = np.rint(steps) if xnnpack else np.sign(steps) * np.floor(np.abs(steps) + 0.5)
        return int(rounded) + self.zero_point


@dataclass(frozen=True, eq=False)
class Call:
    """One operation about to run.

    Args:
        name: in TFLite's schema.
        values: of its inputs; None for an optional one that is absent.
        inputs: their grids.
        outputs: the grids of its results.
        options: the schema's options object, None if the file has none.
        xnnpack: compute as XNNPACK does, where XNNPACK has the operation.
        threads: of the runtime that is computed as; one kernel's rounding depends on it.
        exact: round what is multiplied once, where kernels round twice or have few bits.
    """

    name: str
    values: list[Any]
    inputs: list[Any]
    outputs: list[Grid]
    options: Any
    xnnpack: bool
    threads: int
    exact: bool = False

    @property
    def out(self) -> Grid:
        """The grid of the only result."""
        return self.outputs[0]

    def zeroed(self, index: int) -> np.ndarray:
        """Return an input as 64-bit integers less its zero point."""
        return self.values[index].astype(np.int64) - self.inputs[index].zero_point

    def option(self, name: str, default: Any = 0) -> Any:
        """Return an option, or its default where the file leaves all options out."""
        return getattr(self.options, name, default)

    def fused(self) -> tuple[int, int]:
        """Return the range that the fused activation leaves of the output's grid."""
        return self.out.fused(self.option("fusedActivationFunction"), self.xnnpack)

    def unlike(self, reason: str) -> EdgeqError:
        """Return the error for a form of the operation that the executor does not know."""
        return EdgeqError(
            f"The integer executor does not know {self.name} ({self.out.name!r}) {reason}; "
            "run the file on LiteRT instead."
        )
