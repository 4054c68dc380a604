"""What the numbers of a sensitivity measure are called, and how people read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Measure:
    """Describes how a measure is shown.

    Args:
        added: title of what one change adds.
        total: title of what a whole model loses.
        unit: behind a number of `total`.
        in_db: the loss is noise power over signal power, shown as SQNR in dB.
        log: additions span decades.
    """

    added: str
    total: str
    unit: str
    in_db: bool
    log: bool

    def shown(self, losses: ArrayLike) -> NDArray[np.float64]:
        """Return losses of whole models as they are shown; NaN where there is no noise at all."""
        values = np.asarray(losses, np.float64)
        if not self.in_db:
            return values
        return -10.0 * np.log10(np.where(values > 0, values, np.nan))

    def number(self, loss: float | None) -> str:
        """Return the loss of a whole model as it is shown, "-" where it is not known."""
        value = np.nan if loss is None else float(self.shown(loss))
        if value != value:
            return "-"
        return f"{value:.1f}" if self.in_db else f"{value:.4g}"

    def text(self, loss: float | None) -> str:
        """Return the same with its unit."""
        number = self.number(loss)
        return number if number == "-" else number + self.unit


NOISE = Measure("added noise power ÷ signal power", "SQNR", " dB", in_db=True, log=True)
MEASURES = {
    "sqnr": NOISE,
    "gradient": NOISE,
    "kl": Measure("added KL divergence, nats", "KL divergence", " nats", in_db=False, log=True),
    "score": Measure("points of the score lost", "score lost", " points", in_db=False, log=False),
}
