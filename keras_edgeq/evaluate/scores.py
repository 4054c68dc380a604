"""What predictions of one candidate of a comparison sum up to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_edgeq.evaluate.metrics import Metric, as_array
from keras_edgeq.evaluate.validate import non_finite
from keras_edgeq.numerics.metrics import ratio_db, top1
from keras_edgeq.sim.data import Labelled


@dataclass
class Score:
    """What is summed over batches for one candidate.

    Args:
        output: whose predictions are measured; `""` for none.
        given: the user's metric; None without.
        most_bytes: that predictions may take which are kept for it.
    """

    output: str
    given: Any
    most_bytes: int
    samples: int = 0
    signal: Any = 0.0
    noise: Any = 0.0
    agrees: int | None = 0
    broken: int = 0
    metric: Metric = field(init=False)

    def __post_init__(self):
        if self.given is not None:
            self.metric = Metric(self.given, self.most_bytes)

    @property
    def is_split(self) -> bool:
        """Whether each candidate can fill a metric of its own."""
        return self.given is None or self.metric.is_split

    @property
    def metric_name(self) -> str:
        """Of the user's metric, `""` without."""
        return "" if self.given is None else self.metric.name

    def add(
        self, names: list[str], exact: list[np.ndarray], made: list[np.ndarray], batch: Labelled
    ) -> None:
        """Add a batch: the float model's outputs and the candidate's, named as the model's."""
        pairs = zip(exact, made, strict=True)
        wide = [(np.asarray(e, np.float64), np.asarray(m, np.float64)) for e, m in pairs]
        self.signal += np.array([np.sum(e * e) for e, _ in wide])
        self.noise += np.array([np.sum((m - e) ** 2) for e, m in wide])
        self.samples += len(made[0])
        self.broken += max(non_finite(m) for m in made)
        at = names.index(self.output) if self.output else -1
        if at < 0 or exact[at].ndim != 2 or exact[at].shape[1] < 2:
            self.agrees = None
        elif self.agrees is not None:
            self.agrees += int(np.sum(top1(exact[at]) == top1(made[at])))
        if self.given is not None:
            labels = as_array(batch.labels, self.output, self.metric.name)
            self.metric.add(labels, made[at], batch.weights)

    def values(self) -> dict[str, Any]:
        """Return the fields of a `Candidate` that are about its predictions."""
        ratios = [
            ratio_db(float(s), float(n)) if math.isfinite(n) else math.nan
            for s, n in zip(self.signal, self.noise, strict=True)
        ]
        return {
            "metric": None if self.given is None else self.metric.result(),
            "agreement": None if self.agrees is None else 100.0 * self.agrees / self.samples,
            "sqnr_db": float(np.mean(ratios)),
            "non_finite": self.broken,
        }
