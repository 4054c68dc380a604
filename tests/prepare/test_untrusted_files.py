"""Files made to do harm: refused, and no file of the machine appears, goes or is read."""

import contextlib
import io
import json
import os
import sys
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import EdgeqError, UnsupportedModelError
from keras_edgeq.files import json_text
from keras_edgeq.prepare import allowed

L = tf_keras.layers
LOADERS = {"load_model": eq.load_model, "load_sim": eq.load_sim}


def model():
    x = inputs = tf_keras.Input((4,), name="x")
    x = L.Dense(3, activation="relu", name="hidden")(x)
    return tf_keras.Model(inputs, tf.nn.relu(x) + 1.0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for name in ("model.keras", "model.h5"):
        model().save(folder / name)
    model().save(folder / "saved_model", save_format="tf")
    return folder


def rewrite(source, target, change, entries=()):
    """Write a copy of a saved model whose configuration went through `change`."""
    if source.suffix == ".h5":
        target.write_bytes(source.read_bytes())
        with h5py.File(target, "r+") as file:
            config = change(json.loads(file.attrs["model_config"]))
            file.attrs["model_config"] = json.dumps(config)
        return target
    with zipfile.ZipFile(source) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    parts["config.json"] = json.dumps(change(json.loads(parts["config.json"]))).encode()
    with zipfile.ZipFile(target, "w") as file:
        for name, content in {**parts, **dict(entries)}.items():
            file.writestr(name, content)
    return target


def layer_of(entry, *call):
    """Return a change that puts a layer into the graph, called on `call`."""

    def change(config):
        node = [["_CONSTANT_VALUE", -1, part, {}] for part in call] or [["hidden", 0, 0, {}]]
        config["config"]["layers"].append(
            {"name": "bad", "inbound_nodes": [node], "config": {"name": "bad"}, **entry}
        )
        return config

    return change


def operation(symbol, *call, kind="TFOpLambda", **keywords):
    """Return a change that calls a function of TensorFlow on constants and on a layer's output."""

    def change(config):
        node = ["_CONSTANT_VALUE", -1, call[0], {**keywords, "extra": ["hidden", 0, 0]}]
        config["config"]["layers"].append({
            "class_name": kind, "module": "keras.layers", "registered_name": kind,
            "name": "bad", "inbound_nodes": [node], "config": {"name": "bad", "function": symbol},
        })  # fmt: skip
        return config

    return change


def hidden(**changes):
    """Return a change of the configuration of the layer `hidden`."""

    def change(config):
        layers = config["config"]["layers"]
        next(one for one in layers if one["config"]["name"] == "hidden")["config"].update(changes)
        return config

    return change


def top(**changes):
    return lambda config: {**config, **changes}


def attacks(mark):
    """Return changes by name; each makes or removes `mark` where the file is trusted."""
    shell, gone = f"touch {mark}", str(mark)
    function = {"class_name": "function", "module": "os", "config": "system"}
    return {
        "a shell command as a layer": layer_of(
            {"module": "subprocess", "class_name": "getoutput", "config": "Custom>Adam"}, shell
        ),
        "a registered class with another name": layer_of(
            {"module": "subprocess", "class_name": "Custom>Adadelta",
             "registered_name": "getoutput", "config": {}}, shell,
        ),
        "the name of a Keras layer in another module": layer_of(
            {"module": "subprocess", "class_name": "Dense", "registered_name": "getoutput"}, shell
        ),
        "an alias of Keras' own modules": layer_of(
            {"module": "keras.utils", "class_name": "get_file", "registered_name": None}, shell
        ),
        "a module that only looks like Keras": layer_of(
            {"module": "keras_bad.layers", "class_name": "Dense", "registered_name": "Dense"}
        ),
        "a module for the whole model": top(module="bad_module", class_name="Model"),
        "a class of the standard library": top(module="subprocess", class_name="Popen"),
        "a function as an activation": hidden(activation=function),
        "a function of TensorFlow as an activation": hidden(
            activation={**function, "module": "tensorflow.io.gfile", "config": "rmtree"}
        ),
        "an object as an initializer": hidden(
            kernel_initializer={"module": "subprocess", "class_name": "Popen",
                                "config": {"args": shell, "shell": True}, "registered_name": None}
        ),
        "a lambda in a dictionary": hidden(
            anything={"deep": [{"class_name": "__lambda__", "config": {"value": "x"}}]}
        ),
        "a type of another module": hidden(
            spec={"class_name": "__typespec__", "spec_name": "Popen", "module": "subprocess",
                  "registered_name": None, "config": [shell]}
        ),
        "a removal of a folder": operation("io.gfile.rmtree", gone),
        "a file that is written": operation("io.write_file", gone, contents="x"),
        "a copy of a file": operation("io.gfile.copy", "/etc/hostname", dst=gone),
        "a kernel that writes": operation("raw_ops.WriteFile", gone, contents="x"),
        "an old name of a function": operation("compat.v1.gfile.DeleteRecursively", gone),
        "a library of kernels": operation("load_op_library", gone),
        "a Python function in a graph": operation("py_function", gone),
        "a print into a file": operation("print", "x", output_stream=f"file://{gone}"),
        "a slice that is none": operation("io.gfile.rmtree", gone, kind="SlicingOpLambda"),
        "a reader of objects": operation("keras.losses.deserialize", "x"),
        "a file from the net": operation("keras.utils.get_file", "x", origin=f"file://{gone}"),
        "a method by name": layer_of(
            {"class_name": "ClassMethod", "module": "keras.layers", "registered_name": None,
             "config": {"name": "bad", "cls_symbol": "io.gfile.GFile", "method_name": "write"}}
        ),
        "a graph of TensorFlow 1": layer_of(
            {"class_name": "TensorFlowOpLayer", "module": "keras.layers", "registered_name": None,
             "config": {"name": "bad", "node_def": "{}", "constants": {}}}
        ),
        "words from a file": layer_of(
            {"class_name": "StringLookup", "module": "keras.layers", "registered_name": None,
             "config": {"name": "bad", "vocabulary": "/etc/hostname"}}
        ),
        "a class that is a list": layer_of({"class_name": ["Dense"], "module": "keras.layers"}),
    }  # fmt: skip


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("attack", attacks("x"))
def test_an_attack_in_a_configuration_is_refused_and_does_nothing(
    saved, tmp_path, monkeypatch, attack, suffix, loader
):
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "dear.txt").write_text("dear")
    bad = tmp_path / "modules"
    bad.mkdir()
    for name in ("bad_module", "keras_bad"):
        (bad / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(bad)
    for mark in (keep, tmp_path / "new"):
        change = attacks(mark)[attack]
        path = rewrite(saved / f"model{suffix}", tmp_path / f"bad{suffix}", change)
        before = sorted(os.listdir(tmp_path))
        with pytest.raises(EdgeqError, match=r"only compute|code|constants|damaged"):
            LOADERS[loader](path)
        assert sorted(os.listdir(tmp_path)) == before
        assert (keep / "dear.txt").read_text() == "dear"
    assert not {"bad_module", "keras_bad"} & set(sys.modules)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_the_attack_works_where_a_file_is_trusted(saved, tmp_path, suffix):
    """Without this the tests above could pass on files that harm nobody."""
    folder = tmp_path / "folder"
    folder.mkdir()

    def change(config):
        config = operation("io.gfile.rmtree", str(folder))(config)
        del config["config"]["layers"][-1]["inbound_nodes"][0][3]["extra"]
        return config

    path = rewrite(saved / f"model{suffix}", tmp_path / f"bad{suffix}", change)
    with pytest.raises(UnsupportedModelError, match=r"only compute|constants"):
        eq.load_model(path)
    assert folder.exists()
    with contextlib.suppress(
        ValueError, TypeError, AttributeError
    ):  # Keras' own error, after the harm
        tf_keras.models.load_model(path, compile=False)
    assert not folder.exists()


def test_what_a_model_is_called_on_is_never_made_of_constants_only(saved, tmp_path):
    entry = {"class_name": "TFOpLambda", "module": "keras.layers", "registered_name": None,
             "config": {"name": "bad", "function": "zeros"}}  # fmt: skip
    path = rewrite(saved / "model.keras", tmp_path / "m.keras", layer_of(entry, [2**40]))
    with pytest.raises(UnsupportedModelError, match="constants"):
        eq.load_model(path)


@pytest.mark.parametrize("training", [False, True])
def test_a_loss_of_ones_own_stays_in_the_file_of_a_model(saved, tmp_path, training):
    bad = {"class_name": "function", "module": "os", "config": "system", "registered_name": "x"}
    path = rewrite(saved / "model.keras", tmp_path / "m.keras", top(compile_config={"loss": bad}))
    if training:
        with pytest.raises(EdgeqError, match=r"os\.system"):
            eq.load_sim(path)
    else:
        assert eq.load_model(path).built


def test_what_an_h5_file_trains_with_is_checked_where_it_is_loaded(saved, tmp_path):
    path = tmp_path / "m.h5"
    path.write_bytes((saved / "model.h5").read_bytes())
    bad = {"module": "bad_module", "class_name": "Loss", "config": "Custom>Adam"}
    with h5py.File(path, "r+") as file:
        file.attrs["training_config"] = json.dumps({"loss": bad})
    with pytest.raises(EdgeqError, match="Custom>Adam"):
        eq.load_sim(path)
    assert eq.load_model(path).built


def test_own_objects_are_trusted_by_name_and_by_registration(tmp_path):
    @tf_keras.utils.register_keras_serializable("untrusted_files")
    class Half(L.Layer):
        def call(self, inputs):
            return inputs * 0.5

    def double(x):
        return x * 2.0

    x = tf_keras.Input((4,))
    tf_keras.Model(x, Half()(L.Dense(2, activation=double)(x))).save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError, match=r"double.*custom_objects"):
        eq.load_model(tmp_path / "m.keras")
    assert eq.load_model(tmp_path / "m.keras", custom_objects={"double": double}).built
    with tf_keras.utils.custom_object_scope({"double": double}):
        assert eq.load_model(tmp_path / "m.keras").built


def weights_with(change):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        change(file)
    return content.getvalue()


def external(secret):
    def change(file):
        group = file.create_group("layers/dense/vars")
        place = h5py.h5s.create_simple((4, 3))
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_external(str(secret).encode(), 0, 48)
        h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, place, dcpl=plan)

    return change


def virtual(secret):
    def change(file):
        layout = h5py.VirtualLayout(shape=(4, 3), dtype="f4")
        layout[:] = h5py.VirtualSource(str(secret), "data", shape=(4, 3))
        file.create_virtual_dataset("layers/dense/vars/0", layout)

    return change


def linked(kind):
    def change(file):
        file.create_group("layers/dense/vars")["0"] = kind

    return change


def filtered(file):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((4, 3))
    plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (0,))  # blosc, a plug-in
    group = file.create_group("layers/dense/vars")
    place = h5py.h5s.create_simple((4, 3))
    h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, place, dcpl=plan)


OUTSIDE = {
    "external storage": external("/etc/hostname"),
    "a virtual data set": virtual("/etc/hostname"),
    "an external link": linked(h5py.ExternalLink("/tmp/other.h5", "/data")),
    "a soft link": linked(h5py.SoftLink("/elsewhere")),
    "a filter from a plug-in": filtered,
}


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("loader", LOADERS)
def test_weights_that_lie_outside_the_file_are_refused(saved, tmp_path, outside, suffix, loader):
    path = tmp_path / f"bad{suffix}"
    if suffix == ".keras":
        content = weights_with(OUTSIDE[outside])
        rewrite(saved / "model.keras", path, lambda c: c, {"model.weights.h5": content})
    else:
        path.write_bytes((saved / "model.h5").read_bytes())
        with h5py.File(path, "r+") as file:
            OUTSIDE[outside](file)
    with pytest.raises(EdgeqError, match=r"link|file|filter"):
        LOADERS[loader](path)


def test_a_local_file_never_becomes_weights(saved, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(12, dtype=np.float32).tobytes())
    path = tmp_path / "m.h5"
    path.write_bytes((saved / "model.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        kernel = next(k for k in _datasets(file) if file[k].shape == (4, 3))
        del file[kernel]
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_external(str(secret).encode(), 0, 48)
        place = h5py.h5s.create_simple((4, 3))
        h5py.h5d.create(file.id, kernel.encode(), h5py.h5t.IEEE_F32LE, place, dcpl=plan)
    # HDF5 looks beside the file: this is what Keras would load.
    stolen = tf_keras.models.load_model(path, compile=False).get_weights()[0]
    np.testing.assert_array_equal(stolen.ravel(), np.arange(12))
    with pytest.raises(UnsupportedModelError, match="another file"):
        eq.load_model(path)


def _datasets(file):
    found = []
    file.visititems(lambda k, item: found.append(k) if isinstance(item, h5py.Dataset) else None)
    return found


def many_objects(config):
    return [{}] * 2**20


def deep_lists(config):
    for _ in range(3000):
        config = [config]
    return config


@pytest.mark.parametrize("change", [many_objects, deep_lists])
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_configuration_is_bounded_before_it_is_unpacked(saved, tmp_path, change, name):
    path = tmp_path / name
    if name == "model.keras":
        with zipfile.ZipFile(saved / name) as source, zipfile.ZipFile(path, "w") as file:
            for part in source.namelist():
                content = source.read(part)
                if part == "config.json":
                    content = _text(change(None)).encode()
                file.writestr(part, content)
    else:
        path.write_bytes((saved / name).read_bytes())
        with h5py.File(path, "r+") as file:
            del file.attrs["model_config"]
            text = _text(change(None))
            kind = h5py.string_dtype()
            file.attrs.create("model_config", text if len(text) < 60_000 else text[:10], dtype=kind)
    tracemalloc.start()
    with pytest.raises(UnsupportedModelError, match="damaged"):
        eq.load_model(path)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def _text(config):
    if isinstance(config, list) and len(config) > 1:
        return "[" + "{}," * (len(config) - 1) + "{}]"
    return "[" * 3000 + "]" * 3000


def test_a_zip_that_unpacks_to_much_is_not_unpacked(saved, tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("metadata.json", '{"keras_version": "2.21.0"}')
        file.writestr("config.json", "[" + "{}," * 2**25 + "{}]")
    tracemalloc.start()
    with pytest.raises(UnsupportedModelError, match="unpacks"):
        eq.load_model(tmp_path / "m.keras")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_named_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError, match="regular file"):
        eq.load_model(tmp_path / "m.keras")


def test_json_says_how_much_of_it_there_is():
    with pytest.raises(ValueError, match="objects and lists"):
        json_text.parse("[" + "{}," * json_text.MOST_PARTS + "{}]")
    with pytest.raises(ValueError, match="nested"):
        json_text.parse("[" * 100_000 + "]" * 100_000)
    assert json_text.parse('{"a": [1, 2.5, "x"]}') == {"a": [1, 2.5, "x"]}


@pytest.mark.parametrize(
    ("symbol", "computes"),
    [
        ("math.add", True), ("nn.relu6", True), ("__operators__.getitem", True),
        ("compat.v1.image.resize_bilinear", True), ("reshape", True), ("raw_ops.Relu", True),
        ("experimental.numpy.add", True), ("keras.activations.relu", True),
        ("keras.backend.dot", True), ("signal.stft", True), ("linalg.matmul", True),
        ("io.read_file", False), ("raw_ops.ReadFile", False), ("raw_ops.WriteFile", False),
        ("raw_ops.ImmutableConst", False), ("raw_ops.Abort", False), ("print", False),
        ("keras.losses.get", False), ("keras.utils.get_file", False), ("while_loop", False),
        ("nn.fixed_unigram_candidate_sampler", False), ("saved_model.load", False),
        ("config.run_functions_eagerly", False), ("keras.backend.clear_session", False),
        ("compat.v1.io.gfile.rmtree", False), ("nn", False), ("", False), ("nn.re lu", False),
        ("experimental.numpy.experimental_enable_numpy_behavior", False), ("None", False),
    ],
)  # fmt: skip
def test_operations_that_only_compute_are_told_from_others(symbol, computes):
    assert allowed.is_operation(symbol) is computes


class Program(tf_keras.layers.Layer):
    """Runs an operation of TensorFlow whenever it is called."""

    def __init__(self, act, **options):
        super().__init__(**options)
        self.act = act

    def call(self, inputs):
        with tf.control_dependencies([self.act()]):
            return tf.identity(inputs)


@pytest.mark.parametrize("kind", ["WriteFile", "ReadFile", "SaveV2", "PrintV2"])
def test_a_saved_model_whose_graph_reaches_files_is_refused(tmp_path, kind):
    place = str(tmp_path / "written")
    act = {
        "WriteFile": lambda: tf.io.write_file(place, "x"),
        "ReadFile": lambda: tf.io.read_file("/etc/hostname"),
        "SaveV2": lambda: tf.raw_ops.SaveV2(
            prefix=place, tensor_names=["a"], shape_and_slices=[""], tensors=[tf.zeros(1)]
        ),
        "PrintV2": lambda: tf.print("x", output_stream=f"file://{place}"),
    }[kind]
    x = tf_keras.Input((4,))
    tf_keras.Model(x, Program(act)(L.Dense(2)(x))).save(tmp_path / "sm", save_format="tf")
    for file in tmp_path.glob("written*"):
        file.unlink()
    for load in LOADERS.values():
        with pytest.raises(EdgeqError, match=f"{kind}|Program"):
            load(tmp_path / "sm")
        with pytest.raises(EdgeqError, match=kind):
            load(tmp_path / "sm", custom_objects={"Program": Program})
    assert not list(tmp_path.glob("written*"))


@pytest.mark.slow
def test_saved_models_of_ordinary_layers_load(tmp_path):
    x = tf_keras.Input((6, 4))
    y = L.LSTM(3, return_sequences=True)(L.Dropout(0.1)(x))
    y = L.GRU(2)(L.LayerNormalization()(y))
    built = tf_keras.Model(x, L.Dense(2)(y))
    built.compile("adam", "mse", metrics=["mae"])
    built.fit(np.zeros((4, 6, 4)), np.zeros((4, 2)), verbose=0)
    built.save(tmp_path / "sm", save_format="tf")
    assert eq.load_model(tmp_path / "sm").built


def test_a_saved_model_with_an_adapted_layer_loads(tmp_path):
    norm = L.Normalization()
    norm.adapt(np.random.default_rng(0).normal(size=(32, 4)))
    built = tf_keras.Sequential([tf_keras.Input((4,)), norm, L.Dense(2)])
    built.save(tmp_path / "sm", save_format="tf")
    x = np.ones((3, 4), np.float32)
    np.testing.assert_allclose(eq.load_model(tmp_path / "sm")(x), built(x), rtol=1e-6)


def test_another_form_of_the_graph_is_refused(saved, tmp_path):
    folder = tmp_path / "sm"
    model().save(folder, save_format="tf")
    (folder / "saved_model.pbtxt").write_text("")
    with pytest.raises(UnsupportedModelError, match="pbtxt"):
        eq.load_model(folder)
