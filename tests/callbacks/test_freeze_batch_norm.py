import numpy as np
import pytest
import tf_keras

from keras_edgeq.callbacks import FreezeBatchNorm
from keras_edgeq.errors import UnsupportedModelError
from tests.callbacks.training import Traces, fit, fresh


class Watch(tf_keras.callbacks.Callback):
    """Keeps statistics and gamma of each epoch's end."""

    def on_train_begin(self, logs=None):
        self.statistics, self.gammas = [], []

    def on_epoch_end(self, epoch, logs=None):
        layer = self.model.batch_norms()["norm"]
        self.statistics.append(np.concatenate([layer.moving_mean, layer.moving_variance]))
        self.gammas.append(layer.gamma.numpy())


def test_statistics_stay_from_that_epoch_on_and_gamma_trains(normed):
    watch, traces = Watch(), Traces()
    fit(fresh(normed), [FreezeBatchNorm(2), watch, traces], epochs=4, validate=False)
    pairs = list(zip(watch.statistics, watch.statistics[1:], strict=False))
    assert [np.array_equal(a, b) for a, b in pairs] == [False, True, True]
    assert not np.array_equal(watch.gammas[2], watch.gammas[3])
    assert len(set(traces.seen)) == 1


def test_a_frozen_training_computes_as_inference_does(normed):
    own = fresh(normed)
    callback = FreezeBatchNorm(1)
    callback.set_model(own)
    callback.on_train_begin()
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 1)).astype("float32")
    callback.on_epoch_begin(0)
    assert not np.allclose(own(x, training=True), own(x, training=False), atol=1e-3)
    callback.on_epoch_begin(1)
    np.testing.assert_array_equal(own(x, training=True), own(x, training=False))


def test_folded_batch_norms_are_an_error_that_names_the_way_out(sim):
    with pytest.raises(UnsupportedModelError, match='batch_norm="train"'):
        fit(fresh(sim), [FreezeBatchNorm(1)])
    with pytest.raises(ValueError, match="at least 0"):
        FreezeBatchNorm(-1)
