"""What the identity check finds and costs: models of `tf_keras.applications`, and a folder's own.

    python benchmarks/identity.py [DATA_FOLDER] [--only NAME ...]

The largest difference between float model and sim without rounding, relative to the largest number
of its tensor; seconds of the check, of one float pass over 8 samples, of tracing the sim once, and
of `quantize` as a whole. `share` is the check's time in one such pass and trace together: the check
runs op by op, so that it costs no trace. Inputs are random and, but for the folder's, weights too.
About fifteen minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.prepare import prepare
from keras_edgeq.profiles import load_profile
from keras_edgeq.sim.beside import Floats
from keras_edgeq.sim.identity import check_identity
from keras_edgeq.sim.insert import insert
from keras_edgeq.sim.quant_sim import SimRecord
from keras_edgeq.sim.resolve import resolve
from keras_edgeq.table import aligned

APPLICATIONS = {
    "MobileNet": 96, "MobileNetV2": 96, "MobileNetV3Small": 96, "EfficientNetB0": 64,
    "EfficientNetV2B0": 64, "ResNet50": 64, "ResNet50V2": 64, "DenseNet121": 64, "VGG16": 64,
    "Xception": 96, "InceptionV3": 96, "NASNetMobile": 64, "RegNetX002": 64, "ConvNeXtTiny": 64,
}  # fmt: skip
SAMPLES, PASS, CHECKED = 32, 8, 4


def row(name: str, model: tf_keras.Model, scale: float) -> tuple[str, ...]:
    """Check one model and return its row."""
    shape = (SAMPLES, *model.input_shape[1:])
    data = scale * np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    float_pass = tf.function(lambda x: model(x, training=False))
    float_pass(data[:PASS])
    start = time.perf_counter()
    float_pass(data[:PASS])
    seconds = time.perf_counter() - start
    prepared, profile = prepare(model), load_profile("litert_int8")
    sim = insert(
        prepared, SimRecord(profile, resolve(prepared, profile), tuple(model.output_names))
    )
    start = time.perf_counter()
    gap = check_identity(Floats(prepared, [data[:CHECKED]]), sim, model)
    check = time.perf_counter() - start
    start = time.perf_counter()
    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    tf.function(lambda x: sim(x, training=False)).get_concrete_function(spec)
    trace = time.perf_counter() - start
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eq.quantize(model, data, progress=False)
    whole = time.perf_counter() - start
    return (name, f"{gap:.1e}", f"{check:.2f}", f"{seconds:.3f}", f"{trace:.2f}",
            f"{check / (seconds + trace):.2f}", f"{whole:.1f}")  # fmt: skip


def main() -> None:
    """Print a row per model, as each is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    rows = [("model", "difference", "check, s", "pass, s", "trace, s", "share", "quantize, s")]
    for path in sorted(args.folder.glob("*.h5")) if args.folder else ():
        if not args.only or path.stem in args.only:
            model = tf_keras.models.load_model(path, compile=False)
            rows.append(row(path.stem, model, 2.0))
            print(*rows[-1], file=sys.stderr, flush=True)
    for name, size in APPLICATIONS.items():
        if not args.only or name in args.only:
            tf_keras.utils.set_random_seed(0)
            build = getattr(tf_keras.applications, name)
            rows.append(row(name, build(weights=None, input_shape=(size, size, 3)), 255.0))
            print(*rows[-1], file=sys.stderr, flush=True)
    print(aligned(rows))


if __name__ == "__main__":
    main()
