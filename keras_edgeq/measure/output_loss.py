"""`OutputLoss`: how far outputs are from the float model's, summed over batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Columns of the sums: per output of a model.
SIGNAL, NOISE, DIVERGENCE, AGREES, COUNT = range(5)
LEAST_PROBABILITY = 1e-12
# Half a step of a softmax of 8 bits: what it calls zero lies below.
MOST_ZERO = 1 / 512


@dataclass(frozen=True, eq=False)
class OutputLoss:
    """Sums over samples, `[outputs, 5]`, from which each measure follows.

    Args:
        sums: power of the float outputs, power of the difference, KL divergence in nats, positions
            with the same top-1, positions; in float64.
    """

    sums: NDArray[np.float64]

    @classmethod
    def of(cls, exact: Sequence[NDArray], rounded: Sequence[NDArray]) -> OutputLoss:
        """Compare the outputs of one batch with those of the float model."""
        return cls(np.stack([_compare(e, r) for e, r in zip(exact, rounded, strict=True)]))

    @classmethod
    def total(cls, parts: Iterable[OutputLoss]) -> OutputLoss:
        """Add what was seen on several batches."""
        return cls(np.sum([part.sums for part in parts], axis=0))

    @property
    def sqnr(self) -> float:
        """Noise power over signal power, the mean over the outputs."""
        signal, noise = self.sums[:, SIGNAL], self.sums[:, NOISE]
        return float(np.mean(noise / np.maximum(signal, np.finfo(np.float64).tiny)))

    @property
    def kl(self) -> float:
        """KL divergence of the float model's classes from these, in nats, the mean per sample."""
        return float(np.mean(self.sums[:, DIVERGENCE] / self.sums[:, COUNT]))

    @property
    def agreement(self) -> float:
        """How often both have the same top-1, in percent, the mean over the outputs."""
        return 100.0 * float(np.mean(self.sums[:, AGREES] / self.sums[:, COUNT]))

    @property
    def sqnr_db(self) -> float:
        """The same as `sqnr` in decibels."""
        return float(-10.0 * np.log10(max(self.sqnr, np.finfo(np.float64).tiny)))


def _compare(exact: NDArray, rounded: NDArray) -> NDArray:
    e, r = np.asarray(exact, np.float64), np.asarray(rounded, np.float64)
    if e.ndim < 2:
        e, r = e.reshape(-1, 1), r.reshape(-1, 1)
    logs_e, logs_r = _log_probabilities(e, r)
    divergence = np.sum(np.exp(logs_e) * (logs_e - logs_r))
    agrees = np.sum(np.argmax(e, -1) == np.argmax(r, -1))
    count = e.size // e.shape[-1]
    return np.array([np.sum(e * e), np.sum((e - r) ** 2), divergence, agrees, count])


def _log_probabilities(exact: NDArray, rounded: NDArray) -> tuple[NDArray, NDArray]:
    """Return log probabilities of two outputs, which are logits or probabilities themselves."""
    ones = np.allclose(exact.sum(-1), 1.0, atol=1e-3) and exact.min(initial=0.0) >= 0.0
    if ones and exact.shape[-1] > 1:
        zero = _zero(rounded)
        floors = (np.maximum(values, zero) for values in (exact, rounded))
        one, other = (np.log(f / f.sum(-1, keepdims=True)) for f in floors)
        return one, other
    return _log_softmax(exact), _log_softmax(rounded)


def _zero(probabilities: NDArray) -> NDArray:
    """Return what a zero stands for in each row: half the least probability, which is its step.

    Else the many classes that a grid cannot tell from zero would outweigh those it can.
    """
    found = probabilities > 0.0
    least = np.min(probabilities, -1, keepdims=True, where=found, initial=2 * MOST_ZERO)
    return np.maximum(least / 2, LEAST_PROBABILITY)


def _log_softmax(logits: NDArray) -> NDArray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
