"""The commands `auto` and `plan`."""

import json
from pathlib import Path

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq_cli import main

L = tf_keras.layers
TRAIN = """
def train(sim):
    open("trained", "w").close()


def score(model):
    return float("nan")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, data with and without labels, and a module of functions."""
    tf_keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("auto")
    inputs = L.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    model = tf_keras.Model(inputs, L.Dense(3, name="head")(L.Flatten()(x)))
    model.save(folder / "model.keras")
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    np.savez(folder / "x.npz", image=x)
    np.savez(folder / "xy.npz", image=x, y=np.asarray(model(x)).argmax(-1))
    (folder / "mine.py").write_text(TRAIN)
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))


def auto(*args, data="xy.npz", out="out"):
    return main(["auto", "model.keras", "--data", data, "--out", out, "--formats", "tflite", *args])


def test_a_model_becomes_files_within_its_drop(capsys, tmp_path):
    args = ("--metric", "accuracy", "--max-drop", "0.5", "--save", "auto.html")
    assert auto(*args, "--json", out=str(tmp_path)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["met"]
    assert found["measure"] == "accuracy"
    assert found["history"][0]["stage"] == "calibrate"
    assert (tmp_path / "model.tflite").exists()
    assert isinstance(eq.load_sim(tmp_path / "sim.keras"), eq.QuantSim)
    assert "Target met" in Path("auto.html").read_text()


@pytest.mark.filterwarnings("default::keras_edgeq.QuantizationWarning")
def test_a_target_that_is_missed_is_status_1_and_a_line(capsys):
    args = ("--min-score", "101", "--budget", "0", "--quiet")
    assert auto(*args, data="x.npz") == 1
    shown = capsys.readouterr()
    assert "The target was not met." in shown.out
    assert "the float model's is 100" in shown.err


def test_plans_are_shown_and_compared(tmp_path, capsys):
    model, x = tf_keras.models.load_model("model.keras"), np.load("x.npz")["image"]
    sim = eq.quantize(model, x, progress=False)
    eq.save_sim(sim, tmp_path / "a.keras")
    eq.save_sim(eq.requantize(sim, precision={"head": "W4A8"}), tmp_path / "b.keras")
    sims = (str(tmp_path / "a.keras"), str(tmp_path / "b.keras"))
    assert main(["plan", "show", sims[0]]) == 0
    assert "head/kernel" in capsys.readouterr().out
    assert main(["plan", "diff", *sims, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["layers"]] == ["head"]
    assert main(["plan", "diff", sims[0], sims[0]]) == 0
    assert capsys.readouterr().out.strip() == "no difference"
    for wrong in (["show", *sims], ["diff", sims[0]]):
        assert main(["plan", *wrong]) == 2
    assert "two sims" in capsys.readouterr().err


ERRORS = {
    (): "max_drop=",
    ("--max-drop", "-1"): "--max-drop is -1",
    ("--max-drop", "1", "--score", "mine:score"): "is nan",
    ("--max-drop", "1", "--score", "mine:score", "--metric", "accuracy"): "not both",
    ("--max-drop", "1", "--train", "mine:trained"): "did you mean 'train'",
}


@pytest.mark.parametrize("args", ERRORS, ids=list(ERRORS.values()))
def test_what_is_wrong_is_said_in_one_line(args, capsys):
    assert auto(*args, "--quiet", out="new") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ERRORS[args].lower() in line.lower()
    assert not Path("new").exists()
