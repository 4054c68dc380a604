from itertools import product

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, EdgeqError
from keras_edgeq.graph.rebuild import calls as graph_calls
from keras_edgeq.numerics.metrics import sqnr_db
from keras_edgeq.ptq import session as workshop
from keras_edgeq.ptq.adaround.adaround import adaround
from keras_edgeq.ptq.adaround.blocks import block_units
from keras_edgeq.ptq.adaround.reconstruct import (
    Candidates,
    Settings,
    make_loop,
    optimise,
    reconstruction_error,
)
from keras_edgeq.ptq.adaround.segment import Segment, open_call
from keras_edgeq.ptq.adaround.soft_rounding import (
    beta_at,
    logits_of,
    rounding_penalty,
    soft_rounding,
)
from keras_edgeq.ptq.open_kernel import steps
from keras_edgeq.sim.insert import insert
from keras_edgeq.streams.store import TensorStore
from tests.harness import assert_same_state, snapshot
from tests.models import train_like

L = tf_keras.layers
BRIEF = {"iterations": 150, "learning_rate": 3e-3, "batch_size": 8, "start": "nearest"}


def small(samples=24):
    """A convolution, a depthwise one, a pointwise one in a residual block, and a dense layer."""
    x = tf_keras.Input((6, 6, 4), name="image")
    y = L.Conv2D(8, 3, activation="relu", padding="same", name="conv")(x)
    z = L.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(y)
    z = L.Conv2D(8, 1, name="pointwise")(z)
    y = L.LeakyReLU(name="leaky")(L.Add(name="skip")([y, z]))
    model = train_like(tf_keras.Model(x, L.Dense(3, name="head")(L.Flatten(name="flat")(y))))
    # Neighbouring pixels are alike, as in images: rounding up and down has to balance.
    data = np.random.default_rng(1).normal(size=(samples, 6, 6, 4)).cumsum(1).cumsum(2)
    return model, np.float32(data / data.std())


def quantized(model, data):
    return eq.quantize(
        model, data, precision={"*": "W4A8"}, rules={"weights": "mse"}, progress=False
    )


@pytest.fixture(scope="module")
def nearest():
    model, data = small()
    return model, data, quantized(model, data)


@pytest.fixture(scope="module")
def rounded(nearest):
    _, data, sim = nearest
    reports = []
    before = snapshot(sim)
    result = adaround(sim, data, progress=False, on_unit=reports.append, **BRIEF)
    assert_same_state(before, snapshot(sim))
    return result, reports


def kernels(sim):
    return {
        name: getattr(layer.layer, layer.kernel_name).numpy()
        for name, layer in sim.quantized_layers().items()
    }


def same_weights(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


def test_h_follows_the_paper():
    v = np.linspace(-6.0, 6.0, 41)
    wanted = np.clip(1.2 / (1.0 + np.exp(-v)) - 0.1, 0.0, 1.0)
    got = soft_rounding(tf.constant(v)).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-12)
    shares = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    np.testing.assert_allclose(soft_rounding(logits_of(shares)).numpy(), shares, atol=1e-6)


def test_the_gradient_of_h_is_that_of_the_sigmoid_between_the_ends():
    v = tf.constant([-4.0, -1.0, 0.5, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(v)
        h = soft_rounding(v)
    sigmoid = 1.0 / (1.0 + np.exp(-v.numpy()))
    wanted = np.array([0.0, 1.0, 1.0, 0.0]) * 1.2 * sigmoid * (1.0 - sigmoid)
    np.testing.assert_allclose(tape.gradient(h, v).numpy(), wanted, rtol=1e-5)


def test_penalty_schedule_and_error_follow_the_paper():
    h = np.array([0.0, 0.25, 0.5, 0.9])
    for beta in (20.0, 2.0):
        wanted = np.sum(1.0 - np.abs(2.0 * h - 1.0) ** beta)
        np.testing.assert_allclose(rounding_penalty(tf.constant(h), beta).numpy(), wanted)
    at = [float(beta_at(i, 200.0, 1000.0, (20.0, 2.0))) for i in (200.0, 400.0, 600.0, 1000.0)]
    wanted = [2.0 + 9.0 * (1.0 + np.cos(np.pi * t)) for t in (0.0, 0.25, 0.5, 1.0)]
    np.testing.assert_allclose(at, wanted, rtol=1e-5)
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    wanted = np.mean(np.sum((a - b) ** 2, axis=-1))
    np.testing.assert_allclose(reconstruction_error(a, b).numpy(), wanted, rtol=1e-5)


def test_candidates_hold_the_start_and_its_neighbour_towards_the_float_weight():
    ratio, start = np.array([1.3, -2.6, 9.0, 0.0]), np.array([1.0, -2.0, 7.0, 1.0])
    found = Candidates.around(ratio, start, -7.0, 7.0, trust=0.0)
    np.testing.assert_array_equal(found.low, [1.0, -3.0, 6.0, 0.0])
    np.testing.assert_allclose(found.share, [0.3, 0.4, 1.0, 0.0], atol=1e-6)
    trusting = Candidates.around(ratio, start, -7.0, 7.0, trust=1.0)
    np.testing.assert_array_equal(trusting.low + trusting.share, start)


def matrix_problem():
    """Correlated inputs of a matrix; nearest rounding errs in one direction."""
    rng = np.random.default_rng(3)
    x = np.float32(rng.normal(size=(400, 6)) + 3.0 * rng.normal(size=(400, 1)))
    ratio = rng.uniform(-4.0, 4.0, (6, 5))
    start = np.rint(ratio)
    candidate = Candidates.around(ratio, start, -7.0, 7.0, trust=0.0)

    def forward(inputs, fixed, kernels, seed):
        return tf.matmul(inputs[0], kernels[0])

    def error(kernel):
        return np.mean(np.sum((x @ kernel - x @ ratio) ** 2, axis=-1))

    choices = np.array(list(product([0.0, 1.0], repeat=len(ratio)))).T
    best = 0.0
    for j in range(ratio.shape[1]):
        tried = candidate.low[:, j, None] + choices
        best += np.min(np.mean((x @ tried - x @ ratio[:, j, None]) ** 2, axis=0))
    pool = [x], np.float32(x @ ratio), 10**6
    return make_loop(forward, 64), pool, candidate, error, best


def run(loop, pool, candidate, **options):
    return optimise(loop, lambda i: pool, [], [candidate], Settings(**options))


def test_the_loop_comes_near_the_best_of_all_roundings_and_stops_when_all_is_decided():
    loop, pool, candidate, error, best = matrix_problem()
    early = run(loop, pool, candidate)
    assert early.undecided == 0
    assert early.iterations < 2000
    assert best <= error(early.kernels[0]) < min(1.5 * best, 0.8 * error(candidate.start))
    assert set(np.unique(early.kernels[0] - candidate.low)) <= {0.0, 1.0}
    again = run(loop, pool, candidate)
    np.testing.assert_array_equal(again.kernels[0], early.kernels[0])
    fixed = run(loop, pool, candidate, iterations=3000, learning_rate=3e-3, early_stop=False)
    assert fixed.iterations == 3000
    assert error(early.kernels[0]) <= 1.3 * error(fixed.kernels[0])


def test_every_layer_lies_on_its_grid_and_none_is_worse_than_nearest(nearest, rounded):
    model, data, sim = nearest
    result, reports = rounded
    assert [report.layers for report in reports] == [
        ("conv",),
        ("depthwise",),
        ("pointwise",),
        ("head",),
    ]
    for name, layer in result.quantized_layers().items():
        kernel, (on_grid, _, _) = (
            kernels(result)[name],
            layer.quantizers[layer.kernel_name](kernels(result)[name]),
        )
        np.testing.assert_allclose(kernel, on_grid, rtol=1e-6, atol=1e-7)
    for report in reports[:3]:
        assert report.end_db > report.start_db
        assert 0.0 < report.changed < 1.0
        assert 0 < report.iterations <= BRIEF["iterations"]
        assert report.reason == ("iterations" if report.undecided else "converged")
    wanted = model.predict(data, verbose=0)
    gain = sqnr_db(wanted, result.predict(data, verbose=0)) - sqnr_db(
        wanted, sim.predict(data, verbose=0)
    )
    assert gain > 0.5


def test_a_bias_makes_the_mean_error_of_its_layer_zero(nearest, rounded):
    model, data, _ = nearest
    result, _ = rounded
    # Operation by operation: in a graph, TensorFlow with oneDNN gives the leaky ReLU another slope.
    wanted = model(data).numpy()
    head = result.quantized_layers()["head"]
    error = tf_keras.Model(result.input, head.output[0])(data).numpy() - wanted
    # The activations were calibrated once more after the bias was fitted.
    assert np.all(np.abs(error.mean(0)) < 0.02 * wanted.std())


@pytest.mark.slow
def test_seeds_decide_and_an_interrupted_run_goes_on_to_the_same_end(nearest, rounded, tmp_path):
    _, data, sim = nearest
    result, reports = rounded

    class Stop(Exception):
        pass

    def stop(report):
        if report.layers == ("depthwise",):
            raise Stop

    with pytest.raises(Stop):
        adaround(sim, data, progress=False, resume=tmp_path, on_unit=stop, **BRIEF)
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(written) == {"unit-000.npz", "unit-001.npz"}
    told = []
    second = adaround(sim, data, progress=False, resume=tmp_path, on_unit=told.append, **BRIEF)
    assert same_weights(second, result)
    assert told == reports
    assert written.items() <= {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}.items()
    with pytest.raises(EdgeqError, match="of another run"):
        adaround(sim, data, progress=False, resume=tmp_path, **{**BRIEF, "seed": 5})


def test_blocks_are_rounded_together_below_the_limit_of_memory(nearest, monkeypatch):
    _, data, sim = nearest
    stores, reports, limit = [], [], 100_000

    class Watched(TensorStore):
        def __init__(self, *args):
            super().__init__(*args)
            stores.append(self)

    monkeypatch.setattr(workshop, "TensorStore", Watched)
    options = {**BRIEF, "iterations": 60, "unit": "block", "qdrop": 0.5, "memory_bytes": limit}
    adaround(sim, data, progress=False, on_unit=reports.append, **options)
    assert [report.layers for report in reports] == [
        ("conv",), ("depthwise", "pointwise"), ("head",)
    ]  # fmt: skip
    assert [report.iterations for report in reports] == [60, 60, 60]
    assert all(report.end_db > report.start_db for report in reports[:2])
    (store,) = stores
    assert 0 < store.peak_bytes <= limit // 2


def test_an_open_block_drops_quantizers_by_its_seed_and_none_at_its_end(nearest):
    _, data, sim = nearest
    calls = [call for call in graph_calls(sim) if not call.node.is_input]
    unit = block_units(sim)[1]
    segment = Segment(calls, unit, 0)
    (image,) = sim.inputs

    def output(drop, seed, kernels):
        on_call = open_call(segment.end, kernels, drop, tf.constant([0, seed]))
        return segment.output(segment.run({id(image): data}, on_call)).numpy()

    layer = sim.quantized_layers()["pointwise"]
    as_rounded = {"pointwise": tf.constant(steps(layer), tf.float32)}
    undropped = output(0.0, 0, {})
    np.testing.assert_array_equal(output(0.0, 1, as_rounded), undropped)
    np.testing.assert_array_equal(output(0.5, 3, {}), output(0.5, 3, {}))
    assert np.any(output(0.5, 3, {}) != output(0.5, 4, {}))
    end = segment.end.layer
    assert np.any(end(undropped)[0] != undropped)
    half = {"pointwise": as_rounded["pointwise"] + 0.5}
    assert np.any(output(0.0, 0, half) != undropped)


def test_the_closed_form_is_a_better_start_than_nearest(nearest, rounded):
    model, data, sim = nearest
    reports = []
    options = {**BRIEF, "start": "gptq", "iterations": 20}
    result = adaround(sim, data, progress=False, on_unit=reports.append, **options)
    assert all(a.start_db > b.start_db for a, b in zip(reports[1:], rounded[1][1:], strict=True))
    wanted = model.predict(data, verbose=0)
    gain = sqnr_db(wanted, result.predict(data, verbose=0)) - sqnr_db(
        wanted, sim.predict(data, verbose=0)
    )
    assert gain > 1.0


def test_a_shared_layer_and_one_that_is_no_matrix_product():
    x = tf_keras.Input((6,), name="x")
    shared = L.Dense(6, name="shared")
    y = L.PReLU(name="prelu")(shared(shared(x)))
    model = train_like(tf_keras.Model(x, y))
    data = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    sim, reports = quantized(model, data), []
    result = adaround(sim, data, progress=False, on_unit=reports.append, **BRIEF)
    assert [(r.layers, r.reason) for r in reports if not r.iterations] == [
        (("prelu",), "not a matrix product")
    ]
    assert [r.layers for r in reports if r.iterations] == [("shared",)]
    assert np.all(np.isfinite(result.predict(data, verbose=0)))


def test_errors_say_what_to_do(nearest):
    model, data, sim = nearest
    with pytest.raises(CalibrationDataError, match="no samples"):
        adaround(sim, data[:0], progress=False)
    with pytest.raises(CalibrationDataError, match="NaN"):
        adaround(sim, np.full_like(data, np.nan), progress=False)
    bare = insert(model, sim.record)
    with pytest.raises(EdgeqError, match="calibrate the sim"):
        adaround(bare, data, progress=False)
    for options, message in (
        ({"unit": "stage"}, "'layer' or 'block'"),
        ({"start": "random"}, "'gptq' or 'nearest'"),
        ({"iterations": 0}, "at least 1"),
        ({"warm_start": 1.0}, "below 1"),
        ({"qdrop": 0.5}, "only blocks"),
        ({"qdrop": 2.0, "unit": "block"}, "probability"),
    ):
        with pytest.raises(EdgeqError, match=message):
            adaround(sim, data, progress=False, **options)
