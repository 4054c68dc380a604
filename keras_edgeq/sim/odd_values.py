"""What data for calibration should not hold: values far beyond all others, or one number alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Sensors and images stay within a factor of ten from sample to sample, raw counts within a hundred.
FAR = 1000.0
LEAST_SAMPLES, LEAST_EQUAL = 4, 8
NAMED = 3


class OddValues:
    """Looks at batches as they pass by.

    Args:
        names: of the model's inputs.
    """

    def __init__(self, names: Sequence[str]):
        self._names = list(names)
        self._largest: list[list[np.ndarray]] = [[] for _ in names]
        self._ends: list[tuple[float, float] | None] = [None] * len(names)

    def see(self, batch: Sequence[np.ndarray]) -> None:
        """Look at a batch, one array `(samples, ...)` per input."""
        for i, part in enumerate(batch):
            if part.dtype.kind != "f" or not part.size:  # ids and flags have no size
                continue
            rows = np.abs(part.reshape(len(part), -1))
            self._largest[i].append(rows.max(axis=1).astype(np.float64))
            ends = (float(part.min()), float(part.max()))
            low, high = self._ends[i] or ends
            self._ends[i] = min(low, ends[0]), max(high, ends[1])

    def messages(self) -> list[str]:
        """Return remarks on all values that were seen."""
        found = []
        for name, parts in zip(self._names, self._largest, strict=True):
            if parts:
                found += _far(name, np.concatenate(parts))
        known = [ends for ends in self._ends if ends is not None]
        count = sum(len(part) for part in next(filter(None, self._largest), []))
        if known and count >= LEAST_EQUAL and all(low == high for low, high in known):
            values = ", ".join(f"{low:g}" for low, _ in known)
            found.append(
                f"All {count} samples are one and the same number ({values}): nothing can be "
                "learned from them. Give data that is like what the model will see."
            )
        return found


def _far(name: str, largest: np.ndarray) -> list[str]:
    """Say which samples hold a value far beyond those of the others."""
    usual = float(np.median(largest))
    if len(largest) < LEAST_SAMPLES or not usual:
        return []
    far = np.flatnonzero(largest > FAR * usual)
    if not far.size:
        return []
    named = ", ".join(f"sample {i} ({largest[i]:.3g})" for i in far[:NAMED])
    more = f" and {far.size - NAMED} more" if far.size > NAMED else ""
    return [
        f"Input {name!r} has values far beyond the others in {named}{more}; half of the samples "
        f"stay below {usual:.3g}. Ranges and corrections that follow them leave nothing of the "
        "rest: take these samples out, or choose a range rule that clips, such as "
        "rules={'activations': 'percentile'}."
    ]
