"""`TimeDistributed` as its layer, on every kind of layer and size."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.prepare import prepare
from tests.harness import assert_close, outputs
from tests.models import train_like

L = tf_keras.layers
RNG = np.random.default_rng(0)


def encoder():
    x = tf_keras.Input((6, 6, 2))
    y = L.Conv2D(3, 3, activation="relu", name="conv")(x)
    return tf_keras.Model(x, L.GlobalAveragePooling2D(name="pool")(y), name="encoder")


class Scaled(L.Layer):
    """A layer of the user's, with one inside."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = L.Dense(3, name="dense")

    def call(self, x):
        return self.dense(x) * 2.0


VECTORS, IMAGES, ROWS = (5, 4), (5, 6, 6, 2), (5, 7, 2)
# The inner layer, the shape of a sample, and layers of the result.
CASES = {
    "dense": (lambda: L.Dense(3, activation="relu", name="d"), VECTORS, {"td/d", "td/d/relu"}),
    "activation": (lambda: L.Activation("relu", name="a"), VECTORS, {"td/a"}),
    "norm": (lambda: L.BatchNormalization(name="n"), VECTORS, {"td/in", "td/n", "td/out"}),
    "conv2d": (lambda: L.Conv2D(3, 3, name="c"), IMAGES, {"td/in", "td/c", "td/out"}),
    "conv1d": (lambda: L.Conv1D(3, 3, name="c"), ROWS, {"td/in", "td/c", "td/out"}),
    "pool": (lambda: L.MaxPooling2D(name="p"), IMAGES, {"td/in", "td/p", "td/out"}),
    "flatten": (lambda: L.Flatten(name="f"), IMAGES, {"td/in", "td/f", "td/out"}),
    "lstm": (lambda: L.LSTM(3, name="l"), ROWS, {"td/in", "td/l/output", "td/out"}),
    "a model": (encoder, IMAGES, {"td/encoder/conv", "td/encoder/pool", "td/out"}),
    "a class": (lambda: Scaled(name="s"), VECTORS, {"td/in", "td/s/dense", "td/out"}),
    "time twice": (
        lambda: L.TimeDistributed(L.Dense(2, name="d"), name="i"), ROWS, {"td/in", "td/i/d"},
    ),
}  # fmt: skip


def model(case, steps=None):
    make, shape, _ = CASES[case]
    x = tf_keras.Input((steps, *shape[1:]) if steps != 0 else (None, *shape[1:]), name="x")
    y = L.TimeDistributed(make(), name="td")(x)
    return train_like(tf_keras.Model(x, y)), RNG.normal(size=(8, *shape)).astype(np.float32)


@pytest.mark.parametrize("steps", [5, None])
@pytest.mark.parametrize("case", CASES)
def test_the_layer_inside_computes_all_steps(case, steps):
    given, data = model(case, steps)
    made = prepare(given)
    assert not [layer for layer in made.layers if isinstance(layer, L.TimeDistributed)]
    assert CASES[case][2] <= {layer.name for layer in made.layers}
    assert_close(outputs(given, data), outputs(made, data))


@pytest.mark.parametrize("case", ["dense", "conv2d", "a model"])
def test_a_sim_computes_them_in_integers_and_files_agree(case, tmp_path):
    given, data = model(case, 5)
    assert not [row for row in eq.describe(given).rows if row.computes == "float"]
    sim = eq.quantize(given, data, progress=False)
    wanted, got = given(data).numpy(), sim(data).numpy()
    assert 10 * np.log10(np.sum(wanted**2) / np.sum((wanted - got) ** 2)) > 25.0
    report = eq.export(sim, tmp_path, ["tflite", "onnx"], verify=data[:1], progress=False)
    assert all(run.agrees for run in report.runs)


def test_a_layer_that_is_shared_keeps_one_set_of_weights():
    x, z = tf_keras.Input((5, 6, 6, 2)), tf_keras.Input((3, 6, 6, 2))
    layer = L.TimeDistributed(L.Conv2D(2, 3, name="c"), name="td")
    given = train_like(tf_keras.Model([x, z], [layer(x), layer(z)]))
    made = prepare(given)
    assert len(made.weights) == len(given.weights)
    data = [RNG.normal(size=(2, *s.shape[1:])).astype(np.float32) for s in (x, z)]
    assert_close(outputs(given, data), outputs(made, data))


@pytest.mark.slow
def test_masks_keep_the_layer_whole_with_the_reason():
    ids = tf_keras.Input((5,), dtype="int32")
    y = L.Embedding(10, 4, mask_zero=True)(ids)
    y = L.TimeDistributed(L.Dense(3), name="td")(y)
    given = tf_keras.Model(ids, L.Dense(2)(L.LSTM(3)(y)))
    rows = {row.layer: row for row in eq.describe(given).rows}
    assert rows["td"].computes == "float"
    assert "its input carries a mask" in rows["td"].why
    data = RNG.integers(0, 10, (4, 5)).astype(np.int32)
    assert_close(outputs(given, data), outputs(prepare(given), data))


def test_gptq_rounds_a_layer_of_every_step():
    given, data = model("conv2d", 5)
    sim = eq.gptq(eq.quantize(given, data, "litert_w4a8", progress=False), data, progress=False)
    wanted, got = tf.constant(given(data)), sim(data)
    assert float(tf.reduce_mean(tf.square(wanted - got)) / tf.reduce_mean(tf.square(wanted))) < 0.05
