"""How long large models take from float to files, beside another checkout of the package.

    python benchmarks/export_time.py [--against CHECKOUT] [--only NAME ...] [--rounds 1]

`quantize` on 32 random images, then TFLite and ONNX files, not run. Random weights, 64x64 images.
Each measurement is a process of its own; with `--against` both checkouts take turns, and the ratio
is that of their least times. About four minutes a round and checkout on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from keras_edgeq.table import aligned

HERE = Path(__file__).resolve().parent.parent
MODELS = ("EfficientNetB0", "NASNetMobile")
STEPS = ("quantize", "tflite", "onnx")
CHILD = """
import json, sys, tempfile, time, warnings
warnings.simplefilter("ignore")
import numpy as np, tf_keras
import keras_edgeq as eq
tf_keras.utils.set_random_seed(0)
model = getattr(tf_keras.applications, sys.argv[1])(weights=None, input_shape=(64, 64, 3))
images = 255.0 * np.random.default_rng(0).uniform(size=(32, 64, 64, 3)).astype("float32")
times, marks = {}, [time.perf_counter()]
sim = eq.quantize(model, images, progress=False)
marks.append(time.perf_counter())
for kind in ("tflite", "onnx"):
    eq.export(sim, tempfile.mkdtemp(), [kind], verify=False, progress=False)
    marks.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(marks, marks[1:])]))
"""


def measure(checkout: Path, name: str) -> list[float]:
    """Return the seconds of each step, in a process that imports that checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run(
        [sys.executable, "-c", CHILD, name],
        env=environment, cwd=checkout, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    """Print a row per model and checkout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    checkouts = {"here": HERE, **({"against": args.against.resolve()} if args.against else {})}
    rows = [("model", "checkout", *STEPS, "all, s", "ratio")]
    for name in args.only:
        found = defaultdict(list)
        for _ in range(args.rounds):
            for which, checkout in checkouts.items():
                found[which].append(measure(checkout, name))
        least = {which: min(times, key=sum) for which, times in found.items()}
        for which, times in least.items():
            ratio = f"{sum(times) / sum(least['against']):.2f}" if len(least) > 1 else ""
            cells = (f"{seconds:.1f}" for seconds in (*times, sum(times)))
            rows.append((name, which, *cells, ratio))
            print(*rows[-1], file=sys.stderr, flush=True)
    print(aligned(rows))


if __name__ == "__main__":
    main()
