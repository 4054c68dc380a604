import json
from importlib import import_module

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_edgeq.callbacks import ExportBest
from keras_edgeq.errors import EdgeqError, ExportError
from keras_edgeq.files.file_set import LOCK
from tests.callbacks.training import data, fit, fresh, small_sim
from tests.harness import assert_same_arrays


@pytest.fixture(scope="module")
def trained():
    return fresh(small_sim())  # 8 bits, whose kernels LiteRT and the sim agree on exactly


def begin(sim, folder, *args, **options):
    callback = ExportBest(folder, *args, **{"formats": ["tflite"], "verify": False, **options})
    callback.set_model(sim)
    callback.set_params({"epochs": 5})
    callback.on_train_begin()
    return callback


def outputs(path, x):
    runner = Interpreter(str(path), num_threads=1).get_signature_runner()
    results = [next(iter(runner(image=x[i : i + 1]).values())) for i in range(len(x))]
    return np.concatenate(results)


@pytest.mark.slow
def test_the_folder_holds_the_verified_artifacts_of_the_best_epoch(trained, tmp_path):
    folder, x = tmp_path / "best", data()[0][:4]
    callback = ExportBest(folder, formats=["tflite"], verify=x)
    history = fit(trained, [callback], epochs=1).history
    assert callback.best == history["val_loss"][0]
    assert {path.name for path in folder.iterdir()} == {"best.json", "model.tflite", "report.json"}
    assert callback.report.files == {"tflite": folder / "model.tflite"}
    assert callback.report.runs
    step = float(trained.quantizers()["head"].encoding.scale)
    difference = outputs(folder / "model.tflite", x) - trained.predict(x, verbose=0)
    assert np.abs(difference).max() <= 1.01 * step
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.slow
def test_only_an_improvement_is_exported_and_a_restart_goes_on_from_the_best(trained, tmp_path):
    folder = tmp_path / "best"
    first, before = begin(trained, folder, "val_accuracy"), trained.get_weights()
    first.on_epoch_end(0, {"val_accuracy": float("nan")})
    assert not folder.exists()
    first.on_epoch_end(1, {"val_accuracy": 0.5})
    again = begin(trained, folder, "val_accuracy")
    assert again.best == 0.5
    assert again.report is None
    again.on_epoch_end(2, {"val_accuracy": 0.4})
    again.on_epoch_end(3, {"val_accuracy": 0.5})
    assert again.report is None
    again.on_epoch_end(4, {"val_accuracy": 0.6})
    assert again.report is not None
    assert_same_arrays(before, trained.get_weights())
    state = json.loads((folder / "best.json").read_text())
    assert state == {"monitor": "val_accuracy", "mode": "max", "best": 0.6, "epoch": 4}


@pytest.mark.slow
def test_batch_norms_that_train_are_folded_into_what_is_exported(normed, tmp_path):
    own, x = fresh(normed), data()[0][:4]
    fit(own, [], epochs=1, validate=False)
    callback = begin(own, tmp_path / "best", "loss")
    callback.on_epoch_end(0, {"loss": 1.0})
    assert list(own.batch_norms()) == ["norm"]
    step = float(own.quantizers()["head"].encoding.scale)
    difference = outputs(tmp_path / "best" / "model.tflite", x) - own.predict(x, verbose=0)
    assert np.abs(difference).max() <= 1.01 * step


@pytest.mark.slow
def test_a_failed_export_leaves_the_former_set(trained, tmp_path, monkeypatch):
    folder = tmp_path / "best"
    begin(trained, folder).on_epoch_end(0, {"val_loss": 1.0})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(kind, request):
        raise ExportError("no converter")

    monkeypatch.setattr(import_module("keras_edgeq.export.export"), "convert", fail)
    callback = begin(trained, folder)
    with pytest.raises(ExportError, match="no converter"):
        callback.on_epoch_end(1, {"val_loss": 0.5})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert callback.best == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_value_that_is_not_logged_names_those_that_are(trained, tmp_path):
    callback = begin(trained, tmp_path / "best", "val_acc")
    with pytest.raises(EdgeqError, match=r"'val_acc'.*it logged accuracy, loss"):
        callback.on_epoch_end(0, {"loss": 1.0, "accuracy": 0.5})


def test_a_folder_of_something_else_is_left_alone(trained, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="folder of its own"):
        begin(trained, tmp_path)
    (tmp_path / "best.json").write_text('{"monitor": "loss", "mode": "min", "best": 1.0}')
    with pytest.raises(ExportError, match="keeps no best val_loss"):
        begin(trained, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_what_the_profile_does_not_have_is_said_at_the_start(trained, tmp_path):
    with pytest.raises(ExportError, match="onnx_qdq"):
        begin(trained, tmp_path / "best", formats=["onnx_qdq"])
    with pytest.raises(ValueError, match="auto, min, max"):
        ExportBest(tmp_path, mode="best")


def test_a_restart_cleans_up_after_a_run_that_was_killed_in_its_first_export(trained, tmp_path):
    scratch = tmp_path / "best" / ".report.json.12345678"
    (scratch / "new").mkdir(parents=True)
    (scratch / "new" / "model.tflite").write_text("half")
    (scratch / LOCK).touch()
    begin(trained, tmp_path / "best")
    assert list((tmp_path / "best").iterdir()) == []


def test_a_restart_goes_on_from_the_set_that_was_whole_when_the_run_was_killed(trained, tmp_path):
    folder, names = tmp_path / "best", ["best.json", "model.tflite", "report.json"]
    begin(trained, folder).on_epoch_end(0, {"val_loss": 1.0})
    scratch = folder / ".report.json.12345678"
    (scratch / "new").mkdir(parents=True)
    for name in names:
        (folder / name).rename(scratch / "new" / name)
    (scratch / "journal.json").write_text(json.dumps({"out": names[2:], "put": names}))
    (scratch / LOCK).touch()
    assert begin(trained, folder).best == 1.0
    assert sorted(path.name for path in folder.iterdir()) == names
