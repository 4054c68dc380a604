"""What a diagnosis costs, in forward passes of the float model, and what it finds first.

    python benchmarks/diagnose.py DATA_FOLDER [MODEL ...] [--remedies N] [--table FILE]

The data are the calibration samples. A float pass is `predict` of the float model over all of them,
the mean of one before and one after the diagnosis; the first call, which traces, is left out.
`time` is the diagnosis without remedies over a float pass, `work` the forward passes that it
counts, by products and elements written. Allow ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from data import CASES, load
from table import emit, head

import keras_edgeq as eq

HEAD = (
    "model", "profile", "samples", "sim, dB", "time", "work", "remedies, s", "first finding",
    "best remedy", "gain, dB",
)  # fmt: skip
PROFILES = ("litert_int8", "litert_int8_per_tensor")


def seconds(work) -> float:
    """Return how long a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def row(name: str, profile: str, folder: Path, remedies: int) -> tuple:
    """Diagnose one model on one target."""
    case = load(folder, name)
    x = case.calibration
    sim = eq.quantize(case.model, x, profile, progress=False)

    def predict() -> None:
        case.model.predict(x, batch_size=32, verbose=0)

    predict()
    before = seconds(predict)
    found = eq.diagnose(sim, x, remedies=remedies, progress=False)
    float_pass = (before + seconds(predict)) / 2
    first = found.findings[0] if found.findings else None
    best = None if first is None else first.best
    return (
        name, profile, len(x), f"{found.sqnr_db:.1f}", f"{found.seconds / float_pass:.0f}",
        f"{found.passes:.1f}", f"{found.remedy_seconds:.0f}",
        "-" if first is None else f"{first.tensor or first.layer}: {first.cause}",
        "-" if best is None else best.remedy, "-" if best is None else f"{best.gain_db:+.1f}",
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--remedies", type=int, default=1)
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore", eq.QuantizationWarning)
    print(f"load {os.getloadavg()[0]:.1f} at the start", flush=True)
    emit(args.table, head(HEAD))
    for name in args.models or CASES:
        for profile in PROFILES:
            cells = map(str, row(name, profile, args.data, args.remedies))
            emit(args.table, "| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
