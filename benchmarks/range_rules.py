"""What each range rule makes of one calibration, by agreement and SQNR of the sim against float.

    python benchmarks/range_rules.py DATA_FOLDER [MODEL ...]

Logits of models cut before the softmax, profile litert_int8. Each model is calibrated once; every
row derives its grids from the same statistics. First rules of activations at W8A8 with minmax
weights, then rules of weights at W4A8, per channel, with the activation rule of the profile. About
ten minutes on two cores.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from data import CASES, Case, load

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import agreement, sqnr_db, top1

ACTIVATION_RULES = ("minmax", "moving_average", "percentile", "mse", "octav", "sqnr", "entropy")
WEIGHT_RULES = ("minmax", "percentile", "mse", "octav", "sqnr", "entropy")
W4 = {"*": "W4A8"}


def row(case: Case, floats: np.ndarray, sim, rule: str) -> str:
    """Return one table line for a sim."""
    made = sim.predict(case.test, verbose=0).reshape(len(case.test), -1)
    accuracy = 100.0 * np.mean(top1(made) == case.labels)
    return (
        f"| {rule} | {accuracy:.2f} | {agreement(floats, made):.2f} | {sqnr_db(floats, made):.2f} |"
    )


def table(case: Case, floats: np.ndarray, sim, title: str, variants: dict[str, dict]) -> None:
    """Derive and measure each variant, `{rule: options of requantize}`."""
    print(f"\n{title}\n")
    print("| rule | top-1 % | agreement % | SQNR dB |")
    print("|---|---|---|---|")
    for rule, options in variants.items():
        print(row(case, floats, eq.requantize(sim, **options), rule), flush=True)


def measure(case: Case) -> None:
    """Print the tables of one model."""
    floats = case.model.predict(case.test, verbose=0).reshape(len(case.test), -1)
    accuracy = 100.0 * np.mean(top1(floats) == case.labels)
    print(f"\n## {case.name}\n")
    print(
        f"{len(case.calibration)} calibration and {len(case.test)} test samples; "
        f"float top-1 {accuracy:.2f} %."
    )
    sim = eq.quantize(case.model, case.calibration, "litert_int8", progress=False)
    activations = {
        rule: {"rules": {"activations": rule, "weights": "minmax"}} for rule in ACTIVATION_RULES
    }
    table(case, floats, sim, "Activations, W8A8:", activations)
    weights = {rule: {"rules": {"weights": rule}, "precision": W4} for rule in WEIGHT_RULES}
    table(case, floats, sim, "Weights, W4A8 per channel:", weights)


def main(folder: str, *names: str) -> None:
    """Measure every model, or those named."""
    print("# Range rules")
    for name in names or CASES:
        measure(load(Path(folder), name))


if __name__ == "__main__":
    main(*sys.argv[1:])
