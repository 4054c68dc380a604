"""Write sims, plans, profiles and statistics as one version of the package does.

    PYTHONPATH=CHECKOUT python tests/golden/write.py tests/golden/VERSION

It was run with the code of 0.1.0; `test_golden.py` loads what it wrote with the code of today. All
sums of the network are whole numbers below 2^24, so its outputs are the same on any processor.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tf_keras

import keras_edgeq as eq

L = tf_keras.layers


def network() -> tf_keras.Model:
    """Return a small network with a residual, a depthwise convolution and a Concat."""
    x = tf_keras.Input((8, 8, 3), name="image")
    y = L.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    stem = L.ReLU(6.0, name="stem_relu")(L.BatchNormalization(name="stem_norm")(y))
    y = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(stem)
    y = L.ReLU(name="depthwise_relu")(L.BatchNormalization(name="depthwise_norm")(y))
    y = L.Add(name="skip")([stem, L.Conv2D(4, 1, name="pointwise")(y)])
    y = L.Concatenate(name="join")([y, L.MaxPooling2D(3, 1, padding="same", name="pool")(y)])
    y = L.Flatten(name="flat")(y)
    model = tf_keras.Model(x, L.Dense(5, name="head")(y), name="golden")
    rng = np.random.default_rng(0)
    weights = [
        rng.normal(size=w.shape) / np.sqrt(max(np.prod(w.shape[:-1]), 1.0)) for w in model.weights
    ]
    for i, w in enumerate(model.weights):
        if w.name.endswith(("gamma:0", "variance:0")):
            weights[i] = rng.uniform(0.5, 1.5, w.shape)
    model.set_weights(weights)
    return model


def images(samples: int, seed: int) -> np.ndarray:
    """Return random images on a grid of 1/64."""
    rng = np.random.default_rng(seed)
    return (rng.integers(-128, 128, (samples, 8, 8, 3)) / 64).astype(np.float32)


def sims(data: np.ndarray) -> dict[str, tf_keras.Model]:
    """Return the sims by the names of their files."""
    model = network()
    options = {"progress": False, "keep_samples": 2}
    few = eq.quantize(model, data, "litert_w4a8", **options)
    mixed = {"stem": "W8A16", "pointwise": "FP32"}
    return {
        "int8.keras": eq.quantize(model, data, "litert_int8", **options),
        "int16x8.h5": eq.quantize(model, data, "litert_int16x8", **options),
        "gptq.keras": eq.gptq(few, data, progress=False),
        "mixed.keras": eq.quantize(model, data, "litert_int8", precision=mixed, **options),
        "data_free.keras": eq.quantize(
            model, None, "litert_int8", input_range=(-2, 2), progress=False
        ),
        "fixed_point.keras": eq.quantize(model, data, "qnn_w8a8", **options),
        "learned.h5": eq.learn_ranges(few),
        "trained.keras": eq.quantize(model, data, "litert_w4a8", batch_norm="train", **options),
    }


def grids(sim: tf_keras.Model) -> dict[str, list]:
    """Return scale, zero point and bits of every grid by printed name."""
    own = {
        f"{n}/{p}": q
        for n, layer in sim.quantized_layers().items()
        for p, q in layer.quantizers.items()
    }
    found = {**own, **sim.quantizers()}
    return {
        name: [np.ravel(e.scale).tolist(), np.ravel(e.zero_point).tolist(), e.spec.bits]
        for name, quantizer in found.items()
        if (e := quantizer.encoding) is not None and not e.spec.is_half
    }


def main(folder: Path) -> None:
    """Write the files and what each gives."""
    folder.mkdir(parents=True, exist_ok=True)
    data, test = images(32, 1), images(8, 2)
    told, outputs = {}, {}
    for name, sim in sims(data).items():
        eq.save_sim(sim, folder / name)
        outputs[name] = sim.predict(test, verbose=0)
        told[name] = {
            "grids": grids(sim),
            "plan": sim.record.plan.to_json(),
            "profile": sim.record.profile.to_json(),
        }
    np.savez_compressed(folder / "outputs.npz", **outputs)
    (folder / "expected.json").write_text(json.dumps(told, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
