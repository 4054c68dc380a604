"""The command `diagnose`: files, folders of images, functions of the user, and errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq_cli import main

L = tf_keras.layers

FUNCTIONS = """
def scaled(images):
    return images / 127.5 - 1.0

def fails(images):
    raise ValueError("no such images")

def score(model):
    return 0.5

number = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sim of a model of images, data in both forms, and a module of functions."""
    tf_keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("diagnose")
    inputs = L.Input((8, 6, 3), name="image")
    x = L.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    model = tf_keras.Model(inputs, L.Dense(3, name="head")(L.Flatten()(x)))
    x = np.random.default_rng(0).uniform(-1, 1, (32, 8, 6, 3)).astype(np.float32)
    model.save(folder / "model.keras")
    eq.save_sim(eq.quantize(model, x, progress=False), folder / "sim.keras")
    y = np.asarray(model(x)).argmax(-1)
    np.savez(folder / "x.npz", image=x)
    np.savez(folder / "xy.npz", image=x, y=y)
    (folder / "images" / "inner").mkdir(parents=True)
    for number in range(6):
        image = tf.cast(np.random.default_rng(number).integers(0, 256, (12, 9, 3)), tf.uint8)
        name = f"inner/{number}.PNG" if number % 2 else f"{number}.jpg"
        encode = tf.io.encode_png if number % 2 else tf.io.encode_jpeg
        tf.io.write_file(str(folder / "images" / name), encode(image))
    (folder / "empty").mkdir()
    (folder / "of_mine.py").write_text(FUNCTIONS)
    (folder / "broken.py").write_text("1 / 0")
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))


def diagnose(*args):
    return main(["diagnose", "sim.keras", "--quiet", "--no-verify", "--remedies", "0", *args])


def decoded():
    """The images in the order of their names, at the size of the model's input."""
    names = [f"images/{n}.jpg" for n in (0, 2, 4)] + [f"images/inner/{n}.PNG" for n in (1, 3, 5)]
    read = [tf.io.decode_image(tf.io.read_file(name)) for name in names]
    return np.stack([tf.image.resize(image, (8, 6), antialias=True) for image in read])


def test_labels_in_the_file_are_scored(capsys):
    assert diagnose("--data", "xy.npz", "--metric", "accuracy", "--save", "found.json") == 0
    found = json.loads(Path("found.json").read_text())
    assert found["float_score"] == 1.0
    assert 0.5 < found["score"] <= 1.0
    assert capsys.readouterr().out == ""


def test_images_are_read_as_they_were_trained_on(capsys):
    args = ("--data", "images", "--preprocess", "of_mine:scaled", "--score", "of_mine:score")
    assert main(["diagnose", "sim.keras", "--no-verify", "--remedies", "0", "--json", *args]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["score"] == 0.5
    row = next(one for one in found["tensors"] if one["tensor"] == "image")
    images = decoded()
    judged = images[3:] / 127.5 - 1.0  # the other half is for remedies
    assert (row["low"], row["high"]) == pytest.approx((judged.min(), judged.max()), rel=1e-5)


def test_quantize_calibrates_and_verifies_on_folders_of_images(tmp_path, capsys):
    args = ("--preprocess", "of_mine:scaled", "--formats", "tflite", "--out", str(tmp_path))
    given = ("--calibration", "images", "--verify", "images", *args)
    assert main(["quantize", "model.keras", "--json", *given]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [(run["samples"], run["agrees"]) for run in runs] == [(6, True)] * len(runs)
    grid = eq.grids(eq.load_sim(tmp_path / "sim.keras"))["image"]
    images = decoded() / 127.5 - 1.0
    assert (grid.low, grid.high) == pytest.approx((images.min(), images.max()), abs=0.01)
    assert main(["quantize", "model.keras", "--calibration", "images", "--out", "x"]) == 2
    assert "--preprocess MODULE:FUNCTION" in capsys.readouterr().err
    assert main(["quantize", "model.keras", "--calibration", "x.npz", *args]) == 2
    assert "x.npz holds inputs as the model takes them" in capsys.readouterr().err


ERRORS = {
    ("--data", "images"): "--preprocess MODULE:FUNCTION",
    ("--data", "empty", "--preprocess", "of_mine:scaled"): "holds no images",
    ("--data", "images", "--preprocess", "of_mine:scaled", "--metric", "accuracy"): "no labels",
    ("--data", "x.npz", "--preprocess", "of_mine:scaled"): "for folders of images",
    ("--data", "x.npz", "--metric", "accuracy"): "no labels for accuracy",
    ("--data", "xy.npz", "--metric", "accuracy", "--score", "of_mine:score"): "not both",
    ("--data", "x.npz", "--score", "of_mine"): "MODULE:FUNCTION",
    ("--data", "x.npz", "--score", "of_yours:score"): "No module named 'of_yours'",
    ("--data", "x.npz", "--score", "of_mine:scor"): "did you mean 'score'",
    ("--data", "x.npz", "--score", "of_mine:number"): "no function 'number'",
    ("--data", "x.npz", "--score", "broken:score"): "ZeroDivisionError",
    ("--data", "images", "--preprocess", "of_mine:fails"): "no such images",
    ("--data", "none.npz"): "No such file of inputs",
}


@pytest.mark.parametrize("args", ERRORS, ids=list(ERRORS.values()))
def test_what_is_wrong_is_said_in_one_line(args, capsys):
    assert diagnose(*args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ERRORS[args].lower() in line.lower()
