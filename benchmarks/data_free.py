"""How close data-free sims come to the float model, beside calibrated ones.

    python benchmarks/data_free.py DATA_FOLDER [MODEL ...]

Logits of models cut before the softmax, W8A8 per channel (`litert_int8`). Top-1 agreement in %,
SQNR in dB, accuracy of the sim. Without data, distributions end after `n` standard deviations; 6
and rule minmax are the defaults of `eq.quantize(model)`. About three minutes on two cores.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from data import CASES, Case, load

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import agreement, sqnr_db, top1
from keras_edgeq.prepare import prepared_form
from keras_edgeq.sim.data_free import data_free_stats
from keras_edgeq.sim.derive import derive

# What the models' inputs are documented to hold; of spectra, the range of the calibration samples.
INPUT_RANGES = {"MobileNetV1-0.75": (-1.0, 1.0), "ResNet-8": (0.0, 255.0)}
VARIANTS = ((3, "minmax"), (4, "minmax"), (5, "minmax"), (6, "minmax"), (8, "minmax"),
            (4, "mse"), (6, "mse"), (6, "percentile"))  # fmt: skip
TEST_SAMPLES = 1000


def row(name: str, case: Case, reference: np.ndarray, sim) -> str:
    """Return one line of the table."""
    ours = sim.predict(case.test, verbose=0)
    ours, reference = (a.reshape(len(a), -1) for a in (ours, reference))
    accuracy = 100.0 * np.mean(top1(ours) == case.labels)
    return (
        f"| {name} | {agreement(reference, ours):.2f} | {sqnr_db(reference, ours):.2f} | "
        f"{accuracy:.2f} |"
    )


def measure(case: Case) -> None:
    """Print the table of one model."""
    low, high = float(case.calibration.min()), float(case.calibration.max())
    given = INPUT_RANGES.get(case.name, (low, high))
    floats = case.model.predict(case.test, verbose=0)
    print(f"\n## {case.name}\n\ninput_range={given}, {len(case.test)} test samples\n")
    print("| sim | agreement, % | SQNR, dB | top-1, % |\n|---|---|---|---|")
    calibrated = eq.quantize(case.model, case.calibration, progress=False)
    count = len(case.calibration)
    print(row(f"calibrated on {count}, mse of the profile", case, floats, calibrated))
    minmax = eq.requantize(calibrated, rules={"activations": "minmax"})
    print(row(f"calibrated on {count}, minmax", case, floats, minmax))
    sim = eq.quantize(case.model, input_range=given)
    print(row("**data-free, the default**", case, floats, sim))
    form = prepared_form(case.model)
    prepared, known = form.model, form.known
    for deviations, rule in VARIANTS:
        stats = data_free_stats(prepared, sim.record.plan, known, given, deviations)
        for quantizer in sim.quantizers().values():
            quantizer.spec = replace(quantizer.spec, rule=rule)
        derive(sim, stats)
        print(row(f"n={deviations}, {rule}", case, floats, sim), flush=True)


def main(folder: str, *names: str) -> None:
    """Measure every model, or those named."""
    for name in names or CASES:
        case = load(Path(folder), name)
        test, labels = case.test[:TEST_SAMPLES], case.labels[:TEST_SAMPLES]
        measure(replace(case, test=test, labels=labels))


if __name__ == "__main__":
    main(*sys.argv[1:])
