import pytest
import tf_keras

from keras_edgeq import callbacks as C
from tests.callbacks.training import KillAt, check_restart, data

PLAIN = {"validate": False}
EARLY = {0: 8, 1: None}


def bits(folder):
    return [C.BitWidthSchedule({0: 8, 2: {"weights": 6}, 3: None})]


def freezing(folder):
    return [C.FreezeEncodings(2, "conv*")]


def recalibrating(folder):
    return [C.Recalibrate(data()[0], every=2)]


def oscillating(folder):
    options = {"momentum": 0.1, "final_threshold": 0.05, "dampening": 0.5}
    return [C.OscillationFreezing(0.15, **options)]


def everything(folder):
    """All at once, with what Keras saves and stops."""
    return [
        C.FreezeBatchNorm(2), *freezing(folder), C.BitWidthSchedule(EARLY),
        *oscillating(folder), C.Recalibrate(data()[0]), C.EncodingLogger(folder / "logs"),
        tf_keras.callbacks.ModelCheckpoint(str(folder / "best.keras"), save_best_only=True),
        tf_keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True),
    ]  # fmt: skip


def test_a_killed_training_ends_as_one_that_was_not(sim, tmp_path):
    check_restart(sim, lambda f: bits(f) + recalibrating(f), KillAt(2), tmp_path, data=PLAIN)


def test_learned_ranges_do_too_and_with_the_backup_ahead(learning, tmp_path):
    def make(folder):
        return [*freezing(folder), C.BitWidthSchedule(EARLY), *oscillating(folder)]

    options = {"data": PLAIN, "backup_first": True, "run_eagerly": True}
    whole = check_restart(learning, make, KillAt(3, batch=1), tmp_path, **options)
    assert not whole.quantized_layers()["conv"].quantizers["kernel"].is_learning
    assert whole.quantized_layers()["head"].quantizers["kernel"].is_learning


def test_frozen_weights_stay_so_when_a_training_goes_on_within_an_epoch(sim, tmp_path):
    # Such a restart reads the data from its beginning, so all batches are alike.
    alike = {**PLAIN, "alike": True}
    check_restart(sim, oscillating, KillAt(2, batch=2), tmp_path, save_freq=1, data=alike)


@pytest.mark.slow
def test_all_together_with_those_of_keras(normed, tmp_path):
    whole = check_restart(normed, everything, KillAt(3), tmp_path, run_eagerly=True)
    assert whole.record.frozen
    assert [float(layer.frozen) for layer in whole.batch_norms().values()] == [1.0]
    loaded = tf_keras.models.load_model(tmp_path / "whole" / "best.keras")
    assert [w.shape for w in loaded.weights] == [w.shape for w in whole.weights]
