"""`Limits`: what a chosen model may cost, as rows of the solvers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_edgeq.errors import SearchError
from keras_edgeq.mixed_precision.cost import CostModel
from keras_edgeq.mixed_precision.solve import Row, solve_ilp

# Name of the cost, and whether the limit is a share of it at 8 bits.
COSTS = {
    "size": ("size", False),
    "size_bytes": ("weight_bytes", False),
    "bitops": ("bitops", True),
    "activation_memory": ("activation_memory", False),
}


@dataclass(frozen=True)
class Limits:
    """Most that the model of a choice may cost; None means no limit.

    Args:
        size: bytes of all weights as the artifact stores them, as a share of one byte per weight.
        size_bytes: the same in bytes.
        bitops: multiply-accumulates times bits of weights times bits of activations, as a share of
            those at 8 bits throughout.
        activation_memory: largest sum of bytes of activations that live at one time, of one
            sample.
    """

    size: float | None = None
    size_bytes: float | None = None
    bitops: float | None = None
    activation_memory: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """The limits that there are, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def rows(self, costs: CostModel) -> list[Row]:
        """Return the limits as rows of the solvers.

        Raises:
            SearchError: no choice keeps one of them, or all at the same time; what is possible is
                said. Or scipy is missing.
        """
        rows: list[Row] = []
        for name, limit in self.given.items():
            cost, scale = COSTS[name]
            unit = costs.eight_bit_bitops if scale else 1.0
            least, most = costs.least(cost) / unit, costs.most(cost) / unit
            if not least <= limit:
                raise SearchError(
                    f"{name}={limit:g} is impossible with candidates {list(costs.candidates)}: "
                    f"this model takes {least:.6g} to {most:.6g}."
                )
            rows += costs.rows(cost, limit * unit)
        if solve_ilp(np.where(costs.allowed, 0.0, np.nan), rows) is None:
            raise SearchError(
                f"Each limit can be kept, but not all of {self.given} at the same time; raise one."
            )
        return rows

    @property
    def cost(self) -> str:
        """What the Pareto curve is over."""
        others = [name for name in ("bitops", "activation_memory") if name in self.given]
        is_size = self.size is not None or self.size_bytes is not None
        return "size" if is_size or not others else others[0]
