"""Where there is no room or no permission, writers raise an `EdgeqError` and leave no scraps.

A limit on the size of files stands for a full disk: writes beyond it fail.
"""

import resource
from contextlib import contextmanager

import numpy as np
import pytest
import tensorflow as tf

import keras_edgeq as eq
from keras_edgeq.callbacks import EncodingLogger
from keras_edgeq.errors import EdgeqError
from keras_edgeq.measure.measurement_log import MeasurementLog
from keras_edgeq.ptq.adaround.unit_files import UnitFiles
from keras_edgeq.qat.resume import Position, Resume
from keras_edgeq.sim.freeze import copy_sim
from keras_edgeq.streams.store import TensorStore
from tests.callbacks.training import drive
from tests.models import inputs_for, make


@contextmanager
def no_room(most_bytes=500):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def sim():
    model = make("forward_conv")
    made = eq.quantize(model, inputs_for(model), progress=False)
    made.reference = {
        f"{n}/kernel": q.layer.kernel.numpy() for n, q in made.quantized_layers().items()
    }
    return made


def without_parts(sim):
    """A sim whose model is the first file that `save_sim` writes."""
    copy = copy_sim(sim)
    copy.stats = copy.reference = None
    return copy


def checkpoint(sim, folder):
    Resume(folder, tf.distribute.get_strategy(), {"sim": sim}).save(Position())


def measure(folder):
    log = MeasurementLog(folder / "ledger", "a")
    for number in range(100):
        log.add({"conv": "W8A8"}, str(number), np.ones(9))


def store(folder):
    with TensorStore(0, folder) as kept:
        kept.put(tf.zeros(2_000))


WRITERS = {
    "tflite": lambda sim, out: eq.export(sim, out, "tflite", verify=False, progress=False),
    "onnx": lambda sim, out: eq.export(sim, out, "onnx", verify=False, progress=False),
    "encodings": lambda sim, out: eq.export(sim, out, "encodings", verify=False, progress=False),
    "saved_model": lambda sim, out: eq.export(
        sim, out, "saved_model", verify=False, progress=False
    ),
    "keras": lambda sim, out: eq.save_sim(sim, out / "sim.keras"),
    "h5": lambda sim, out: eq.save_sim(sim, out / "sim.h5"),
    "folder": lambda sim, out: eq.save_sim(sim, out / "sim"),
    "keras alone": lambda sim, out: eq.save_sim(without_parts(sim), out / "sim.keras"),
    "h5 alone": lambda sim, out: eq.save_sim(without_parts(sim), out / "sim.h5"),
    "folder alone": lambda sim, out: eq.save_sim(without_parts(sim), out / "sim"),
    "statistics": lambda sim, out: sim.stats.save(out / "sim.stats.npz"),
    "checkpoint": lambda sim, out: checkpoint(sim, out),
    "logger": lambda sim, out: drive(sim, [EncodingLogger(out)]),
    "units": lambda sim, out: UnitFiles(out, "a").write("unit", {"w": np.ones(999)}),
    "ledger": lambda sim, out: measure(out),
    "activations": lambda sim, out: store(out),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_an_error_of_this_package_and_leaves_no_scraps(sim, tmp_path, writer):
    with no_room(), pytest.raises(EdgeqError, match=r"[Cc]annot (write|keep)") as raised:
        WRITERS[writer](sim, tmp_path)
    assert "/new/" not in str(raised.value)
    kept = {"checkpoint", "logger", "ledger"}  # what they wrote before is for going on
    assert writer in kept or list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_that_cannot_be_made_is_an_error_of_this_package(sim, tmp_path, writer):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(EdgeqError, match=r"[Cc]annot (write|keep|use)"):
        WRITERS[writer](sim, tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
