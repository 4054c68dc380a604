import itertools

import numpy as np
import pytest
import tf_keras

from keras_edgeq.callbacks import Recalibrate
from keras_edgeq.callbacks import recalibrate as room
from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.sim.calibrate import collect
from keras_edgeq.sim.derive import derive_activations, derive_weights
from keras_edgeq.sim.freeze import copy_sim
from tests.callbacks.training import data, drive, encodings, fit, fresh
from tests.harness import assert_same_arrays


class Watch(tf_keras.callbacks.Callback):
    """Keeps weights and grids as the validation sees them, and of each epoch's end."""

    def on_train_begin(self, logs=None):
        self.tested, self.ended = [], []

    def on_test_begin(self, logs=None):
        self.tested.append(encodings(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.ended.append((self.model.get_weights(), encodings(self.model)))


def calibrated(sim, weights, x):
    """The sim calibrated from scratch, with these weights."""
    copy = copy_sim(sim)
    copy.set_weights(weights)
    derive_weights(copy)
    stats = collect(copy, [[x]], progress=False)
    derive_activations(copy, stats)
    return copy, stats


def test_ranges_are_those_of_calibrating_the_present_weights(sim):
    x = data()[0][:24]
    own, watch = fresh(sim), Watch()
    fit(own, [Recalibrate(x), watch], epochs=2)
    for weights, grids in watch.ended:
        wanted, stats = calibrated(sim, weights, x)
        assert encodings(wanted) == grids
    assert watch.tested == [grids for _, grids in watch.ended]
    assert watch.tested[0] != watch.tested[1]
    assert own.stats is not sim.stats
    assert own.stats.samples == 24
    for name, histogram in stats.histograms.items():
        np.testing.assert_array_equal(own.stats.histograms[name].counts, histogram.counts)


@pytest.mark.parametrize("validate", [True, False])
def test_every_counts_epochs_and_the_last_one_counts_always(sim, validate, monkeypatch):
    traced = []

    def counting(sim):
        traced.append(sim)
        return observer(sim)

    observer = room.observer_of
    monkeypatch.setattr(room, "observer_of", counting)
    watch = Watch()
    drive(fresh(sim), [Recalibrate(data()[0], 2), watch], epochs=5, validate=validate)
    grids = [encodings(sim), *(grids for _, grids in watch.ended)]
    changed = [a != b for a, b in itertools.pairwise(grids)]
    assert changed == [False, True, False, True, True]
    assert len(traced) == 1


def test_learned_and_frozen_ranges_stay(sim, learning):
    own = fresh(learning)
    callback = Recalibrate(3.0 * data()[0])
    callback.set_model(own)
    callback.set_params({"epochs": 1})
    own.record = sim.record
    before = own.get_weights()
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    callback.on_epoch_end(0)
    assert_same_arrays(before, own.get_weights())


def test_data_that_cannot_be_read_again_is_refused():
    for source in (None, iter([data()[0]])):
        with pytest.raises(CalibrationDataError, match="reads its data again"):
            Recalibrate(source)
    with pytest.raises(ValueError, match="at least 1"):
        Recalibrate(data()[0], every=0)


@pytest.mark.parametrize(("first", "save_freq"), [(True, "epoch"), (False, 2)])
def test_it_warns_where_backups_would_miss_it(sim, first, save_freq, tmp_path):
    backup = tf_keras.callbacks.BackupAndRestore(tmp_path, save_freq)
    callbacks = [backup, Recalibrate(data()[0])]
    with pytest.warns(UserWarning, match="List it after Recalibrate") as seen:
        drive(fresh(sim), callbacks if first else callbacks[::-1], epochs=2)
    assert len(seen) == 1
