"""Activations that cut off: at a step of the sim's grid, and by no operation where a grid ends."""

from functools import cache

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.export.tflite.convert import to_tflite
from keras_edgeq.runtime.litert import LiteRtModel
from keras_edgeq.runtime.tflite_file import TfliteGraph
from tests.models import inputs_for, make, train_like

L = tf_keras.layers
EDGES = {"QUANTIZE", "DEQUANTIZE"}


@cache
def samples():
    return np.random.default_rng(0).normal(0.0, 3.0, (64, 6, 6, 2)).astype(np.float32)


def exported(function, **options):
    """Return the sim of a network around a function, and the operations and bytes of its file."""
    x = tf_keras.Input((6, 6, 2))
    y = function(L.Conv2D(4, 3, padding="same", name="conv")(x))
    model = train_like(tf_keras.Model(x, L.Conv2D(3, 2, name="last")(y)))
    sim = eq.quantize(model, samples(), progress=False, **options)
    content = to_tflite(sim).content
    ops = [op.name for op in TfliteGraph(content).ops if op.name not in EDGES]
    return sim, ops, content


def assert_same(sim, content):
    (wanted,) = [sim(samples()).numpy()]
    (got,) = LiteRtModel(content, "xnnpack").run([samples()], sim.input_names).values()
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_caps_behind_layers_are_their_grids_ends():
    model = make("caps")
    sim = eq.quantize(model, inputs_for(model), progress=False)
    ops = [op.name for op in TfliteGraph(to_tflite(sim).content).ops]
    assert sorted(set(ops) - EDGES) == ["CONV_2D", "MAX_POOL_2D", "MINIMUM", "MUL"]
    assert ops.count("CONV_2D") == 5


@pytest.mark.parametrize("cap", [
    lambda x: tf.clip_by_value(x, -0.7, 1.3),
    lambda x: tf.clip_by_value(x, -1.0, 1.0),
    lambda x: tf.minimum(x, 0.9),
    tf.nn.relu6,
    L.ReLU(1.7),
], ids=["clip", "-1 to 1", "minimum", "relu6", "capped"])  # fmt: skip
def test_a_cap_behind_a_pool_cuts_off_on_the_grid_of_its_result(cap):
    sim, _, content = exported(lambda x: cap(L.MaxPooling2D(2, 1, padding="same")(x)))
    assert not sim.record.plan.floats
    assert_same(sim, content)


def test_a_cap_on_a_wider_grid_keeps_its_operation():
    def capped_next_to_more(x):
        return L.Concatenate()([tf.clip_by_value(x, -0.7, 0.5), L.Conv2D(4, 1, name="other")(x)])

    sim, ops, content = exported(capped_next_to_more)
    assert {"MINIMUM", "MAXIMUM"} <= set(ops)
    assert_same(sim, content)
