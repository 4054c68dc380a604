"""How near the `tf_keras` form of each family of `keras.applications` is, and how long it takes.

    python benchmarks/keras3.py [--only NAME ...]

Random weights drawn like trained ones, 96x96 images. `layer` is the largest difference of a layer
on its own input, `outputs` that of the model, both relative to the largest number. Two minutes on
two cores.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from keras_edgeq.errors import EdgeqError
from keras_edgeq.keras3.check import check_conversion
from keras_edgeq.keras3.convert import Conversion
from keras_edgeq.table import aligned

FAMILIES = (
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0"),
    *("ResNet50", "ResNet50V2", "DenseNet121", "InceptionV3", "Xception", "VGG16"),
    *("NASNetMobile", "InceptionResNetV2", "ConvNeXtTiny"),
)


def like_trained(model: keras.Model) -> None:
    """Give a model weights whose activations neither vanish nor grow."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        shape, end = tuple(weight.shape), weight.path.rpartition("/")[2]
        if end in ("gamma", "moving_variance", "variance"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            value = rng.normal(0.0, 0.2, shape)
        else:
            inputs = np.prod(shape[:-2] if "depthwise" in end else shape[:-1])
            value = rng.normal(0.0, np.sqrt(2.0 / max(inputs, 1)), shape)
        weight.assign(value.astype(weight.dtype))


def measure(name: str) -> tuple[str, ...]:
    """Return a row about a family."""
    model = getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3))
    like_trained(model)
    begin = time.perf_counter()
    try:
        conversion = Conversion(model)
        gaps = check_conversion(conversion, model)
    except EdgeqError as error:
        return name, "-", "-", f"{time.perf_counter() - begin:.1f}", str(error)[:100]
    seconds = time.perf_counter() - begin
    x = np.random.default_rng(1).uniform(-1.0, 1.0, (2, 96, 96, 3)).astype(np.float32)
    theirs = np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))
    ours = np.asarray(conversion.result(x, training=False))
    outputs = np.abs(theirs - ours).max() / np.abs(theirs).max()
    return name, f"{max(gaps.values()):.1e}", f"{outputs:.1e}", f"{seconds:.1f}", ""


def main() -> None:
    """Print a row per family."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=FAMILIES)
    rows = []
    for name in parser.parse_args().only:
        rows.append(measure(name))
        print(*rows[-1], flush=True)
        keras.backend.clear_session()
        gc.collect()
    print()
    print(aligned([("family", "layer", "outputs", "seconds", "error"), *rows]))


if __name__ == "__main__":
    main()
