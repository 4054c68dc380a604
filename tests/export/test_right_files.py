"""Models whose files once were refused, refused to run or said something else, kind by kind.

Each is held on its real runtimes: the sim beside the float model, and the file beside the sim.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import sqnr_db
from tests.models import train_like

L, Input, Model = tf_keras.layers, tf_keras.Input, tf_keras.Model
SAMPLES = 32


@tf_keras.saving.register_keras_serializable("tests")
class Times(L.Layer):
    """A layer of the user's that computes with a constant."""

    def __init__(self, factor=1 / 6, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def between_convolutions(function):
    x = Input((8, 8, 3))
    y = function(L.Conv2D(4, 3, padding="same", name="first")(x))
    return Model(x, L.Conv2D(3, 3, name="last")(y))


def normal(model, samples=SAMPLES):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(samples, *s.shape[1:])).astype(np.float32) for s in model.inputs]


def sim_of(model, data=None, profile="litert_int8", **options):
    """Return a model's sim, its data, and the least signal-to-noise ratio among its outputs."""
    model = train_like(model)
    data = normal(model) if data is None else data
    sim = eq.quantize(model, data, profile, progress=False, **options)
    x = data if len(data) > 1 else data[0]
    pairs = zip(tf.nest.flatten(model(x)), tf.nest.flatten(sim(x)), strict=True)
    return sim, data, min(sqnr_db(a, b) for a, b in pairs)


def check_files(folder, model, formats=("tflite",), least_db=30.0, identical=0.97, **options):
    """Check a sim beside its model, and each file beside the sim on its first runtime."""
    sim, data, db = sim_of(model, **options)
    assert db > least_db
    report = eq.export(sim, folder, list(formats), verify=data, progress=False)
    firsts = list({run.artifact: run for run in reversed(report.runs)}.values())
    assert len(firsts) == len(formats)
    for run in firsts:
        assert run.first_difference is None or run.first_difference.cause == "kernel"
        if run.identical is None:
            largest = float(np.abs(sim(data if len(data) > 1 else data[0])).max())
            assert run.max_abs_difference < 1e-4 * largest
        else:
            assert run.identical >= identical
    return sim


HARD_SWISH = {
    "(x * relu6) * c": lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6),
    "x * (relu6 * c)": lambda x: x * (tf.nn.relu6(x + 3.0) * (1 / 6)),
    "(relu6 * x) / 6": lambda x: tf.divide(tf.nn.relu6(3.0 + x) * x, 6.0),
    "c * x * relu6": lambda x: (1 / 6) * x * tf.nn.relu6(3.0 + x),
    "layers": lambda x: tf.multiply(x=1 / 6, y=L.Multiply()([L.ReLU(6.0)(x + 3.0), x])),
    "own layer": lambda x: Times()(x * tf.nn.relu6(x + 3.0)),
    "hard sigmoid": lambda x: tf.nn.relu6(x + 3.0) * (1 / 6),
    "twice": lambda x: 0.5 * (2.0 * x) * 3.0,
}


@pytest.mark.parametrize("name", HARD_SWISH)
def test_what_a_converter_would_fuse_keeps_its_quantizers(name, tmp_path):
    check_files(tmp_path, between_convolutions(HARD_SWISH[name]))


def test_wide_integers_keep_the_quantizers_of_a_hard_swish(tmp_path):
    model = between_convolutions(HARD_SWISH["(x * relu6) * c"])
    check_files(tmp_path, model, profile="litert_int16x8", identical=0.5)


BESIDE_WEIGHTS = {
    "times": lambda x: x * 2.0,
    "plus": lambda x: x + 2.0,
    "per channel": lambda x: x * np.float32([1.0, 2.0, 3.0, 4.0]),
    "minus, then a batch norm": lambda x: L.BatchNormalization()(x - 1.0),
    "own layer": lambda x: Times(3.0)(L.Conv2D(4, 1)(x)),
    "transposed": lambda x: L.Conv2DTranspose(4, 3)(x) * 2.0,
    "activation": lambda x: tf.nn.relu(x) * 2.0,
    "dense": lambda x: L.Dense(4)(x) * 2.0 + 1.0,
}


@pytest.mark.parametrize("name", BESIDE_WEIGHTS)
def test_constants_beside_weights_in_half_precision_stay_beside_them(name, tmp_path):
    model = between_convolutions(BESIDE_WEIGHTS[name])
    check_files(tmp_path, model, profile="litert_fp16", least_db=60.0)


def test_an_activation_is_fused_into_weights_in_half_precision(tmp_path):
    sim = check_files(
        tmp_path, between_convolutions(L.ReLU()), profile="litert_fp16", least_db=60.0
    )
    from keras_edgeq.export.tflite import to_tflite
    from keras_edgeq.runtime.tflite_file import TfliteGraph

    names = [op.name for op in TfliteGraph(to_tflite(sim).content).ops]
    assert names.count("CONV_2D") == 2
    assert "RELU" not in names
