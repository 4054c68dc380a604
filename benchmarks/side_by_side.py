"""One model in float, as a sim and as artifacts on their runtimes, on the same images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tf_keras

import keras_edgeq as eq
from keras_edgeq.runtime.artifact import load_artifact

BATCH = 50


def table(
    model: tf_keras.Model,
    calibration: np.ndarray,
    test: np.ndarray,
    score: Callable[[list[np.ndarray]], float],
    title: str,
) -> str:
    """Return Markdown: the score of each, and what the export report says.

    Args:
        model: float model of one input.
        calibration: images.
        test: images.
        score: outputs in the order of the model's -> one number in points.
        title: name of the score.
    """
    order = model.output_names

    def predicted(keras_model) -> list[np.ndarray]:
        made = keras_model.predict(test, batch_size=BATCH, verbose=0)
        return [made[n] for n in order] if isinstance(made, dict) else [made]

    sim = eq.quantize(model, calibration, progress=False)
    outputs = {"float": predicted(model), "sim": predicted(sim)}
    with tempfile.TemporaryDirectory() as folder:
        report = eq.export(sim, folder, ["tflite", "onnx"], verify=test[:BATCH], progress=False)
        for kind in ("tflite", "onnx"):
            for runtime in load_artifact(Path(report.files[kind]), sim):
                pieces = [test[i : i + BATCH] for i in range(0, len(test), BATCH)]
                made = [runtime.outputs([piece]) for piece in pieces]
                outputs[runtime.name] = [np.concatenate(p) for p in zip(*made, strict=True)]
    scores = {name: score(made) for name, made in outputs.items()}
    lines = [
        f"| | {title} | against the sim |",
        "|---|---|---|",
        *(f"| {n} | {s:.2f} | {s - scores['sim']:+.2f} |" for n, s in scores.items()),
        "",
        f"{len(test)} test images, {len(calibration)} calibration images. "
        f"{len(report.integer_layers)} layers in integers, {len(report.float_layers)} in float.",
        "",
        *(f"- float: `{name}`: {why}" for name, why in report.float_layers.items()),
        *(f"- float in TFLite: `{name}`: {why}" for name, why in report.float_ops.items()),
        *(f"- {run}" for run in report.runs),
    ]
    return "\n".join(lines) + "\n"


def quick_batch_norms(model: tf_keras.Model, momentum: float = 0.9) -> None:
    """Let batch norms follow a training of a few hundred steps."""
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = momentum
