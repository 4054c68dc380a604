"""Files that Keras 3 saved are loaded, and held against what is known to only compute."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import keras_edgeq as eq
from keras_edgeq.errors import UnsupportedModelError
from tests.keras3.test_from_keras3 import MODELS, images, like_trained

keras = pytest.importorskip("keras", minversion="3.0")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras 3 with NumPy 2


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("name", ["transfer", "many_layers", "sequences"])
def test_a_file_is_the_model_that_was_saved(name, suffix, tmp_path):
    model = like_trained(MODELS[name]())
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    (data,) = images(model)
    loaded = eq.load_model(path)
    wanted = model(data, training=False)
    np.testing.assert_allclose(loaded(data, training=False), wanted, atol=1e-5)


def test_the_command_line_takes_one(tmp_path):
    model = like_trained(MODELS["transfer"]())
    model.save(tmp_path / "model.keras")
    run = subprocess.run(
        [sys.executable, "-m", "keras_edgeq", "inspect", str(tmp_path / "model.keras")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "base/conv2d" in run.stdout


def edited(path, change):
    """Return a copy of a `.keras` file with another configuration."""
    made = path.with_name("edited.keras")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for item in old.namelist():
            content = old.read(item)
            if item == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            new.writestr(item, content)
    return made


def _other_module(config):
    config["config"]["layers"][1].update(module="os", class_name="system")


def _function(config):
    layer = config["config"]["layers"][1]["config"]
    layer["activation"] = {"module": "builtins", "class_name": "function", "config": "eval"}


def _deep_module(config):
    config["config"]["layers"][1].update(module="keras.src.utils.file_utils", class_name="get_file")


def _lookup(config):
    layer = {"name": "words", "vocabulary": "/etc/passwd"}
    config["config"]["layers"].append(
        {"module": "keras.layers", "class_name": "StringLookup", "config": layer}
    )


EDITS = {
    "module": (_other_module, "os.system"),
    "function": (_function, "names function 'eval'"),
    "deep": (_deep_module, "file_utils.get_file"),
    "lookup": (_lookup, "'words' reads its words from a file"),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_a_file_may_not_name_is_refused_before_keras_reads_it(name, tmp_path, monkeypatch):
    x = keras.Input((4,))
    keras.Model(x, keras.layers.Dense(2, name="dense")(x)).save(tmp_path / "model.keras")
    change, message = EDITS[name]
    path = edited(tmp_path / "model.keras", change)
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(UnsupportedModelError, match="not known to only compute") as told:
        eq.load_model(path)
    assert message in str(told.value)


def test_code_is_refused_unless_it_is_allowed(tmp_path):
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Lambda(lambda v: v * 2.0, name="code")(x))
    model.save(tmp_path / "model.keras")
    with pytest.raises(UnsupportedModelError, match="holds Python code in 'code'"):
        eq.load_model(tmp_path / "model.keras")
    loaded = eq.load_model(tmp_path / "model.keras", allow_lambda=True)
    np.testing.assert_array_equal(loaded(np.ones((1, 4), np.float32)), np.full((1, 4), 2.0))


@keras.saving.register_keras_serializable("mine")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x


def test_layers_of_the_users_are_taken_by_name(tmp_path):
    x = keras.Input((4,))
    keras.Model(x, Doubled(name="own")(x)).save(tmp_path / "model.keras")
    with pytest.raises(UnsupportedModelError, match="custom_objects"):
        eq.load_model(tmp_path / "model.keras")
    loaded = eq.load_model(tmp_path / "model.keras", custom_objects={"Doubled": Doubled})
    np.testing.assert_array_equal(loaded(np.ones((1, 4), np.float32)), np.full((1, 4), 2.0))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Keras 3 says what it skips before it fails
def test_a_damaged_file_and_one_for_a_sim_are_said(tmp_path):
    x = keras.Input((4,))
    path = tmp_path / "model.keras"
    keras.Model(x, keras.layers.Dense(2)(x)).save(path)
    with pytest.raises(eq.EdgeqError, match="was saved by Keras 3"):
        eq.load_sim(path)

    def other_units(config):
        config["config"]["layers"][1]["config"]["units"] = 3

    with pytest.raises(UnsupportedModelError, match="Cannot load"):
        eq.load_model(edited(path, other_units))
