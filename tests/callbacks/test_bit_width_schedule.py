import warnings

import numpy as np
import pytest
import tf_keras

from keras_edgeq.callbacks import BitWidthSchedule
from keras_edgeq.errors import CalibrationDataError, ProfileError
from keras_edgeq.sim.freeze import all_quantizers, copy_sim
from keras_edgeq.sim.new_ranges import present_bits
from tests.callbacks.training import Traces, drive, fit, fresh


class Watch(tf_keras.callbacks.Callback):
    """Keeps the bits of each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(present_bits(self.model))


def test_bits_follow_the_schedule_without_retracing(sim):
    own, watch, traces = fresh(sim), Watch(), Traces()
    schedule = BitWidthSchedule({1: 12, 2: {"weights": 6}, 4: None})
    fit(own, [schedule, watch, traces], epochs=5, validate=False)
    weights = [bits["conv/kernel"] for bits in watch.seen]
    assert weights == [4, 12, 6, 6, 4]
    assert [bits["conv_relu"] for bits in watch.seen] == [8, 12, 8, 8, 8]
    assert len(set(traces.seen)) == 1


def test_a_tensor_never_gets_fewer_bits_than_its_plan(sim):
    watch = Watch()
    drive(fresh(sim), [BitWidthSchedule({0: 6, 1: None}), watch], epochs=2)
    assert {watch.seen[0][name] for name in ("conv_relu", "head", "image")} == {8}
    assert watch.seen[0]["conv/kernel"] == 6


def test_a_grid_that_was_frozen_before_keeps_its_bits(sim):
    own, watch = fresh(sim), Watch()
    own.keep(frozen=frozenset({"conv/kernel"}))
    grid = own.quantized_layers()["conv"].quantizers["kernel"].encoding
    drive(own, [BitWidthSchedule({0: 8, 1: None}), watch], epochs=2)
    assert [b["conv/kernel"] for b in watch.seen] == [4, 4]
    assert [b["head/kernel"] for b in watch.seen] == [8, 4]
    assert own.quantized_layers()["conv"].quantizers["kernel"].encoding.same_grid(grid)


def test_it_acts_only_where_bits_are_others(learning):
    own = fresh(learning)
    schedule = BitWidthSchedule({0: 8, 3: None})
    schedule.set_model(own)
    schedule.on_train_begin()
    schedule.on_epoch_begin(0)
    change = own.quantized_layers()["conv"].quantizers["kernel"].learned.change
    change.assign(change + 0.25)
    schedule.on_epoch_begin(1)
    np.testing.assert_array_equal(change, np.full(change.shape, 0.25))
    schedule.on_epoch_begin(3)
    np.testing.assert_array_equal(change, np.zeros(change.shape))


def test_it_warns_where_the_end_has_other_bits(sim):
    with pytest.warns(UserWarning, match="other bits than the plan's in conv/kernel, head/kernel"):
        drive(fresh(sim), [BitWidthSchedule({0: {"weights": 8}, 2: None})], epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drive(fresh(sim), [BitWidthSchedule({0: {"weights": 8}, 1: None})], epochs=2)


@pytest.mark.parametrize("bits", [1, 17, 4.0, True, {"weights": 0}])
def test_bits_that_no_grid_has_are_refused(bits):
    with pytest.raises(ProfileError, match="2 to 16"):
        BitWidthSchedule({0: bits})


def test_a_schedule_that_says_nothing_is_refused():
    with pytest.raises(ProfileError, match="weights"):
        BitWidthSchedule({0: {"kernels": 4}})
    for schedule in ({}, {-1: 8}):
        with pytest.raises(ValueError, match="epochs from 0"):
            BitWidthSchedule(schedule)


def test_activations_need_statistics_weights_and_learned_ranges_do_not(sim, learning):
    def begin(model, schedule):
        bare = copy_sim(model)
        bare.stats = None
        callback = BitWidthSchedule(schedule)
        callback.set_model(bare)
        callback.on_train_begin()
        callback.on_epoch_begin(0)
        return bare

    with pytest.raises(CalibrationDataError, match="load_sim"):
        begin(sim, {0: 10, 1: None})
    assert present_bits(begin(sim, {0: 8, 1: None}))["conv/kernel"] == 8
    wide = begin(learning, {0: 10, 1: None})
    assert {q.encoding.spec.bits for q in all_quantizers(wide).values()} == {10}
