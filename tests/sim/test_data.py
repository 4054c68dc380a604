"""Data that NumPy would turn into numbers somehow is refused; data that spoils a sim is named."""

import os
import warnings
from itertools import repeat

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, ProfileError, QuantizationWarning
from keras_edgeq.sim import data as data_module
from keras_edgeq.sim.data import batches
from tests.models import inputs_for, make

L = tf_keras.layers
X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    x = tf_keras.Input((4,), name="x")
    return tf_keras.Model(x, L.Dense(3)(x))


def read(data, model, **options):
    return list(batches(data, model, **options))


ODD = {
    "complex": X + 1j,
    "complex without imaginary part": X.astype(np.complex64),
    "dates": np.zeros((16, 4), "datetime64[s]"),
    "spans of time": np.zeros((16, 4), "timedelta64[s]"),
    "digits": np.full((16, 4), "1.5"),
    "digits in bytes": np.full((16, 4), b"1.5"),
    "objects": X.astype(object),
    "digits as objects": np.full((16, 4), "1.5", object),
    "records": np.zeros((16, 4), [("a", "f4")]),
    "strings of TensorFlow": tf.constant(np.full((16, 4), "1.5")),
    "masked": np.ma.masked_less(X, 0.0),
}
FORMS = {
    "array": lambda x: x,
    "list": lambda x: [x],
    "dict": lambda x: {"x": x},
    "generator": lambda x: (x[i : i + 4] for i in (0, 4)),
    "labelled": lambda x: iter([(x, np.zeros(16))]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_real_number_is_refused(model, kind, form):
    with pytest.raises(CalibrationDataError, match=r"Input 'x' is (a masked array|of type)"):
        read(FORMS[form](ODD[kind]), model)


@pytest.mark.parametrize("kind", ["digits", "complex", "dates"])
def test_files_of_what_is_no_real_number_are_refused(model, tmp_path, kind):
    np.save(tmp_path / "x.npy", ODD[kind])
    with pytest.raises(CalibrationDataError, match="of type"):
        read(tmp_path / "x.npy", model)


@pytest.mark.parametrize(
    "kind", ["float16", "float64", "int8", "uint8", "int64", "bool", ml_dtypes.bfloat16]
)
def test_every_real_type_is_read(model, kind):
    given = X > 0 if kind == "bool" else (X * 3).astype(kind)
    (batch,) = read(given, model)
    np.testing.assert_array_equal(batch[0], given.astype(np.float32))


def test_a_masked_array_without_masked_values_is_an_array(model):
    (batch,) = read(np.ma.masked_greater(X, 1e9), model)
    np.testing.assert_array_equal(batch[0], X)


@pytest.mark.parametrize("ids", [[1.5], [2.0**40], [-(2**40)], [np.nan]])
def test_ids_that_are_no_whole_numbers_of_the_input_are_refused(ids):
    x = tf_keras.Input((1,), dtype="int32", name="ids")
    model = tf_keras.Model(x, L.Dense(2)(L.Embedding(9, 2)(x)))
    with pytest.raises(CalibrationDataError, match="the model takes int32"):
        read(np.array([ids]), model)
    assert read(np.array([[3.0]]), model)[0][0].dtype == np.int32


@pytest.mark.parametrize("name", ["batch_size", "steps"])
@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, True, "8", [8], np.nan])
def test_what_is_no_count_is_refused(model, name, value):
    for data in (X, iter([X])):
        with pytest.raises(CalibrationDataError, match=f"{name} is .* whole number, at least 1"):
            read(data, model, **{name: value})
    with pytest.raises(CalibrationDataError, match=name):
        eq.quantize(model, X, progress=False, **{name: value})


def test_counts_of_numpy_are_counts(model):
    assert len(read(X, model, batch_size=np.int64(4), steps=np.int32(3))) == 3


def test_a_pipe_is_no_file(model, tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(CalibrationDataError, match="not a file"):
        read(tmp_path / "x.npy", model)


@pytest.mark.parametrize("form", ["generator", "dataset"])
def test_an_endless_source_is_said_to_be_perhaps_one(model, monkeypatch, form):
    monkeypatch.setattr(data_module, "MANY", 5)
    endless = repeat(X)
    if form == "dataset":
        endless = tf.data.Dataset.from_generator(lambda: repeat(X), tf.float32)
    source = batches(endless, model)
    for _ in range(4):
        next(source)
    with pytest.warns(QuantizationWarning, match="5 batches.*give steps="):
        next(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read(repeat(X), model, steps=7)) == 7


def test_one_value_far_beyond_the_others_is_named_with_its_sample(model):
    x = X.copy()
    x[11, 2] = 1e30
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sim = eq.quantize(model, x, progress=False)
    assert sim.record.warnings[0].startswith("Input 'x' has values far beyond")
    assert "sample 11 (1e+30)" in sim.record.warnings[0]
    assert [str(one.message) for one in told] == list(sim.record.warnings)
    assert {one.filename for one in told} == {__file__}
    with pytest.warns(QuantizationWarning, match="sample 11"):
        eq.quantize(model, iter([x[:8], x[8:]]), check=False, progress=False)


@pytest.mark.parametrize("technique", [eq.correct_bias, eq.seq_mse])
@pytest.mark.parametrize(("odd", "said"), [(0.0, "one and the same number"), (1e6, "sample 3")])
def test_techniques_say_it_of_their_data(technique, odd, said):
    model = make("forward_dense")
    x = inputs_for(model)
    sim = eq.quantize(model, x, progress=False)
    bad = np.zeros_like(x) if not odd else x.copy()
    bad[3] += odd
    with pytest.warns(QuantizationWarning, match=said):
        technique(sim, bad, progress=False)


def test_values_that_differ_as_images_and_counts_do_are_not_remarked_on(model):
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(rng.lognormal(0, 1.5, (200, 4)), model)
        read(np.zeros((2, 4)), model)


@pytest.mark.parametrize("plan", [[], {}, "plan.json", 3])
def test_a_plan_that_is_none_is_refused(model, plan):
    with pytest.raises(ProfileError, match=f"plan is of type {type(plan).__name__}"):
        eq.quantize(model, X, plan=plan, progress=False)
    sim = eq.quantize(model, X, progress=False)
    with pytest.raises(ProfileError, match="is a QuantPlan"):
        eq.requantize(sim, plan=plan)
