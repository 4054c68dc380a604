"""Threads that predict, call, trace and export one sim at a time get what each gets alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

import keras_edgeq as eq
from keras_edgeq.files import sha256_of
from keras_edgeq.sim.freeze import copy_sim
from tests.models import inputs_for, make


@pytest.fixture(scope="module")
def sim():
    model = make("forward_conv")
    return eq.quantize(model, inputs_for(model), progress=False)


# Conversion to ONNX lets every thread run functions eagerly, which TensorFlow remarks on.
@pytest.mark.filterwarnings("ignore:Even though the")
def test_predictions_and_exports_in_threads_are_those_of_one_thread(sim, tmp_path):
    x = inputs_for(make("forward_conv"))
    wanted = sim.predict(x, verbose=0)
    eq.export(sim, tmp_path / "alone", ["tflite", "onnx"], progress=False)
    going = [True]

    def call(run):
        made = []
        while going[0]:
            made.append(np.asarray(run()))
        return made

    def export(name):
        return eq.export(sim, tmp_path / name, ["tflite", "onnx"], progress=False).failed

    def trace():
        return tf.function(lambda: sim(tf.constant(x), training=False))()

    runs = [lambda: sim.predict(x, verbose=0), lambda: sim(x, training=False), trace]
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call, run) for run in runs]
        exports = [pool.submit(export, name) for name in ("a", "b", "a")]
        try:
            failed = [dict(one.result()) for one in exports]
        finally:
            going[0] = False
        made = [one.result() for one in calls]
    assert failed == [{}] * 3
    assert not tf.config.functions_run_eagerly()
    assert all(made)
    for results in made:
        for result in results:
            np.testing.assert_array_equal(result, wanted)
    for name in ("a", "b"):
        assert sha256_of(tmp_path / name) == sha256_of(tmp_path / "alone")
    assert all(
        isinstance(v, tf.Variable)
        for layer in sim.quantized_layers().values()
        for v in (layer.layer.kernel,)
    )
    np.testing.assert_array_equal(copy_sim(sim).predict(x, verbose=0), wanted)
