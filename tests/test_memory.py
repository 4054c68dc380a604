"""What a process worked with is gone when nobody holds it any more."""

import gc
import weakref

import numpy as np
import pytest
import tf_keras
from tensorflow.python.framework import ops
from tensorflow.python.framework.func_graph import FuncGraph

import keras_edgeq as eq
from tests.models import inputs_for, make


@pytest.fixture(scope="module")
def model():
    return make("forward_conv")


def graphs():
    gc.collect()
    return sum(isinstance(one, FuncGraph) for one in gc.get_objects())


def gradients():
    return len(ops.gradient_registry._registry)


def test_a_sim_its_graphs_and_gradients_are_gone_with_it(model, tmp_path):
    x = inputs_for(model)

    def cycle():
        sim = eq.quantize(model, x, progress=False)
        sim.predict(x, verbose=0)
        eq.save_sim(sim, tmp_path / "sim.keras")
        loaded = eq.load_sim(tmp_path / "sim.keras")
        loaded.predict(x, verbose=0)
        return weakref.ref(sim), weakref.ref(loaded)

    cycle()  # what is made once, such as a gradient for each way of rounding
    before = graphs(), gradients()
    first, second = cycle()
    assert (graphs(), gradients()) == before
    assert first() is None
    assert second() is None


def test_training_a_sim_registers_no_more_gradients_than_training_its_model(model):
    x = inputs_for(model)
    sim = eq.quantize(model, x, progress=False)
    y = np.zeros((len(x), *sim.output_shape[1:]))
    made = []
    for trained in (tf_keras.models.clone_model(model), sim):
        before = gradients()
        trained.compile("sgd", "mse")
        trained.fit(x, y, epochs=1, verbose=0)
        made.append(gradients() - before)
    assert made[0] == made[1]  # those of Keras' optimizer
