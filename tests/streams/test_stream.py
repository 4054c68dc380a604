"""Activations moved forward through a sim, call by call, are those of the whole model."""

from functools import cache

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.graph.rebuild import calls, replay
from keras_edgeq.sim.data import batches
from keras_edgeq.streams.store import StoredBatches, TensorStore
from keras_edgeq.streams.stream import Stream, float_activations_call, float_call, rounded_call
from tests.harness import assert_close, outputs
from tests.models import inputs_for, make

HAZARDS = ("residual", "shared_in_series", "dicts", "pools")


@cache
def sim_of(hazard):
    model = make(hazard)
    return eq.quantize(model, inputs_for(model), progress=False)


@pytest.fixture(scope="module", params=HAZARDS)
def sim(request):
    return sim_of(request.param)


def ends(sim, x, on_call, stops=(), memory_bytes=10**9):
    """Move a stream to the end over some stops; return the outputs of all batches, joined."""
    with TensorStore(memory_bytes) as store:
        source = StoredBatches(batches(x, sim, batch_size=6), store)
        stream = Stream(sim, on_call, source, store)
        for stop in (*stops, len(stream.calls)):
            stream.advance(stop)
            assert stream.position == stop
        parts = [stream._tensors(i, [id(t) for t in sim.outputs]) for i in range(len(stream))]
    assert len(parts) == 3  # 16 samples: 6, 6 and 4
    return [np.concatenate([part[id(t)] for part in parts]) for t in sim.outputs]


def test_the_ends_are_what_the_whole_model_computes(sim):
    x = inputs_for(sim)
    every = range(1, len(calls(sim)) - len(sim.inputs), 3)
    rounded = ends(sim, x, rounded_call, [1, 2])
    assert_close(outputs(sim, x), rounded, 1e-6)
    exact = ends(sim, x, float_call, every)
    assert_close(outputs(eq.strip(sim), x), exact, 1e-6)
    assert max(np.abs(a - b).max() for a, b in zip(rounded, exact, strict=True)) > 1e-4
    # One step or many, in memory or on disk: the same.
    for a, b in zip(exact, ends(sim, x, float_call, memory_bytes=0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("slope", [0.1, 0.3])
def test_a_leaky_relu_behind_a_convolution_and_a_sum_keeps_its_slope(slope):
    x = tf_keras.Input((6, 6, 8), name="image")
    y = tf_keras.layers.Add()([tf_keras.layers.Conv2D(8, 1)(x), x])
    y = tf_keras.layers.Flatten()(tf_keras.layers.LeakyReLU(slope)(y))
    model = tf_keras.Model(x, tf_keras.layers.Dense(3)(y))
    data = inputs_for(model)
    # All in one piece, which TensorFlow optimizes, against one operation at a time.
    exact = ends(eq.quantize(model, data, progress=False), data, float_call)
    np.testing.assert_allclose(exact[0], model(data), atol=1e-5)
    floats = eq.quantize(model, data, precision={"*": "FP32"}, progress=False)
    np.testing.assert_allclose(ends(floats, data, rounded_call)[0], model(data), atol=1e-5)


def test_rounded_parameters_alone(sim):
    x = inputs_for(sim)
    rounded = eq.strip(sim)
    for name, layer in sim.quantized_layers().items():
        for param, value in layer.rounded_params().items():
            getattr(rounded.get_layer(name), param).assign(value)
    assert_close(outputs(rounded, x), ends(sim, x, float_activations_call), 1e-6)


def test_a_call_reads_what_keras_gives_it_and_what_nobody_reads_any_more_is_forgotten():
    sim = sim_of("residual")
    x, seen = inputs_for(sim), {}

    def on_call(call, args, kwargs):
        seen[call.layer.name] = (args, kwargs)
        return rounded_call(call, args, kwargs)

    replay(sim, tf.constant(x), on_call)
    with TensorStore(10**9) as store:
        source = StoredBatches(batches(x, sim, batch_size=16), store)
        own = store.used_bytes
        stream = Stream(sim, rounded_call, source, store)
        for stop, call in enumerate(stream.calls):
            stream.advance(stop)
            wanted, got = (tf.nest.flatten(a) for a in (seen[call.layer.name], stream.arguments(0)))
            for a, b in zip(wanted, got, strict=True):
                if tf.is_tensor(a):
                    np.testing.assert_allclose(a, b, atol=1e-5)
        stream.advance(len(stream.calls))
        ends = sum(int(t.shape[-1]) * 16 * 4 for t in sim.outputs)
        assert store.used_bytes == own + ends
