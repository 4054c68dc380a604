import pytest
import tf_keras

from keras_edgeq.callbacks import FreezeEncodings, Recalibrate
from keras_edgeq.errors import EncodingsError, UnsupportedModelError
from keras_edgeq.sim.freeze import all_quantizers
from tests.callbacks.training import Traces, data, drive, encodings, fit, fresh


class Watch(tf_keras.callbacks.Callback):
    """Keeps the grids of each epoch's end."""

    def on_train_begin(self, logs=None):
        self.seen = [encodings(self.model)]

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(encodings(self.model))


def test_learned_ranges_stay_from_that_epoch_on(learning):
    own, watch, traces = fresh(learning), Watch(), Traces()
    fit(own, [FreezeEncodings(2, "conv*"), watch, traces], epochs=4, validate=False)
    names = {name for name in watch.seen[0] if name.startswith("conv")}
    assert {"conv/kernel", "conv_relu"} == names
    for name in watch.seen[0]:
        moved = [a[name] != b[name] for a, b in zip(watch.seen, watch.seen[1:], strict=False)]
        assert moved[:2] == [True, True], name
        assert moved[2:] == ([False] * 2 if name in names else [True] * 2), name
    assert own.record.frozen == names
    assert len(set(traces.seen)) == 1


def test_recalibration_leaves_them(sim):
    own, watch = fresh(sim), Watch()
    callbacks = [Recalibrate(data()[0][:16]), FreezeEncodings(1, "head*"), watch]
    drive(own, callbacks, epochs=3)
    for name in watch.seen[0]:
        stayed = [watch.seen[i][name] == watch.seen[i + 1][name] for i in (1, 2)]
        assert all(stayed) if name.startswith("head") else not any(stayed) or name == "image"


def test_weights_of_an_earlier_epoch_do_not_thaw_them(learning):
    class BringBack(tf_keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.weights = self.model.get_weights()

        def on_epoch_end(self, epoch, logs=None):
            self.model.set_weights(self.weights)

    own = fresh(learning)
    drive(own, [FreezeEncodings(0), BringBack()], epochs=1)
    assert not any(q.is_learning for q in all_quantizers(own).values())


def test_what_it_cannot_freeze_is_an_error(sim):
    with pytest.raises(ValueError, match="at least 0"):
        FreezeEncodings(-1)
    with pytest.raises(EncodingsError, match="'nothing'"):
        fit(fresh(sim), [FreezeEncodings(1, "nothing")])
    model = tf_keras.Sequential([tf_keras.Input((8, 8, 1)), tf_keras.layers.Flatten()])
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match="FreezeEncodings is for training a sim"):
        model.fit(data()[0], data()[0].reshape(32, -1), verbose=0, callbacks=[FreezeEncodings(1)])
