"""The costs a Pareto curve can be over, as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


@dataclass(frozen=True)
class Scale:
    """How a cost is shown.

    Args:
        title: of the axis, with the unit.
        factor: from the numbers of a `Point` to those shown.
        unit: behind a number.
    """

    title: str
    factor: float
    unit: str

    def text(self, cost: float) -> str:
        """Return a cost with its unit."""
        return f"{cost * self.factor:.4g}{self.unit}"


def scale_of(cost: str, values: Sequence[float]) -> Scale:
    """Return how a cost of `SearchResult.cost` is shown when these are its values."""
    if cost == "size":
        return Scale("bytes of the weights, % of 8-bit weights", 100.0, " %")
    titles = {
        "bitops": ("bit operations, {}", "bitops"),
        "activation_memory": ("largest memory of activations, {}", "B"),
    }
    title, unit = titles[cost]
    largest = max(values, default=1.0)
    step, prefix = next((s, p) for s, p in STEPS if largest >= s or s == 1.0)
    return Scale(title.format(f"{prefix}{unit}"), 1.0 / step, f" {prefix}{unit}")
