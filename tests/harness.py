"""What every transform and every sim must satisfy, checked by one call."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.prepare.simplify import simplified

# Relative to the largest output: what float32 loses in a differently ordered sum.
FLOAT_NOISE = 2e-5


def simplify(model):
    """Return a model with constants, batch norms and pools rewritten."""
    return simplified(model).model


def outputs(model, x):
    """Return the model's outputs in inference mode as a flat list of arrays."""
    return [t.numpy() for t in tf.nest.flatten(model(x, training=False))]


def snapshot(model):
    """Return what a transform could change in a model: weights, configuration, calls of layers."""
    layers = list(model._flatten_layers())
    calls = [len(layer.inbound_nodes) for layer in layers]
    return model.get_weights(), repr(model.get_config()), calls, [w.name for w in model.weights]


def assert_same_state(before, after):
    assert_same_arrays(before[0], after[0])
    assert before[1:] == after[1:]


def assert_same_arrays(wanted, got):
    assert len(wanted) == len(got)
    for a, b in zip(wanted, got, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def assert_close(wanted, got, tolerance=FLOAT_NOISE):
    """Compare outputs; the tolerance is relative to the largest number of each."""
    assert len(wanted) == len(got)
    for a, b in zip(wanted, got, strict=True):
        a = a.astype(np.float32)
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * max(np.abs(a).max(), 1e-3))


def assert_same_structure(model, other):
    """Compare names of inputs, and nesting of inputs and outputs."""
    assert other.input_names == model.input_names
    assert [tuple(t.shape) for t in other.inputs] == [tuple(t.shape) for t in model.inputs]
    tf.nest.assert_same_structure(model.input, other.input)
    tf.nest.assert_same_structure(model.output, other.output)


def saved_and_loaded(model, suffix=".keras", **options):
    """Return the model as it comes back from disk, without custom objects."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / f"model{suffix}")
        model.save(path, save_format="tf" if suffix == "" else None)
        return tf_keras.models.load_model(path, **options)


def check_transform(transform, model, x, tolerance=FLOAT_NOISE, save=True):
    """Check a transform that keeps what a model computes, and return its result.

    Same outputs but for float noise; the result saves and loads; the argument is untouched; and
    applying it twice is applying it once.
    """
    before, wanted = snapshot(model), outputs(model, x)
    result = transform(model)
    assert_same_state(before, snapshot(model))
    assert_same_structure(model, result)
    got = outputs(result, x)
    assert_close(wanted, got, tolerance)
    if save:
        assert_same_arrays(got, outputs(saved_and_loaded(result, safe_mode=False), x))
    again = transform(result)
    assert [layer.name for layer in again.layers] == [layer.name for layer in result.layers]
    assert_same_arrays(result.get_weights(), again.get_weights())
    assert_same_arrays(got, outputs(again, x))
    return result


def check_sim(model, x, profile="litert_int8", tolerance=0.05, suffixes=(".keras", ".h5")):
    """Quantize `model`, check all that holds for any sim, and return the sim.

    Outputs near the float ones (relative to the largest); the model untouched; the same outputs
    and record after saving and loading; one training step that moves kernels and no grid.
    """
    before, wanted = snapshot(model), outputs(model, x)
    sim = eq.quantize(model, x, profile, progress=False)
    assert_same_state(before, snapshot(model))
    assert_same_structure(model, sim)
    assert sim.output_names == model.output_names
    got = outputs(sim, x)
    assert_close(wanted, got, tolerance)
    for suffix in suffixes:
        loaded = saved_and_loaded(sim, suffix, **({"safe_mode": False} if suffix else {}))
        assert_same_sim(sim, loaded)
        assert_same_arrays(got, outputs(loaded, x))
    check_training_step(sim, x)
    return sim


def assert_same_sim(sim, loaded):
    """Compare all that a sim consists of."""
    assert type(loaded) is type(sim)
    assert_same_structure(sim, loaded)
    assert loaded.output_names == sim.output_names
    assert loaded.record.to_json() == sim.record.to_json()
    assert_same_arrays(list(sim.record.samples), list(loaded.record.samples))
    assert [w.shape for w in loaded.weights] == [w.shape for w in sim.weights]
    assert_same_arrays(sim.get_weights(), loaded.get_weights())


def check_training_step(sim, x):
    """Take one step of gradient descent: finite loss, kernels move, grids stay."""
    start = [w.numpy() for w in sim.trainable_weights]
    grids = [w.numpy() for q in sim.quantizers().values() for w in q.weights]
    with tf.GradientTape() as tape:
        flat = tf.nest.flatten(sim(x, training=True))
        loss = tf.add_n([tf.reduce_mean(tf.square(t - 0.3)) for t in flat])
    gradients = tape.gradient(loss, sim.trainable_weights)
    assert np.isfinite(loss)
    assert all(g is not None for g in gradients)
    tf_keras.optimizers.SGD(0.01).apply_gradients(
        zip(gradients, sim.trainable_weights, strict=True)
    )
    ends = [w.numpy() for w in sim.trainable_weights]
    assert all(np.isfinite(end).all() for end in ends)
    moved = [not np.array_equal(a, b) for a, b in zip(start, ends, strict=True)]
    assert any(moved) or not start
    assert_same_arrays(grids, [w.numpy() for q in sim.quantizers().values() for w in q.weights])
