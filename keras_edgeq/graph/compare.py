"""Random inputs, and how far two arrays are apart: for checks that two forms compute the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

SAMPLES, OPEN_SIZE = 2, 32
HALF_TYPES = ("float16", "bfloat16")


class Gap(NamedTuple):
    """Where two arrays of one shape differ most; the distance is relative to the largest number."""

    distance: float
    wanted: float
    got: float


def sizes_of(shape: Sequence[int | None], samples: int = SAMPLES) -> tuple[int, ...]:
    """Return the shape of random numbers for a symbolic tensor, whose batch comes first."""
    batch, *sizes = shape or (1,)
    return (batch or samples, *(OPEN_SIZE if size is None else size for size in sizes))


def random_arrays(
    specs: Iterable[tuple[Any, str]], samples: int = SAMPLES
) -> list[np.ndarray] | None:
    """Return random arrays of shapes (the batch first) and types; None where one is of text.

    Real numbers lie between -1 and 1, whole ones are 0 and 1.
    """
    rng, made = np.random.default_rng(0), []
    for sizes, dtype in specs:
        shape = sizes_of(sizes, samples)
        if dtype == "string":
            return None
        whole = dtype.startswith(("int", "uint", "bool"))
        values = rng.integers(0, 2, shape) if whole else rng.uniform(-1.0, 1.0, shape)
        made.append(values.astype(dtype))
    return made


def is_half(layer: Any) -> bool:
    """Tell whether a layer computes in half precision, whose noise is that of three digits."""
    return getattr(layer, "compute_dtype", "float32") in HALF_TYPES


def largest_gap(wanted: Any, got: Any) -> Gap:
    """Return where two arrays differ most; NaN equals NaN, and other shapes are infinitely far."""
    wanted, got = np.asarray(wanted), np.asarray(got)
    if wanted.shape != got.shape:
        return Gap(float("inf"), float("nan"), float("nan"))
    if wanted.dtype.kind not in "fiubV" or not wanted.size:  # V: bfloat16
        return Gap(0.0, 0.0, 0.0)
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        distance = np.where(np.isnan(wanted) & np.isnan(got), 0.0, np.abs(wanted - got))
    distance = np.where(wanted == got, 0.0, np.nan_to_num(distance, nan=np.inf))  # inf equals inf
    largest = max(float(np.max(np.abs(np.nan_to_num(wanted, posinf=0.0, neginf=0.0)))), 1e-3)
    at = np.unravel_index(int(np.argmax(distance)), distance.shape)
    return Gap(float(distance[at]) / largest, float(wanted[at]), float(got[at]))
