import json
import os
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import (
    CalibrationDataError,
    EdgeqError,
    ExportError,
    QuantizationWarning,
)
from keras_edgeq.files import sha256_of, write_whole
from keras_edgeq.files.file_set import LOCK
from keras_edgeq.sim.freeze import copy_sim
from tests.harness import assert_same_arrays, assert_same_sim, outputs
from tests.models import inputs_for, make

L = tf_keras.layers


def quantized(hazard, **options):
    model = make(hazard)
    return eq.quantize(model, inputs_for(model), progress=False, **options)


@pytest.fixture(scope="module")
def sim():
    return quantized("forward_conv")


@pytest.fixture(scope="module")
def other():
    return quantized("forward_dense")


def assert_same_stats(a, b):
    assert a.samples == b.samples
    assert list(a.histograms) == list(b.histograms)
    for name, h in a.histograms.items():
        g = b.histograms[name]
        np.testing.assert_array_equal(h.counts, g.counts)
        assert (h.exponent, h.low, h.high) == (g.exponent, g.low, g.high)


@pytest.mark.parametrize("name", ["sim.keras", "sim.h5", "sim"])
def test_a_saved_sim_comes_back_whole(sim, tmp_path, name):
    path = tmp_path / "new" / name
    eq.save_sim(sim, path)
    assert sorted(p.name for p in path.parent.iterdir()) == sorted([name, "sim.stats.npz"])
    loaded = eq.load_sim(str(path))
    assert_same_sim(sim, loaded)
    assert_same_stats(sim.stats, loaded.stats)
    x = inputs_for(make("forward_conv"))
    np.testing.assert_array_equal(sim.predict(x, verbose=0), loaded.predict(x, verbose=0))


@pytest.mark.slow
def test_a_saved_model_of_dicts_comes_back_by_keras_alone_and_runs_without_keras(tmp_path):
    sim = quantized("dicts")
    sim.save(tmp_path / "folder", save_format="tf")
    loaded = tf_keras.models.load_model(tmp_path / "folder")
    assert_same_sim(sim, loaded)
    x = inputs_for(make("dicts"))
    assert_same_arrays(outputs(sim, x), outputs(loaded, x))
    served = tf.saved_model.load(str(tmp_path / "folder")).signatures["serving_default"]
    got, wanted = served(**{k: tf.constant(v) for k, v in x.items()}), sim.predict(x, verbose=0)
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value)


@pytest.mark.parametrize("name", ["sim.keras", "sim.h5"])
def test_a_trained_and_compiled_sim_goes_on_training_where_it_stopped(tmp_path, name):
    sim = quantized("forward_dense")
    x = inputs_for(make("forward_dense"))
    y = np.zeros((len(x), 4), np.float32)
    sim.compile(tf_keras.optimizers.Adam(0.01), "mse")
    first = sim.fit(x, y, epochs=3, verbose=0, shuffle=False).history["loss"]
    assert first[-1] < first[0]
    eq.save_sim(sim, tmp_path / name)
    loaded = eq.load_sim(tmp_path / name)
    losses = [s.fit(x, y, verbose=0, shuffle=False).history["loss"] for s in (sim, loaded)]
    assert losses[0] == losses[1]
    assert_same_arrays(sim.get_weights(), loaded.get_weights())


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "sim"
    folder.mkdir()
    (folder / "old").write_text("old")
    write_whole(folder, lambda target: (target.mkdir(), (target / "new").write_text("new")))
    assert [p.name for p in tmp_path.iterdir()] == ["sim"]
    assert [p.name for p in folder.iterdir()] == ["new"]


def test_a_writer_that_wrote_nothing_replaces_nothing(tmp_path):
    folder = tmp_path / "sim"
    folder.mkdir()
    with pytest.raises(ExportError, match="sim"):
        write_whole(folder, lambda target: None)
    assert [p.name for p in tmp_path.iterdir()] == ["sim"]


def test_a_sim_saves_over_an_older_one(sim, other, tmp_path):
    eq.save_sim(other, tmp_path / "sim.keras")
    eq.save_sim(sim, tmp_path / "sim.keras")
    assert_same_sim(sim, eq.load_sim(tmp_path / "sim.keras"))


def test_a_sim_without_statistics_leaves_none_of_an_older_one(sim, other, tmp_path):
    path = tmp_path / "sim.keras"
    eq.save_sim(sim, path)
    plain = eq.load_sim(path)
    plain.stats = None
    eq.save_sim(plain, path)
    assert [p.name for p in tmp_path.iterdir()] == ["sim.keras"]
    assert eq.load_sim(path).stats is None


def test_a_failed_save_leaves_the_older_sim_and_no_scraps(sim, tmp_path, monkeypatch):
    path = tmp_path / "sim.keras"
    eq.save_sim(sim, path)
    before = path.read_bytes()

    def fail(target, **_):
        (tmp_path / target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sim, "save", fail)
    with pytest.raises(ExportError, match="No space left"):
        eq.save_sim(sim, path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sim.keras", "sim.stats.npz"]


def test_a_place_that_cannot_be_written_is_named(sim, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"sim\.keras"):
        eq.save_sim(sim, tmp_path / "file" / "sim.keras")


def test_a_float_model_is_no_sim_when_saving_and_when_loading(tmp_path):
    model = make("forward_dense")
    with pytest.raises(EdgeqError, match="not a sim"):
        eq.save_sim(model, tmp_path / "model.keras")
    model.save(tmp_path / "model.keras")
    with pytest.raises(EdgeqError, match=r"model\.keras.*not a sim"):
        eq.load_sim(tmp_path / "model.keras")


@pytest.mark.parametrize("name", ["gone.keras", "gone.h5", "gone"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(EdgeqError, match=name):
        eq.load_sim(tmp_path / name)


@pytest.mark.parametrize("name", ["bad.keras", "bad.h5"])
def test_a_file_of_something_else_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 no zip at all")
    with pytest.raises(EdgeqError, match=name):
        eq.load_sim(tmp_path / name)


def test_a_truncated_file_is_named(sim, tmp_path):
    eq.save_sim(sim, tmp_path / "sim.keras")
    content = (tmp_path / "sim.keras").read_bytes()
    (tmp_path / "sim.keras").write_bytes(content[: len(content) // 2])
    with pytest.raises(EdgeqError, match=r"sim\.keras"):
        eq.load_sim(tmp_path / "sim.keras")


def test_statistics_of_another_sim_are_refused(sim, other, tmp_path):
    eq.save_sim(sim, tmp_path / "sim.keras")
    other.stats.save(tmp_path / "sim.stats.npz")
    with pytest.raises(CalibrationDataError, match="another sim"):
        eq.load_sim(tmp_path / "sim.keras")


@pytest.fixture(scope="module")
def rounded(sim):
    """The sim in three states, as after rounding: other kernels, statistics and float ones."""
    states = []
    for number in range(3):
        copy = copy_sim(sim)
        kernels = {
            f"{n}/{layer.kernel_name}": layer.layer.kernel.numpy()
            for n, layer in copy.quantized_layers().items()
        }
        copy.reference = {name: kernel + np.float32(number) for name, kernel in kernels.items()}
        copy.reference |= {
            f"{n}/bias": layer.layer.bias.numpy()
            for n, layer in copy.quantized_layers().items()
            if layer.layer.use_bias
        }
        copy.stats = replace(sim.stats, samples=10 + number)
        states.append(copy)
    return states


@pytest.mark.parametrize("part", ["stats", "float"])
@pytest.mark.parametrize("name", ["sim.keras", "sim.h5"])
def test_a_part_of_another_state_of_the_sim_is_refused(rounded, tmp_path, name, part):
    for number, state in enumerate(rounded[:2]):
        eq.save_sim(state, tmp_path / str(number) / name)
    stranger = tmp_path / "0" / f"sim.{part}.npz"
    os.replace(stranger, tmp_path / "1" / f"sim.{part}.npz")
    with pytest.raises(EdgeqError, match=rf"sim\.{part}\.npz belongs to another sim"):
        eq.load_sim(tmp_path / "1" / name)


@pytest.mark.parametrize(("part", "lost"), [("stats", "no range"), ("float", "float parameters")])
def test_a_part_that_is_missing_is_said(rounded, tmp_path, part, lost):
    eq.save_sim(rounded[0], tmp_path / "sim.keras")
    (tmp_path / f"sim.{part}.npz").unlink()
    with pytest.warns(QuantizationWarning, match=rf"sim\.{part}\.npz is missing.*{lost}") as told:
        loaded = eq.load_sim(tmp_path / "sim.keras")
    assert told[0].filename == __file__
    eq.save_sim(loaded, tmp_path / "again.keras")
    eq.load_sim(tmp_path / "again.keras")


def test_a_part_beside_a_sim_that_was_saved_without_is_refused(sim, rounded, tmp_path):
    eq.save_sim(rounded[0], tmp_path / "other.keras")
    eq.save_sim(sim, tmp_path / "sim.keras")
    os.replace(tmp_path / "other.float.npz", tmp_path / "sim.float.npz")
    with pytest.raises(EdgeqError, match="move this one away"):
        eq.load_sim(tmp_path / "sim.keras")


def test_a_sim_that_keras_saved_takes_what_fits_beside_it(sim, tmp_path):
    eq.save_sim(sim, tmp_path / "sim.keras")
    loaded = eq.load_sim(tmp_path / "sim.keras")
    assert loaded.record.parts is sim.record.parts is None
    loaded.save(tmp_path / "sim.keras")
    assert eq.load_sim(tmp_path / "sim.keras").stats.samples == sim.stats.samples


def test_loading_finishes_a_save_that_was_killed_when_its_files_were_whole(rounded, tmp_path):
    path, names = tmp_path / "sim.keras", ["sim.float.npz", "sim.keras", "sim.stats.npz"]
    eq.save_sim(rounded[0], path)
    eq.save_sim(rounded[1], tmp_path / "new" / "sim.keras")
    scratch = tmp_path / ".sim.keras.12345678"
    scratch.mkdir()
    os.replace(tmp_path / "new", scratch / "new")
    (scratch / LOCK).touch()
    (scratch / "journal.json").write_text(json.dumps({"out": [], "put": names}))
    os.replace(scratch / "new" / "sim.float.npz", tmp_path / "sim.float.npz")  # then the kill
    loaded = eq.load_sim(path)
    assert loaded.stats.samples == 11
    assert_same_arrays(loaded.reference.values(), rounded[1].reference.values())
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_scratch_of_a_killed_save_is_removed_by_the_next_one(sim, tmp_path):
    scratch = tmp_path / ".sim.keras.12345678"
    (scratch / "new").mkdir(parents=True)
    (scratch / "new" / "sim.keras").write_bytes(b"half")
    (scratch / LOCK).touch()
    eq.save_sim(sim, tmp_path / "sim.keras")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sim.keras", "sim.stats.npz"]


@pytest.mark.parametrize("name", ["sim.keras", "sim.h5"])
def test_one_sim_gives_the_same_bytes_each_time(sim, tmp_path, name):
    for folder in "ab":
        eq.save_sim(sim, tmp_path / folder / name)
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b")


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_python_code_in_a_file_runs_only_when_allowed(tmp_path, suffix):
    sim = quantized("lambda_island")
    path = tmp_path / f"sim.{suffix}"
    eq.save_sim(sim, path)
    with pytest.raises(EdgeqError, match="safe_mode"):
        eq.load_sim(path)
    assert_same_sim(sim, eq.load_sim(path, safe_mode=False))


def test_code_hidden_in_the_spelling_of_an_h5_config_is_found(sim, tmp_path):
    path = tmp_path / "sim.h5"
    eq.save_sim(sim, path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"].append({"class_name": "Lambda", "config": {}})
        text = json.dumps(config, separators=(",", ":")).replace('"Lambda"', '"\\u004cambda"')
        file.attrs["model_config"] = text
    with pytest.raises(EdgeqError, match="Python code"):
        eq.load_sim(path)


def test_custom_objects_reach_keras(tmp_path):
    class Halve(L.Layer):
        @tf.function  # of the function itself, so that it stays a layer
        def halved(self, inputs):
            return inputs * 0.5

        def call(self, inputs):
            return self.halved(inputs)

    x = tf_keras.Input((4,))
    model = tf_keras.Model(x, L.Dense(2)(Halve()(x)))
    sim = eq.quantize(model, inputs_for(model), progress=False)
    eq.save_sim(sim, tmp_path / "sim.keras")
    with pytest.raises(EdgeqError, match="custom_objects"):
        eq.load_sim(tmp_path / "sim.keras")
    assert_same_sim(sim, eq.load_sim(tmp_path / "sim.keras", custom_objects={"Halve": Halve}))


def test_weights_alone_go_from_sim_to_sim(sim, tmp_path):
    path = tmp_path / "sim.weights.h5"
    sim.save_weights(path)
    twin = type(sim).from_config(sim.get_config())
    twin.load_weights(path)
    assert_same_arrays(sim.get_weights(), twin.get_weights())


def test_loading_writes_nothing(sim, tmp_path):
    eq.save_sim(sim, tmp_path / "sim.keras")
    before = {e.name: os.stat(e).st_mtime_ns for e in os.scandir(tmp_path)}
    eq.load_sim(tmp_path / "sim.keras")
    assert {e.name: os.stat(e).st_mtime_ns for e in os.scandir(tmp_path)} == before


def test_a_sim_is_saved_as_any_model_in_a_folder(sim, tmp_path):
    sim.save(tmp_path / "folder")
    sim.save(tmp_path / "other", options=tf.saved_model.SaveOptions())
    loaded = eq.load_sim(tmp_path / "folder")
    x = np.random.default_rng(0).normal(size=(2, *sim.input_shape[1:])).astype(np.float32)
    np.testing.assert_array_equal(loaded(x), sim(x))
