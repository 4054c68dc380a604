"""What the file of a sim costs beside that of its float model, and what the user's score says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.diagnose.trials import Score, scored
from keras_edgeq.errors import EdgeqError
from keras_edgeq.evaluate.artifact_run import ArtifactRun
from keras_edgeq.evaluate.comparison import Candidate
from keras_edgeq.evaluate.predict import Predict, input_order, predict_of
from keras_edgeq.evaluate.timed_file import TimedFile, costs, time_in_turn
from keras_edgeq.export.export import export
from keras_edgeq.profiles.precision import FLOAT
from keras_edgeq.quantize import quantize
from keras_edgeq.runtime.child.process import Limits
from keras_edgeq.sim.quant_sim import QuantSim

FLOAT_FILE, SIM_FILE = "float file", "file"
RUNS = 50


def files_beside(
    path: Path,
    sim: QuantSim,
    model: tf_keras.Model,
    samples: Sequence[np.ndarray],
    score: Score | None,
) -> tuple[Candidate, ...]:
    """Time a sim's file in turn with the float model's, and score it.

    Args:
        path: of the sim's file; the float model's is written beside it.
        sim: the sim.
        model: the float model it stands for.
        samples: in the order of its inputs.
        score: of the user; None without.

    Returns:
        `"float file"` and `"file"`; the first is missing where the float model cannot be written.
    """
    first = [np.asarray(part)[:1] for part in samples]
    with ExitStack() as stack:
        named = {FLOAT_FILE: _float_file(path, sim, model, first), SIM_FILE: path}
        named = {name: one for name, one in named.items() if one is not None}
        try:
            files = [
                TimedFile(stack.enter_context(ArtifactRun(one, "xnnpack", 1, Limits())))
                for one in named.values()
            ]
        except EdgeqError as error:
            return (Candidate(SIM_FILE, "", failed=str(error)),)
        time_in_turn(files, lambda run: [first[i] for i in input_order(run, sim)], RUNS)
        made = [
            Candidate(name, file.run.runtime, **cost)
            for name, file, cost in zip(named, files, costs(files), strict=True)
        ]
        if score is not None and not made[-1].failed:
            made[-1] = _scored(made[-1], score, as_model(predict_of(files[-1].run, sim), sim))
    return tuple(made)


def _float_file(
    path: Path, sim: QuantSim, model: tf_keras.Model, first: list[np.ndarray]
) -> Path | None:
    """Write the float model in the format of a file beside it."""
    form, folder = path.suffix.removeprefix("."), path.parent / "float"
    options = {"precision": FLOAT, "check": False, "progress": False}
    try:
        floats = quantize(model, first, sim.record.profile, **options)
        report = export(floats, folder, [form], verify=False, progress=False)
    except EdgeqError:
        return None
    return Path(str(report.files[form]))


def _scored(row: Candidate, score: Score, model: tf_keras.Model) -> Candidate:
    try:
        return replace(row, metric=scored(score, model))
    except Exception as error:  # a score may ask for more than predictions, such as layers by name
        return replace(row, failed=f"the score failed on it: {error!r}")


def as_model(predict: Predict, like: tf_keras.Model) -> tf_keras.Model:
    """Return a model that predicts with a runtime, for functions that are given a model.

    Args:
        predict: from a batch in the order of the model's inputs to its outputs.
        like: whose inputs and outputs it has.
    """
    kinds = [symbol.dtype for symbol in like.outputs]

    def call(parts: Sequence[Any]) -> list[Any]:
        made = tf.numpy_function(lambda *batch: predict(batch), list(parts), kinds)
        for value, symbol in zip(tf.nest.flatten(made), like.outputs, strict=True):
            value.set_shape(symbol.shape)
        return list(tf.nest.flatten(made))

    inputs = [
        tf_keras.Input(batch_shape=symbol.shape, dtype=symbol.dtype, name=name)
        for symbol, name in zip(like.inputs, like.input_names, strict=True)
    ]
    outputs = tf_keras.layers.Lambda(call, name="file")(inputs)
    named = [
        tf_keras.layers.Activation("linear", name=name, dtype=value.dtype)(value)
        for value, name in zip(outputs, like.output_names, strict=True)
    ]
    nest = tf.nest.pack_sequence_as
    return tf_keras.Model(
        nest(like.input, inputs), nest(like.output, named), name=f"{like.name}_file"
    )
