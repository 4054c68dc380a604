"""What AutoQuant takes to lose no more than a point of accuracy, and single techniques beside it.

    python benchmarks/auto_quantize.py DATA_FOLDER [MODEL ...] [--samples N] [--table FILE]

Labelled samples: half is fitted to, a quarter chooses, and a quarter, which no stage sees, is the
column `unseen`. Rows of stages are what `auto_quantize` did, the last with what it kept. Below them
stand single techniques fitted to the same half, judged on the same unseen samples. Seconds and
forward passes of the float model are by the clock. Allow half an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from data import CASES, Case, load
from table import emit, head

import keras_edgeq as eq
from keras_edgeq.autoquant.judge import Judge
from keras_edgeq.autoquant.split import split
from keras_edgeq.streams.store import TensorStore

HEAD = (
    "model", "target", "stage", "accuracy", "SQNR, dB", "bytes", "seconds", "float passes", "",
    "unseen",
)  # fmt: skip
PROFILES = ("litert_int8", "litert_int8_per_tensor", "litert_w4a8")
DROP = 0.01


def singles(case: Case, data, profile: str) -> list[tuple[str, str]]:
    """Return the score of single techniques on the unseen samples."""
    with TensorStore(2**31) as store:
        parts = split(data, case.model, store, "accuracy", 32, None)
        judge = Judge(case.model, parts.test, "accuracy", store)
        fit = parts.fit.batches
        sim = eq.quantize(case.model, fit, profile, progress=False)
        even = eq.equalize(case.model, fit, progress=False)
        made = {
            "calibrate": sim,
            "equalize": eq.quantize(even, fit, profile, progress=False),
            "correct_bias": eq.correct_bias(sim, fit, progress=False),
            "gptq": eq.gptq(sim, fit, progress=False),
        }
        return [("float", str(judge(case.model))), *((k, str(judge(v))) for k, v in made.items())]


def measure(case: Case, samples: int, table: Path | None) -> None:
    """Add the rows of one model."""
    data = (case.test[:samples], case.labels[:samples])
    for profile in PROFILES:
        with tempfile.TemporaryDirectory() as folder:
            found = eq.auto_quantize(
                case.model,
                data,
                profile,
                score="accuracy",
                max_drop=DROP,
                folder=folder,
                strict=False,
                progress=False,
            )
        end = f"{found.score:.4f} ± {found.error:.2g}"
        for one in found.history:
            last = end if one.met or one is found.history[-1] else ""
            emit(table, f"| {case.name} | {profile} | {' | '.join(one.cells())} | {last} |")
        for name, score in singles(case, data, profile):
            empty = " | ".join([""] * 6)
            emit(table, f"| {case.name} | {profile} | {name} alone | {empty} | {score} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore", eq.QuantizationWarning)
    print(f"load {os.getloadavg()[0]:.1f} at the start", flush=True)
    emit(args.table, head(HEAD))
    for name in args.models or CASES:
        measure(load(args.data, name), args.samples, args.table)


if __name__ == "__main__":
    main()
