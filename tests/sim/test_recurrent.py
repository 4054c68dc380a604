"""Sims of recurrent layers: one grid for all steps, wide states, files that compute the same."""

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.plan.kernel import names_layer
from tests.short import short

L = tf_keras.layers
STEPS, FEATURES, UNITS = 3, 3, 4
CELLS = {"lstm": L.LSTM, "gru": L.GRU, "simple": L.SimpleRNN}


def _model(kind="lstm", steps=STEPS, **options):
    x = tf_keras.Input((steps, FEATURES), name="sequence")
    y = CELLS[kind](UNITS, name="rnn", **options)(x)
    model = tf_keras.Model(x, L.Dense(2, name="head")(y))
    random = np.random.default_rng(0)
    model.set_weights([w + 0.3 * random.normal(size=w.shape) for w in model.get_weights()])
    return model


def _data(steps=STEPS, count=32):
    return np.random.default_rng(1).normal(size=(count, steps, FEATURES)).astype(np.float32)


def _sim(model, profile="litert_int8", **options):
    steps = model.input_shape[1]
    return eq.quantize(model, _data(steps), profile, progress=False, **options)


@pytest.fixture(scope="module")
def lstm():
    return _sim(_model())


def test_each_part_of_a_cell_has_one_grid_for_all_steps(lstm):
    owners = {name for name in lstm.quantizers() if name.startswith("rnn/")}
    assert not [name for name in owners if "@0" in name or "rnn/gates@" in name]
    plan = lstm.record.plan
    shared = {str(ref): str(owner) for ref, owner in plan.shared.items()}
    assert shared["rnn/carry@1"] == "rnn/carry"
    assert shared["rnn/output@2"] == shared["rnn/output@1"] == "rnn/output"
    # What is requantized for a part is so in each step.
    assert shared["rnn/carry/tanh@1<0"] == "rnn/carry/tanh<0"


def test_the_grid_of_all_steps_holds_the_numbers_of_each(lstm):
    carry = lstm.quantizers()["rnn/carry"].encoding
    seen = [h for name, h in lstm.stats.histograms.items() if name.startswith("rnn/carry")]
    both = [h for h in seen if h.high != 0.0]
    assert len(both) >= STEPS - 1
    high = max(
        h.high for n, h in lstm.stats.histograms.items() if n in ("rnn/carry", "rnn/carry@1")
    )
    assert float(carry.max) > 0.8 * high


@pytest.mark.parametrize(("kind", "states"), [
    ("lstm", {"rnn/new", "rnn/kept", "rnn/carry"}),
    ("gru", {"rnn/first", "rnn/kept", "rnn/apart", "rnn/output"}),
])  # fmt: skip
def test_states_have_the_bits_that_the_profile_gives_them(kind, states):
    sim = _sim(_model(kind), check=False)
    bits = {n: q.spec.bits for n, q in sim.quantizers().items() if "<" not in n}
    assert {name for name, own in bits.items() if own == 16} == states


def test_a_layer_that_is_named_is_meant_with_all_its_parts():
    sim = _sim(_model(), precision={"rnn": "FP32"}, check=False)
    parts = [name for name in sim.record.plan.floats if names_layer(name, "rnn")]
    assert "rnn/carry" in parts
    assert not [name for name in sim.quantizers() if name.startswith("rnn/carry")]


def test_a_channel_that_is_small_in_one_step_has_not_collapsed():
    model = _model(return_sequences=True)
    model = tf_keras.Model(model.input, model.get_layer("rnn").output)
    data = _data(count=32)
    data[:, 0] *= 1e-4  # the first step says next to nothing
    model.set_weights([w * (w.ndim > 1) for w in model.get_weights()])
    sim = eq.quantize(model, data, progress=False)
    assert not sim.record.plan.floats
    assert not sim.record.warnings


FORMATS = {"litert_int8": "tflite", "onnxruntime_int8": "onnx", "litert_int16x8": "tflite"}
CASES = [(kind, profile) for kind in CELLS for profile in FORMATS]


@pytest.mark.parametrize("case", short(CASES, ("gru", "litert_int8")))
def test_files_compute_what_the_sim_does(case, tmp_path):
    kind, profile = case
    sim = _sim(_model(kind), profile)
    assert not sim.record.plan.floats
    report = eq.export(sim, tmp_path, formats=[FORMATS[profile]], verify=_data(), progress=False)
    assert all(run.agrees for run in report.runs)
    assert not report.float_ops


def test_too_many_steps_stay_float_and_say_so():
    x = tf_keras.Input((129, FEATURES))
    model = tf_keras.Model(x, L.Dense(2)(L.LSTM(UNITS, name="rnn")(x)))
    sim = eq.quantize(model, _data(129, 16), progress=False, check=False)
    assert "129 steps; up to 128 are unrolled" in sim.record.plan.floats["rnn"]


@pytest.mark.slow
def test_a_sim_of_a_recurrent_layer_comes_back_from_its_file(lstm, tmp_path):
    eq.save_sim(lstm, tmp_path / "sim")
    data = _data(count=4)
    np.testing.assert_array_equal(eq.load_sim(tmp_path / "sim")(data), lstm(data))
