"""Windows over images: padding, patches, and how many fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VALID = 1
MOST_PADDING = 1 << 12  # more is a damaged file, and would fill the memory


@dataclass(frozen=True)
class Window:
    """A window that slides along one axis."""

    size: int
    stride: int
    dilation: int = 1

    def along(self, length: int, padding: int) -> tuple[int, int, int]:
        """Return the number of places, and the padding before and after."""
        span = (self.size - 1) * self.dilation + 1
        if padding == VALID:
            return max((length - span) // self.stride + 1, 0), 0, 0
        places = -(-length // self.stride)
        total = max((places - 1) * self.stride + span - length, 0)
        return places, total // 2, total - total // 2


class Slides:
    """The places of a window of two axes over a `[batch, height, width, channels]` array."""

    def __init__(self, x: np.ndarray, rows: Window, columns: Window, padding: int, fill=0):
        self.rows, self.columns = rows, columns
        self.height, top, bottom = rows.along(x.shape[1], padding)
        self.width, left, right = columns.along(x.shape[2], padding)
        if max(top + bottom, left + right) > MOST_PADDING:
            raise ValueError(f"padding of {top + bottom} by {left + right} pixels")
        pads = ((0, 0), (top, bottom), (left, right), (0, 0))
        self.padded = np.pad(x, pads, constant_values=fill) if any(map(any, pads)) else x

    def at(self, row: int, column: int) -> np.ndarray:
        """Return what all windows see at one of their cells."""
        top, left = row * self.rows.dilation, column * self.columns.dilation
        down, right = self.rows.stride, self.columns.stride
        return self.padded[
            :,
            top : top + (self.height - 1) * down + 1 : down,
            left : left + (self.width - 1) * right + 1 : right,
        ]

    def cells(self):
        """Yield each cell of the window with what all windows see there."""
        for row in range(self.rows.size):
            for column in range(self.columns.size):
                yield row, column, self.at(row, column)

    def patches(self) -> np.ndarray:
        """Return `[batch, height, width, rows * columns * channels]`: what each window sees."""
        seen = [cell for _, _, cell in self.cells()]
        return seen[0] if len(seen) == 1 else np.concatenate(seen, axis=-1)
