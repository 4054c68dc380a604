"""A copy of a layer makes what the layer makes, without a trace where that is known."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras.src.engine.base_layer import Layer

import keras_edgeq as eq
from keras_edgeq.graph.rebuild import calls, rebuild
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.prepare.flatten import flatten_nested
from keras_edgeq.sim.freeze import copy_sim
from tests.models import HAZARDS, inputs_for

L = tf_keras.layers


def told(model):
    """What a model says of its tensors and weights."""
    symbols = [t for call in calls(model) for t in tf.nest.flatten(call.node.outputs)]
    tensors = [(t.type_spec, getattr(t, "_keras_mask", None) is None) for t in symbols]
    return tensors, [(w.name, w.shape, w.dtype) for w in model.weights]


@pytest.fixture
def traced(monkeypatch):
    """The layers that Keras traces, by name."""
    names = []
    plain = Layer._infer_output_signature

    def infer(self, *args):
        names.append(self.name)
        return plain(self, *args)

    monkeypatch.setattr(Layer, "_infer_output_signature", infer)
    return names


@pytest.mark.parametrize("name", HAZARDS)
def test_a_copy_says_of_its_tensors_what_the_model_says(name):
    model = flatten_nested(HAZARDS[name]())
    copy = rebuild(model)
    assert told(copy) == told(model)
    x = inputs_for(model, 2)
    for one, other in zip(tf.nest.flatten(copy(x)), tf.nest.flatten(model(x)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_known_layers_are_not_traced(traced):
    x = tf_keras.Input((8, 8, 3))
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3)(x)))
    model = tf_keras.Model(x, L.Dense(2)(tf.reshape(y, (-1, 144))))
    sim = eq.quantize(model, np.random.default_rng(0).normal(size=(8, 8, 8, 3)), progress=False)
    traced.clear()
    rebuild(model)
    copy_sim(sim)
    assert not traced


def test_layers_that_tell_more_when_they_are_traced_are(traced):
    class Own(L.Layer):
        def call(self, x):
            return 2.0 * x

    ids = tf_keras.Input((4,), dtype="int32")
    masked = L.Embedding(5, 3, mask_zero=True, name="masked")(ids)
    sparse = L.Dense(3, activity_regularizer="l2", name="sparse")(masked)
    model = tf_keras.Model(ids, Own(name="own")(L.LSTM(2, name="lstm")(sparse)))
    traced.clear()
    copy = rebuild(model)
    assert {"masked", "sparse", "own", "lstm"} <= set(traced)
    assert told(copy) == told(model)


def test_other_inputs_than_in_the_model_are_looked_at(traced):
    x = tf_keras.Input((8,))
    model = tf_keras.Model(x, L.Dense(2, name="dense")(L.ReLU(name="relu")(x)))

    def on_call(call, new, args, kwargs):
        return new(tf.expand_dims(args[0], 1) if call.layer.name == "relu" else args[0], **kwargs)

    traced.clear()
    copy = rebuild(model, on_call=on_call)
    assert {"relu", "dense"} <= set(traced)
    assert copy.output_shape == (None, 1, 2)


@pytest.mark.parametrize(
    "layer",
    [
        L.Conv2D(4, 3, strides=2, padding="same"),
        L.Conv2D(6, 3, groups=3),
        L.Conv2DTranspose(4, 3, strides=2, padding="same"),
        L.DepthwiseConv2D(3, depth_multiplier=2),
        L.Dense(5),
        L.EinsumDense("abcd,def->abcef", (None, None, 2, 3)),
        L.Conv1D(4, 3, padding="causal"),
    ],
)
@pytest.mark.parametrize("profile", ["litert_int8", "litert_w4a8", "litert_int8_per_tensor"])
def test_a_sim_says_of_its_tensors_what_a_trace_finds(layer, profile, monkeypatch):
    layer = type(layer).from_config(layer.get_config())
    x = tf_keras.Input((9, 3) if type(layer) is L.Conv1D else (9, 9, 3))
    model = tf_keras.Model(x, L.ReLU()(layer(x)))
    data = np.random.default_rng(0).normal(size=(8, *x.shape[1:]))
    known = eq.quantize(model, data, profile, progress=False)
    for cls in (FakeQuant, QuantizedLayer):
        monkeypatch.setattr(cls, "output_specs", lambda *_, **__: None)
    assert told(known) == told(copy_sim(known))
