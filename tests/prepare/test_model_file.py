import json
import os
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.prepare.graph_check import check_graph
from tests.short import short

L = tf_keras.layers
FILES = ["model.keras", "model.h5", "saved_model"]


def save(model, path):
    model.save(path, save_format=None if path.suffix else "tf")
    return path


def dense(*more):
    tf_keras.utils.set_random_seed(0)  # some weights leave a ReLU silent
    return tf_keras.Sequential([tf_keras.Input((4,)), L.Dense(3, activation="relu"), *more])


@pytest.mark.parametrize("name", FILES)
def test_each_format_comes_back_with_its_weights_and_names(tmp_path, name):
    x = tf_keras.Input((4,), name="x")
    model = tf_keras.Model(x, {"a": L.Dense(3)(x), "b": L.Dense(2)(x)})
    model.compile("adam", "mse")
    loaded = eq.load_model(save(model, tmp_path / name))
    for wanted, got in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(wanted, got)
    assert loaded.input_names == ["x"]


def inner_lambda():
    inner = tf_keras.Sequential([tf_keras.Input((3,)), L.Lambda(lambda t: t + 1.0, name="code")])
    return dense(inner)


def wrapped_lambda():
    x = tf_keras.Input((5, 4))
    return tf_keras.Model(x, L.TimeDistributed(L.Lambda(lambda t: t + 1.0, name="code"))(x))


CODE = {
    "plain": lambda: dense(L.Lambda(lambda t: t + 1.0, name="code")),
    "nested": inner_lambda,
    "wrapped": wrapped_lambda,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", CODE)
def test_python_code_is_refused_by_name_and_loaded_when_allowed(tmp_path, name, kind):
    path = save(CODE[kind](), tmp_path / name)
    with pytest.raises(UnsupportedModelError, match=r"'code'.*--allow-lambda"):
        eq.load_model(path)
    assert eq.load_model(path, allow_lambda=True).built


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_lambda_as_activation_is_code(tmp_path):
    path = save(dense(L.Dense(2, activation=lambda t: t * 2.0, name="code")), tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError, match="'code'"):
        eq.load_model(path)


def test_refusal_comes_before_the_code_runs(tmp_path):
    mark = tmp_path / "ran"
    layer = L.Lambda(lambda t, path=str(mark): (os.mkdir(path), t)[1], name="code")
    model = dense(layer)
    mark.rmdir()
    paths = [save(model, tmp_path / name) for name in FILES[:2]]
    for path in paths:
        with pytest.raises(UnsupportedModelError, match="code"):
            eq.load_model(path)
    assert not mark.exists()


@pytest.mark.parametrize(("module", "name"), [("os", "system"), ("builtins", "exec")])
def test_a_keras_file_that_names_a_function_elsewhere_is_refused(tmp_path, module, name):
    path = save(dense(), tmp_path / "model.keras")
    with zipfile.ZipFile(path) as file:
        parts = {part: file.read(part) for part in file.namelist()}
    config = json.loads(parts["config.json"])
    function = {"module": module, "class_name": "function", "config": name}
    config["config"]["layers"][1]["config"]["activation"] = function
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as file:
        for part, content in parts.items():
            file.writestr(part, content)
    with pytest.raises(UnsupportedModelError, match="only compute"):
        eq.load_model(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras 3 with NumPy 2
def test_files_of_keras_3_are_told_apart(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    assert isinstance(eq.load_model(tmp_path / "model.keras"), tf_keras.Model)
    with pytest.raises(eq.EdgeqError, match=r"Keras 3.*tf_keras"):
        eq.load_sim(tmp_path / "model.keras")


def test_weights_alone_are_no_model(tmp_path):
    dense().save_weights(tmp_path / "w.h5")
    with pytest.raises(UnsupportedModelError, match="weights"):
        eq.load_model(tmp_path / "w.h5")


def test_a_saved_model_without_keras_is_refused(tmp_path):
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4])])
        def __call__(self, x):
            return x

    tf.saved_model.save(Module(), str(tmp_path / "plain"))
    with pytest.raises(UnsupportedModelError, match="without Keras layers"):
        eq.load_model(tmp_path / "plain")
    with pytest.raises(UnsupportedModelError, match=r"saved_model\.pb"):
        eq.load_model(tmp_path)


@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("cut", [0, 10, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, name, cut):
    path = save(dense(), tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: cut if isinstance(cut, int) else int(cut * len(content))])
    with pytest.raises(UnsupportedModelError, match=name):
        eq.load_model(path)


@pytest.mark.parametrize("name", FILES[:2])
def test_a_file_with_damage_inside_is_an_error_that_names_it(tmp_path, name):
    path = save(dense(), tmp_path / name)
    content = bytearray(path.read_bytes())
    if name == "model.h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = '{"class_name": "Sequential", "config": {'
    else:
        content[300:900] = bytes(600)
        path.write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=name):
        eq.load_model(path)


def test_a_layer_of_ones_own_needs_custom_objects(tmp_path):
    class Half(L.Layer):
        def call(self, inputs):
            return inputs * 0.5

    path = save(dense(Half()), tmp_path / "model.h5")
    with pytest.raises(UnsupportedModelError, match="custom_objects"):
        eq.load_model(path)
    assert eq.load_model(path, custom_objects={"Half": Half}).built


def test_missing_files_sims_and_subclassed_models_are_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="No such model"):
        eq.load_model(tmp_path / "no.keras")
    sim = eq.quantize(dense(), np.ones((4, 4)), progress=False)
    with pytest.raises(UnsupportedModelError, match="sim already"):
        eq.load_model(save(sim, tmp_path / "sim.keras"))


def encoder():
    x = tf_keras.Input((8, 8, 3))
    y = L.Conv2D(4, 3, activation="relu", name="conv")(x)
    return tf_keras.Model(x, L.GlobalAveragePooling2D()(y), name="encoder")


def transfer():
    """Augmentation, a nested base and a new head: how models are fine-tuned."""
    augment = tf_keras.Sequential([L.RandomFlip(), L.RandomRotation(0.1)], name="augment")
    x = inputs = tf_keras.Input((8, 8, 3))
    y = encoder()(L.Rescaling(1 / 127.5, -1.0)(augment(x)), training=False)
    return tf_keras.Model(inputs, L.Dense(2)(L.Dropout(0.2)(y)))


def siamese():
    one, other, base = tf_keras.Input((8, 8, 3)), tf_keras.Input((8, 8, 3)), encoder()
    return tf_keras.Model([one, other], L.Subtract()([base(one), base(other)]))


def shared_layers():
    one, other, dense = tf_keras.Input((4,)), tf_keras.Input((4,)), L.Dense(3)
    return tf_keras.Model([one, other], L.Concatenate()([dense(one), dense(other)]))


def called_on_itself():
    inner = tf_keras.Sequential([tf_keras.Input((4,)), L.Dense(4)], name="inner")
    x = tf_keras.Input((4,))
    return tf_keras.Model(x, inner(inner(x)))


def lazily_built():
    inner = tf_keras.Sequential([L.Dense(4), L.ReLU()], name="inner")
    x = tf_keras.Input((4,))
    return tf_keras.Model(x, inner(inner(x)) + 1.0)


def nested_twice():
    middle_in = tf_keras.Input((8, 8, 3))
    middle = tf_keras.Model(middle_in, L.Dense(3)(encoder()(middle_in)), name="middle")
    x = tf_keras.Input((8, 8, 3))
    return tf_keras.Model(x, {"a": middle(x), "b": middle(x * 2.0)})


def several_outputs():
    x = tf_keras.Input((4,))
    inner = tf_keras.Model(x, [L.Dense(2)(x), L.Dense(3)(x)], name="inner")
    x = tf_keras.Input((4,))
    return tf_keras.Model(x, L.Concatenate()(inner(x)))


def in_sequential():
    return tf_keras.Sequential([encoder(), L.Dense(2)])


def in_sequential_with_input():
    return tf_keras.Sequential([tf_keras.Input((8, 8, 3)), encoder(), L.Dense(2)])


def called_before_it_was_nested():
    base = encoder()
    base(tf_keras.Input((8, 8, 3)))
    x = tf_keras.Input((8, 8, 3))
    return tf_keras.Model(x, base(x))


def cut_out_of_another():
    whole = transfer()
    return tf_keras.Model(whole.input, whole.layers[-2].output)


def wrapped():
    x = tf_keras.Input((3, 8, 8, 3))
    return tf_keras.Model(x, L.TimeDistributed(encoder())(x))


NESTED = [
    transfer, siamese, shared_layers, called_on_itself, lazily_built, nested_twice, several_outputs,
    in_sequential, in_sequential_with_input, called_before_it_was_nested, cut_out_of_another,
    wrapped,
]  # fmt: skip


@pytest.mark.parametrize("name", short(FILES, *FILES[:2]))
@pytest.mark.parametrize("build", NESTED, ids=lambda build: build.__name__)
def test_models_in_models_load_and_compute_the_same(tmp_path, build, name):
    model = build()
    data = [np.random.default_rng(0).random((2, *x.shape[1:])).astype("f") for x in model.inputs]
    loaded = eq.load_model(save(model, tmp_path / name))
    feed = data if len(data) > 1 else data[0]
    wanted, got = (tf.nest.flatten(m(feed, training=False)) for m in (model, loaded))
    for one, other in zip(wanted, got, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def chain(length):
    """Return the configuration of a chain of layers, the last first."""
    entries = [
        {"class_name": "ReLU", "name": f"r{i}", "config": {"name": f"r{i}"},
         "inbound_nodes": [[[f"r{i - 1}" if i else "x", 0, 0, {}]]]}
        for i in range(length)
    ]  # fmt: skip
    entry = {"class_name": "InputLayer", "name": "x", "config": {"name": "x"}, "inbound_nodes": []}
    return {"layers": [entry, *reversed(entries)]}


def test_a_model_too_deep_for_keras_is_said_to_be():
    check_graph(Path("m"), chain(900))
    with pytest.raises(UnsupportedModelError, match="5001 layers one behind the other"):
        check_graph(Path("m"), chain(5000))


def test_a_call_that_no_layer_makes_is_damage():
    config = chain(3)
    config["layers"][1]["inbound_nodes"] = [[["r9", 0, 0, {}]]]
    with pytest.raises(UnsupportedModelError, match=r"constants|never made"):
        check_graph(Path("m"), config)
    config = chain(3)
    config["layers"][-1]["inbound_nodes"] = [[["r2", 0, 0, {}]]]  # a circle
    with pytest.raises(UnsupportedModelError, match="never made"):
        check_graph(Path("m"), config)
