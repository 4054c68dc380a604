"""What mixed precision reaches on the real models at a given size, and what the search costs.

    python benchmarks/mixed_precision.py DATA_FOLDER [MODELS] [ROUNDINGS] [GRIDS]

MODELS: names of `data.CASES` with commas, or `all`. ROUNDINGS: `nearest,gptq`. GRIDS: `stored`
(4 and 8 bits, as kernels store them, at 75, 62.5, 55 and 50 % of the 8-bit weight bytes) and
`packed` (2, 4 and 8 bits, counted in packed bits, at 75 and 50 %). Activations have 8 bits.

A line per search: top-1 lost with its paired standard error, agreement and SQNR with the float
model on the test images, the loss on the search data beside that of an integer program alone, of
AIMET's greedy search and of uniform bits at that size (dB, more is better), forward passes over
the data and as a share of groups times candidates, and wall time over that of a float pass; later
sizes find in a folder what the first one measured. The search and the calibration see the
calibration images only.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from data import CASES, Case, load

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import agreement, sqnr_db
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim import QuantSim

IMAGES, BATCH = 256, 16
SIZES = {"stored": (0.75, 0.625, 0.55, 0.51), "packed": (0.75, 0.5)}
CANDIDATES = {"stored": ["W4A8", "W8A8"], "packed": ["W2A8", "W4A8", "W8A8"]}


def target() -> TargetProfile:
    """Return the LiteRT profile with kernels of 2-bit weights, which LiteRT does not have."""
    known = eq.load_profile("litert_int8").to_json()
    four = known["precisions"]["W4A8"]
    two = {**four, "weight": {**four["weight"], "bits": 2}}
    known["precisions"] = {**known["precisions"], "W2A8": two}
    return TargetProfile.from_json({**known, "name": "litert_with_2_bits"})


def one_model(case: Case, roundings: list[str], grids: list[str]) -> None:
    """Search one model at every size."""
    images = case.calibration[:IMAGES]
    floats = case.model.predict(case.test, verbose=0)
    case.model.predict(images, batch_size=BATCH, verbose=0)
    start = time.perf_counter()
    case.model.predict(images, batch_size=BATCH, verbose=0)
    float_pass = time.perf_counter() - start
    right = np.argmax(floats, -1) == case.labels
    sim = eq.quantize(case.model, images, target(), progress=False)
    print(f"{case.name}: float {100 * right.mean():.2f} %, a pass {float_pass:.1f} s", flush=True)
    for rounding in roundings:
        for grid in grids:
            # What one size measured, the next does not measure again: only the first is timed.
            with tempfile.TemporaryDirectory() as folder:
                for size in SIZES[grid]:
                    one_search(case, sim, rounding, grid, size, folder, floats, float_pass)


def one_search(
    case: Case,
    sim: QuantSim,
    rounding: str,
    grid: str,
    size: float,
    folder: str,
    floats: np.ndarray,
    float_pass: float,
) -> None:
    """Search and print a line."""
    result = eq.search_mixed_precision(
        sim,
        case.calibration[:IMAGES],
        CANDIDATES[grid],
        size=size,
        rounding=rounding,
        packed=grid == "packed",
        batch_size=BATCH,
        resume=folder,
        progress=False,
    )
    logits = result.model.predict(case.test, verbose=0)
    was, now = (np.argmax(values, -1) == case.labels for values in (floats, logits))
    lost = 100.0 * (was.astype(float) - now.astype(float))
    error = lost.std() / np.sqrt(len(lost))
    others = {name: p.loss for name, p in result.compared.items() if p.loss is not None}
    compared = ", ".join(f"{name} {decibels(loss)}" for name, loss in others.items())
    most = sum(len(group.candidates) for group in result.sensitivity.groups)
    print(
        f"{case.name} {rounding} {grid} {size:.3f}: size {result.best.size:.3f}, lost "
        f"{lost.mean():.2f} ± {error:.2f}, agreement {agreement(floats, logits):.2f} %, "
        f"{sqnr_db(floats, logits):.2f} dB; search data {decibels(result.best.best_known)} "
        f"({compared}); {result.passes:.1f} passes, {result.passes / most:.2f} of groups times "
        f"candidates; {result.seconds / float_pass:.0f} float passes of time",
        flush=True,
    )


def decibels(loss: float) -> str:
    """Return a noise power over signal power as people read it."""
    return f"{-10.0 * np.log10(loss):.1f} dB"


def main(
    folder: str, models: str = "all", roundings: str = "nearest,gptq", grids: str = "stored,packed"
) -> None:
    """Search every model."""
    for name in CASES if models == "all" else models.split(","):
        one_model(load(Path(folder), name), roundings.split(","), grids.split(","))


if __name__ == "__main__":
    main(*sys.argv[1:])
