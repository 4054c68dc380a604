"""One sim gives the same bytes in every format, again and again, in any process."""

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
import tf_keras
from google.protobuf.message import Message
from tensorflow.core.protobuf import saved_model_pb2

import keras_edgeq as eq
from keras_edgeq.export.saved_model_canonical import _rename
from keras_edgeq.files import sha256_of
from tests.models import inputs_for, make
from tests.short import short

L = tf_keras.layers
ELSEWHERE = """
import sys
import keras_edgeq as eq
eq.export(eq.load_sim(sys.argv[1]), sys.argv[2], progress=False)
"""


def recurrent():
    """A model whose ONNX form holds a Loop or Scan, and several inputs and outputs."""
    a, b = tf_keras.Input((3, 4), name="b"), tf_keras.Input((4,), name="a")
    y = L.LSTM(3, name="memory")(a)
    z = L.Dense(3, activation="relu", name="first")(b)
    outputs = [L.Add(name="sum")([y, z]), L.Dense(2, name="second")(z)]
    return tf_keras.Model([a, b], outputs, name="loop")


MODELS = {"residual": lambda: make("residual"), "recurrent": recurrent}


@pytest.fixture(scope="module", params=short(MODELS, "residual"))
def sim(request):
    model = MODELS[request.param]()
    return eq.quantize(model, inputs_for(model), progress=False)


def digests(folder, sim):
    """Digests of files; TensorFlow freezes loops in any order, so not of a SavedModel of one."""
    skipped = {"saved_model", "report.json"} if sim.name == "loop" else set()
    files = [
        f
        for name in folder.iterdir()
        if name.name not in skipped
        for f in (name, *name.rglob("*"))
        if f.is_file()
    ]
    return {f.relative_to(folder).as_posix(): sha256_of(f) for f in files}


def test_two_exports_of_one_sim_are_equal_byte_for_byte(sim, tmp_path):
    for name in ("a", "b"):
        eq.export(sim, tmp_path / name, progress=False)
        tf.function(lambda x: x)(tf.zeros(1))  # TensorFlow numbers its functions
    assert digests(tmp_path / "a", sim) == digests(tmp_path / "b", sim)
    assert len(digests(tmp_path / "a", sim)) >= 6


@pytest.mark.slow
def test_a_fresh_process_exports_a_loaded_sim_as_it_was_exported_here(sim, tmp_path):
    eq.export(sim, tmp_path / "a", progress=False)
    eq.save_sim(sim, tmp_path / "sim.keras")
    command = [sys.executable, "-c", ELSEWHERE, tmp_path / "sim.keras", tmp_path / "b"]
    root = Path(eq.__file__).parents[1]
    done = subprocess.run(
        list(map(str, command)), cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert digests(tmp_path / "a", sim) == digests(tmp_path / "b", sim)


def test_functions_that_exchange_their_numbers_are_kept_apart():
    model = saved_model_pb2.SavedModel()
    functions = model.meta_graphs.add().object_graph_def.concrete_functions
    functions["f_1"].bound_inputs.append(1)
    functions["f_0"].bound_inputs.append(0)
    _rename(model, {"f_1": "f_0", "f_0": "f_1"})
    assert isinstance(model, Message)
    assert {name: list(f.bound_inputs) for name, f in functions.items()} == {"f_0": [1], "f_1": [0]}
