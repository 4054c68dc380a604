"""Files of Keras 3 made to do harm: refused; no file of the machine appears, goes or is read."""

import contextlib
import json
import os
import sys
import zipfile

import h5py
import numpy as np
import pytest

import keras_edgeq as eq
from keras_edgeq.errors import EdgeqError, UnsupportedModelError
from tests.keras3.test_files import edited
from tests.prepare.test_untrusted_files import OUTSIDE, weights_with

keras = pytest.importorskip("keras", minversion="3.0")
K, ops = keras.layers, keras.ops
pytestmark = pytest.mark.filterwarnings("ignore")  # Keras 3 with NumPy 2, and what it skips


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    x = keras.Input((4,), name="x")
    model = keras.Model(x, ops.relu(K.Dense(3, activation="relu", name="hidden")(x)) + 1.0)
    for name in ("model.keras", "model.h5"):
        model.save(folder / name)
    return folder


def rewritten(source, target, change):
    """Return a copy of a saved model whose configuration went through `change`."""
    if source.suffix == ".keras":
        return edited(source, change).rename(target)
    target.write_bytes(source.read_bytes())
    with h5py.File(target, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)
    return target


def layer(**changes):
    """Return a change of the entry of the layer `hidden`."""

    def change(config):
        hidden = next(one for one in config["config"]["layers"] if one.get("name") == "hidden")
        hidden.update(changes)

    return change


def setting(**changes):
    """Return a change of the settings of the layer `hidden`."""

    def change(config):
        hidden = next(one for one in config["config"]["layers"] if one.get("name") == "hidden")
        hidden["config"].update(changes)

    return change


def added(**entry):
    """Return a change that puts another layer into the graph, behind `hidden`."""

    def change(config):
        layers = config["config"]["layers"]
        call = next(one for one in layers if one.get("name") != "x" and one["inbound_nodes"])
        config["config"]["layers"].append(
            {"name": "bad", "registered_name": None, "build_config": None,
             "inbound_nodes": call["inbound_nodes"], **entry,
             "config": {"name": "bad", **entry.get("config", {})}}
        )  # fmt: skip

    return change


def top(**changes):
    return lambda config: config.update(changes)


def thing(name, module, **config):
    return {"module": module, "class_name": name, "registered_name": name, "config": config}


def attacks(mark):
    """Return changes by name; `mark` is a file that an attack makes, or reads."""
    shell = f"touch {mark}"
    popen = thing("Popen", "subprocess", args=shell, shell=True)
    code = {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}}
    function = {"class_name": "function", "module": "builtins", "registered_name": "function"}
    return {
        "a command as a layer": layer(**popen),
        "a command as the model": top(**popen),
        "a command as an initializer": setting(kernel_initializer=popen),
        "a command as a regularizer": setting(kernel_regularizer=popen),
        "a command as a constraint": setting(bias_constraint=popen),
        "a command as a type": setting(dtype=popen),
        "a command as a shape": layer(build_config={"input_shape": popen}),
        "a command as an input": added(module="keras.layers", class_name="Dense",
                                       inbound_nodes=[{"args": [popen], "kwargs": {}}]),
        "a registered name of another class": layer(registered_name="getoutput",
                                                    module="subprocess"),
        "a layer's name in another module": layer(module="keras_bad.layers"),
        "a module that Keras imports": layer(module="keras_hub.bad", class_name="Bad"),
        "another one": layer(module="keras_nlp", class_name="Bad"),
        "Keras' own function for files": layer(module="keras.utils", class_name="get_file"),
        "where that is": layer(module="keras.src.utils.file_utils", class_name="get_file"),
        "a name with a path": layer(module="keras.layers", class_name="os.system"),
        "a module inside of Keras": layer(module="keras.src.layers.layer", class_name="inspect"),
        "a reader of models": layer(module="keras.models", class_name="load_model"),
        "a builtin as activation": setting(activation={**function, "config": "eval"}),
        "a system call as activation": setting(
            activation={**function, "module": "os", "config": "system"}
        ),
        "a reader as activation": setting(activation={**function, "config": "deserialize"}),
        "a lambda as activation": setting(activation=code),
        "a lambda deep inside": setting(anything=[{"deep": [code]}]),
        "a Lambda layer": added(module="keras.layers", class_name="Lambda",
                                config={"function": code}),
        "a Lambda layer with a name": added(module="keras.src.layers.core.lambda_layer",
                                            class_name="Lambda", config={"function": "x"}),
        "a SavedModel as a layer": added(module="keras.layers", class_name="TFSMLayer",
                                         config={"filepath": str(mark)}),
        "a pickled module": added(module="keras.layers", class_name="TorchModuleWrapper",
                                  config={"module": "gASVIQAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU"}),
        "a function of JAX": added(module="keras.layers", class_name="JaxLayer",
                                   config={"call_fn": code}),
        "words from a file": added(module="keras.layers", class_name="StringLookup",
                                   config={"vocabulary": str(mark)}),
        "numbers from a file": added(module="keras.layers", class_name="IntegerLookup",
                                     config={"vocabulary": str(mark)}),
        "words of texts from a file": added(module="keras.layers", class_name="TextVectorization",
                                            config={"vocabulary": str(mark)}),
        "weights of words from a file": added(
            module="keras.layers", class_name="TextVectorization",
            config={"vocabulary": ["a"], "idf_weights": str(mark), "output_mode": "tf_idf"},
        ),
        "a type of another module": setting(
            spec={"class_name": "__typespec__", "spec_name": "Popen", "module": "subprocess",
                  "registered_name": None, "config": [shell]}
        ),
        "an operation that calls functions": added(
            module="keras.src.ops.core", class_name="Map", config={"function": popen}
        ),
        "a class that is a list": layer(class_name=["Dense"]),
        "a module that is a list": layer(module=["keras.layers"]),
        "a registered name that is a list": layer(registered_name=["Dense"], class_name="Bad"),
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("attack", attacks("x"))
def test_an_attack_is_refused_before_keras_reads_the_file(
    saved, tmp_path, monkeypatch, attack, suffix
):
    keep = tmp_path / "keep.txt"
    keep.write_text("dear")
    modules = tmp_path / "modules"
    modules.mkdir()
    for name in ("keras_bad", "keras_hub", "keras_nlp"):
        (modules / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(modules)
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: pytest.fail("was read"))
    for mark in (keep, tmp_path / "new"):
        path = rewritten(saved / f"model{suffix}", tmp_path / f"bad{suffix}", attacks(mark)[attack])
        before = sorted(os.listdir(tmp_path))
        with pytest.raises(UnsupportedModelError, match=r"only compute|Python code"):
            eq.load_model(path)
        assert sorted(os.listdir(tmp_path)) == before
        assert keep.read_text() == "dear"
    assert not {"keras_bad", "keras_hub", "keras_nlp"} & set(sys.modules)


def test_the_attacks_work_on_keras_itself(saved, tmp_path, monkeypatch):
    """Without this the tests above could pass on files that harm nobody."""
    ran = tmp_path / "ran"
    (tmp_path / "keras_hub.py").write_text(f"open({str(ran)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    change = layer(module="keras_hub", class_name="Bad")
    path = rewritten(saved / "model.keras", tmp_path / "bad.keras", change)
    with pytest.raises((TypeError, ValueError)):
        keras.models.load_model(path)
    assert ran.exists()
    sys.modules.pop("keras_hub", None)

    words = tmp_path / "secret.txt"
    words.write_text("first\nsecond")
    x = keras.Input((1,), dtype="string")
    keras.Model(x, K.StringLookup(vocabulary=["a", "b"])(x)).save(tmp_path / "words.keras")

    def steal(config):
        config["config"]["layers"][1]["config"]["vocabulary"] = str(words)

    path = edited(tmp_path / "words.keras", steal)
    with pytest.raises(UnsupportedModelError, match="reads its words from a file"):
        eq.load_model(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("outside", OUTSIDE)
def test_weights_that_lie_outside_the_file_are_refused(saved, tmp_path, outside, suffix):
    path = tmp_path / f"bad{suffix}"
    if suffix == ".keras":
        with zipfile.ZipFile(saved / "model.keras") as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                bad = name == "model.weights.h5"
                new.writestr(name, weights_with(OUTSIDE[outside]) if bad else old.read(name))
    else:
        path.write_bytes((saved / "model.h5").read_bytes())
        with h5py.File(path, "r+") as file:
            OUTSIDE[outside](file)
    with pytest.raises(EdgeqError, match=r"link|file|filter"):
        eq.load_model(path)


def test_names_in_the_archive_reach_nothing_outside(saved, tmp_path):
    path = tmp_path / "inner" / "bad.keras"
    path.parent.mkdir()
    path.write_bytes((saved / "model.keras").read_bytes())
    with zipfile.ZipFile(path, "a") as file:
        for name in ("../evil.txt", "assets/../../evil.txt", f"{tmp_path}/evil.txt"):
            file.writestr(name, "x")
    before = sorted(os.listdir(tmp_path)), sorted(os.listdir(tmp_path.parent))
    with contextlib.suppress(EdgeqError):
        eq.load_model(path)
    assert (sorted(os.listdir(tmp_path)), sorted(os.listdir(tmp_path.parent))) == before


HUGE = {
    "weights": layer(config={"name": "hidden", "units": 10**9, "activation": "relu"}),
    "a table": added(module="keras.layers", class_name="EinsumDense",
                     config={"equation": "ab,bc->ac", "output_shape": [10**10]}),
}  # fmt: skip


@pytest.mark.parametrize("huge", HUGE)
def test_layers_that_the_file_has_no_values_for_are_not_allocated(saved, tmp_path, huge):
    path = rewritten(saved / "model.keras", tmp_path / "huge.keras", HUGE[huge])
    with pytest.raises(UnsupportedModelError, match="no values"):
        eq.load_model(path)


def test_a_model_of_huge_tensors_is_not_computed_to_compare_it(tmp_path):
    x = keras.Input((4,))
    keras.Model(x, K.RepeatVector(2, name="many")(K.Dense(2)(x))).save(tmp_path / "model.keras")

    def change(config):
        many = next(one for one in config["config"]["layers"] if one["name"] == "many")
        many["config"]["n"] = 10**10

    path = edited(tmp_path / "model.keras", change)
    with pytest.warns(UserWarning, match="not compared.*'many'"):
        model = eq.load_model(path)
    assert model.output_shape == (None, 10**10, 2)


@pytest.mark.parametrize("version", ["2.15.0", "3.0.0", "4.0.0", "", None, "x"])
def test_a_false_version_opens_no_other_way(saved, tmp_path, version):
    """Each format of Keras is held against its own names, whatever the file says it is."""
    path = tmp_path / "bad.keras"
    bad = edited(saved / "model.keras", attacks(tmp_path / "new")["a command as a layer"])
    with zipfile.ZipFile(bad) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            metadata = json.dumps({"keras_version": version}).encode()
            new.writestr(name, metadata if name == "metadata.json" else old.read(name))
    with pytest.raises(EdgeqError):
        eq.load_model(path)
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_trusted_runs_what_it_holds(saved, tmp_path):
    x = keras.Input((4,))
    model = keras.Model(x, K.Lambda(lambda v: v * 3.0)(x))
    model.save(tmp_path / "code.keras")
    loaded = eq.load_model(tmp_path / "code.keras", allow_lambda=True)
    np.testing.assert_array_equal(loaded(np.ones((1, 4), np.float32)), np.full((1, 4), 3.0))
