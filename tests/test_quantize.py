import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, ProfileError, UnsupportedModelError
from keras_edgeq.sim.data import batches
from tests.models import Input, inputs_for, make, train_like

L = tf_keras.layers


def quantize(model, data, profile="litert_int8", **options):
    # In batches of four whatever the form: a matrix product may round otherwise for more rows.
    return eq.quantize(model, data, profile, **{"progress": False, "batch_size": 4, **options})


def grids(sim):
    return {n: (float(q.scale), float(q.zero_point)) for n, q in sim.quantizers().items()}


def read(model, data):
    """Return what calibration reads from `data`, one array per model input."""
    return [np.concatenate(parts) for parts in zip(*batches(data, model, 4), strict=True)]


@pytest.fixture(scope="module")
def one():
    """A model of one input, its data, and the grids these give."""
    x = Input((5,), name="x")
    model = train_like(tf_keras.Model(x, L.Dense(3, name="dense")(x)))
    data = inputs_for(model, 12)
    return model, data, grids(quantize(model, data))


@pytest.fixture(scope="module")
def two():
    """The same for two inputs in an order that is not alphabetical, of one shape."""
    z, a = Input((4,), name="zebra"), Input((4,), name="ant")
    model = tf_keras.Model([z, a], L.Subtract()([L.Dense(4, name="dz")(z), a]))
    data = inputs_for(train_like(model), 12)
    data["ant"] *= 5
    return model, data, grids(quantize(model, data))


class Batches(tf_keras.utils.Sequence):
    """Batches of four, with labels."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return 3

    def __getitem__(self, i):
        rows = slice(4 * i, 4 * i + 4)
        if isinstance(self.x, dict):
            return {k: v[rows] for k, v in self.x.items()}, np.zeros(4)
        return self.x[rows], np.zeros(4)


def dataset(x, *labels):
    return tf.data.Dataset.from_tensor_slices((x, *labels) if labels else x).batch(4)


def parts(x):
    return zip(np.split(x["zebra"], 3), np.split(x["ant"], 3), strict=True)


Y = np.zeros(12, np.float32)
FORMS_OF_ONE = {
    "array": lambda x: x,
    "float64 array": lambda x: x.astype(np.float64),
    "tensor": tf.constant,
    "list of one": lambda x: [x],
    "tuple of one": lambda x: (x,),
    "inputs and labels": lambda x: (x, Y),
    "dict": lambda x: {"x": x},
    "dict with labels beside": lambda x: {"x": x, "label": Y},
    "dataset": dataset,
    "dataset with labels": lambda x: dataset(x, Y),
    "dataset with labels and weights": lambda x: dataset(x, Y, Y),
    "dataset of dicts": lambda x: dataset({"x": x}, Y),
    "dataset without a known size": lambda x: dataset(x).filter(lambda _: True),
    "generator": lambda x: (part for part in np.split(x, 3)),
    "generator with labels": lambda x: ((part, Y[:4]) for part in np.split(x, 3)),
    "generator of dicts": lambda x: ({"x": part} for part in np.split(x, 3)),
    "generator with an empty batch": lambda x: iter([x[:0], *np.split(x, 3)]),
    "sequence": Batches,
}
FORMS_OF_TWO = {
    "dict": lambda x: x,
    "dict in another order": lambda x: {"ant": x["ant"], "zebra": x["zebra"]},
    "list": lambda x: [x["zebra"], x["ant"]],
    "tuple": lambda x: (x["zebra"], x["ant"]),
    "dataset of dicts": dataset,
    "dataset of dicts with labels": lambda x: dataset(x, Y),
    "dataset of tuples": lambda x: dataset(x["zebra"], x["ant"]),
    "dataset of tuples with labels": lambda x: dataset((x["zebra"], x["ant"]), Y),
    "dataset of tuples with two labels": lambda x: dataset((x["zebra"], x["ant"]), (Y, Y)),
    "generator of lists with labels": lambda x: ((list(p), Y[:4]) for p in parts(x)),
    "generator of tuples": parts,
    "sequence of dicts": Batches,
}


@pytest.mark.parametrize("form", FORMS_OF_ONE)
def test_one_input_is_read_from(one, form):
    model, data, _ = one
    (got,) = read(model, FORMS_OF_ONE[form](data))
    np.testing.assert_array_equal(got, data)


@pytest.mark.parametrize("form", FORMS_OF_TWO)
def test_two_inputs_are_read_in_their_order_from(two, form):
    model, data, _ = two
    zebra, ant = read(model, FORMS_OF_TWO[form](data))
    np.testing.assert_array_equal(zebra, data["zebra"])
    np.testing.assert_array_equal(ant, data["ant"])


@pytest.mark.parametrize("form", ["dict", "dataset of tuples with labels", "sequence of dicts"])
def test_the_grids_do_not_depend_on_the_form(two, form):
    model, data, wanted = two
    assert grids(quantize(model, FORMS_OF_TWO[form](data))) == wanted


@pytest.mark.parametrize("as_text", [True, False])
def test_a_numpy_file_is_read(one, tmp_path, as_text):
    model, data, wanted = one
    path = tmp_path / "x.npy"
    np.save(path, data)
    assert grids(quantize(model, str(path) if as_text else path)) == wanted


@pytest.mark.parametrize("names", [["x"], ["images"], ["x", "y"]])
def test_an_archive_of_one_input_is_read(one, tmp_path, names):
    model, data, wanted = one
    np.savez(tmp_path / "x.npz", **dict(zip(names, (data, Y), strict=False)))
    assert grids(quantize(model, tmp_path / "x.npz")) == wanted


def test_an_archive_of_several_inputs_is_read_by_name(two, tmp_path):
    model, data, wanted = two
    np.savez_compressed(tmp_path / "x.npz", **dict(reversed(data.items())), label=Y)
    assert grids(quantize(model, tmp_path / "x.npz")) == wanted


def test_steps_end_an_endless_source(one):
    model, data, wanted = one
    assert grids(quantize(model, dataset(data).repeat(), steps=3)) == wanted


def test_steps_count_batches_of_arrays_too(one):
    model, data, _ = one
    assert quantize(model, data, batch_size=2, steps=3).stats.samples == 6


def test_the_last_batch_may_be_smaller(one):
    model, data, wanted = one
    sim = quantize(model, data, batch_size=7)
    assert sim.stats.samples == 12
    assert grids(sim)["x"] == wanted["x"]


def test_integer_inputs_are_taken_from_any_integer_type():
    model = make("embedding")
    data = inputs_for(model)
    wanted = grids(quantize(model, data))
    assert grids(quantize(model, data.astype(np.int64))) == wanted


def test_a_progress_bar_is_shown_unless_told_otherwise(one, capsys):
    model, data, _ = one
    quantize(model, data)
    assert "calibrate" not in capsys.readouterr().err
    quantize(model, data, progress=True)
    assert "calibrate" in capsys.readouterr().err


def bad(x, value):
    x = x.copy()
    x[3, 1] = value
    return x


WRONG_DATA = {
    "an empty array": (lambda x: x[:0], "no samples"),
    "an empty dataset": (lambda x: dataset(x).take(0), "no samples"),
    "an empty list": (lambda x: [], "no samples"),
    "an empty generator": (lambda x: iter(()), "no samples"),
    "a wrong shape": (lambda x: x[:, :4], r"'x'.*\(4, 4\).*\(None, 5\)"),
    "no batch axis": (lambda x: x[0], r"'x'.*shape \(4,\).*batch axis"),
    "no batch axis in a dataset": (tf.data.Dataset.from_tensor_slices, "batch axis"),
    "a scalar": (lambda x: np.array(1.0), "no samples"),
    "wrong names": (lambda x: {"image": x}, r"no \['x'\].*\['image'\]"),
    "NaN": (lambda x: bad(x, np.nan), "'x' has NaN"),
    "infinity": (lambda x: bad(x, np.inf), "'x' has NaN or infinite"),
    "an endless dataset": (lambda x: dataset(x).repeat(), "steps="),
    "too many arrays": (lambda x: [x, x], "2 arrays.*1 inputs"),
    "text": (lambda x: np.array([["a"] * 5]), "'x' is of type"),
    "a number": (lambda x: 3, "int"),
    "a missing file": (lambda x: "gone.npy", r"gone\.npy"),
}


@pytest.mark.parametrize("case", WRONG_DATA)
def test_data_is_refused_with_the_reason(one, case):
    model, data, _ = one
    make_data, message = WRONG_DATA[case]
    with pytest.raises(CalibrationDataError, match=message):
        quantize(model, make_data(data))


def test_a_generator_that_was_read_before_is_refused(one):
    model, data, _ = one
    source = (part for part in np.split(data, 3))
    quantize(model, source)
    with pytest.raises(CalibrationDataError, match="read before"):
        quantize(model, source)


def test_arrays_of_different_lengths_are_refused(two):
    model, data, _ = two
    with pytest.raises(CalibrationDataError, match=r"different lengths: \[3, 12\]"):
        quantize(model, {**data, "ant": data["ant"][:3]})


def test_batches_of_different_lengths_are_refused(two):
    model, data, _ = two
    with pytest.raises(CalibrationDataError, match="different lengths"):
        quantize(model, iter([{**data, "ant": data["ant"][:3]}]))


def test_a_missing_input_is_named(two):
    model, data, _ = two
    with pytest.raises(CalibrationDataError, match=r"no \['ant'\]"):
        quantize(model, {"zebra": data["zebra"]})


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_broken_file_is_named(one, tmp_path, content, suffix):
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CalibrationDataError, match=rf"data\.{suffix}"):
        quantize(one[0], path)


def test_a_damaged_archive_is_named(one, tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(500, 5)))
    content = bytearray(path.read_bytes())
    for i in range(200, 2000, 3):
        content[i] ^= 0x5A
    path.write_bytes(content)
    with pytest.raises(CalibrationDataError, match=r"data\.npz"):
        quantize(one[0], path)


def test_a_pickled_array_is_not_read(one, tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(CalibrationDataError, match=r"x\.npy"):
        quantize(one[0], tmp_path / "x.npy")


def test_an_archive_with_other_names_is_answered_with_the_inputs(two, tmp_path):
    np.savez(tmp_path / "x.npz", left=Y, right=Y)
    with pytest.raises(CalibrationDataError, match=r"left.*right.*zebra.*ant"):
        quantize(two[0], tmp_path / "x.npz")


def test_a_batch_size_below_one_is_refused(one):
    with pytest.raises(CalibrationDataError, match="batch_size is 0"):
        quantize(one[0], one[1], batch_size=0)


class Subclassed(tf_keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.dense = L.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


WRONG_MODELS = {
    "subclassed": (Subclassed, "'mine'.*Subclassed.*not called yet"),
    "unbuilt": (lambda: tf_keras.Sequential([L.Dense(2)], name="mine"), "'mine' is not built"),
    "a layer of Keras 3": (lambda: keras.layers.Dense(2), r"Dense.*not a model of Keras 3"),
    "a layer": (lambda: L.Dense(2), r"Dense.*Give a tf_keras\.Model"),
    "a path": (lambda: "model.keras", r"str.*Give a tf_keras\.Model"),
}


@pytest.mark.parametrize("case", WRONG_MODELS)
def test_a_model_is_refused_with_the_way_out(case):
    make_model, message = WRONG_MODELS[case]
    with pytest.raises(UnsupportedModelError, match=message):
        quantize(make_model(), np.zeros((2, 5), np.float32))


def test_a_sim_given_again_is_refused(one):
    model, data, _ = one
    with pytest.raises(UnsupportedModelError, match="is a sim already"):
        quantize(quantize(model, data), data)


def test_the_way_out_for_subclassed_models_works():
    x = Input((5,))
    model = tf_keras.Model(x, Subclassed().call(x))
    data = inputs_for(model)
    np.testing.assert_allclose(quantize(model, data)(data), model(data), atol=0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("index", "name"), [(0, "head/kernel"), (1, "head/bias")])
def test_weights_that_are_not_finite_are_named(index, name, value):
    x = Input((5,))
    inner = tf_keras.Sequential([Input((5,)), L.Dense(2, name="head")])
    model = tf_keras.Model(x, inner(x))
    weights = model.get_weights()
    weights[index].flat[0] = value
    model.set_weights(weights)
    with pytest.raises(UnsupportedModelError, match=name):
        quantize(model, inputs_for(model))


def test_a_batch_norm_with_impossible_statistics_is_named():
    x = Input((5,))
    model = tf_keras.Model(x, L.BatchNormalization(name="norm")(L.Dense(2, name="head")(x)))
    model.get_layer("norm").moving_variance.assign([-1.0, 1.0])
    with pytest.raises(UnsupportedModelError, match=r"'norm'.*-1"):
        quantize(model, inputs_for(model))


def test_an_unknown_profile_is_refused(one):
    with pytest.raises(ProfileError, match="'phone'"):
        quantize(one[0], one[1], "phone")


def test_a_wrong_profile_is_refused_before_the_data_is_touched(one):
    def explode():
        raise AssertionError
        yield

    with pytest.raises(ProfileError):
        quantize(one[0], explode(), "phone")


@pytest.mark.parametrize("profile", ["litert_int8", "onnxruntime_int8", "qnn_w8a8"])
def test_every_built_in_profile_makes_a_sim_close_to_the_model(profile):
    model = make("residual")
    data = inputs_for(model)
    sim = quantize(model, data, profile)
    assert sim.record.profile.name == profile
    np.testing.assert_allclose(sim(data), model(data), atol=0.02)


def test_fit_trains_a_sim_as_any_model():
    model = make("residual")
    x = inputs_for(model, 32)
    y = np.arange(32) % 3
    sim = quantize(model, x)
    sim.compile(tf_keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    losses = sim.fit(x, y, epochs=4, verbose=0, shuffle=False).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    loss, accuracy = sim.evaluate(x, y, verbose=0)
    assert np.isfinite(loss)
    assert 0.0 <= accuracy <= 1.0


def test_losses_by_output_name_are_those_of_the_model():
    model = make("dicts")
    x = inputs_for(model)
    sim = quantize(model, x)
    sim.compile("sgd", {"logit": "mse", "class": "mae"})
    y = {"logit": np.zeros((16, 1)), "class": np.zeros((16, 3))}
    history = sim.fit(x, y, verbose=0).history
    assert {"loss", "logit_loss", "class_loss"} <= set(history)


@pytest.mark.parametrize("batch_norm", ["fold", "train"])
def test_a_plan_from_another_sim_says_where_quantizers_stand(batch_norm):
    x = inputs = tf_keras.Input((6, 6, 3))
    x = tf_keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
    x = tf_keras.layers.BatchNormalization(name="norm")(x)
    x = tf_keras.layers.Dense(2, name="head")(tf_keras.layers.Flatten()(x))
    model, data = tf_keras.Model(inputs, x), np.random.default_rng(0).normal(size=(16, 6, 6, 3))
    mixed = eq.quantize(model, data, "qnn_w8a8", precision={"conv": "W4A8"}, progress=False)
    plan = type(mixed.record.plan).from_json(mixed.record.plan.to_json())
    same = eq.quantize(model, data, "qnn_w8a8", plan=plan, batch_norm=batch_norm, progress=False)
    assert same.record.plan == mixed.record.plan
    assert same.get_layer("conv").quantizers["kernel"].encoding.spec.bits == 4
    with pytest.raises(ProfileError, match="precision"):
        eq.quantize(model, data, plan=plan, precision={"conv": "W8A8"}, progress=False)
    other = tf_keras.Sequential([tf_keras.Input((6, 6, 3)), tf_keras.layers.Conv2D(4, 3)])
    with pytest.raises(ProfileError, match="conv/kernel"):
        eq.quantize(other, data, plan=plan, progress=False)
