"""`Recalibrate`: static ranges follow the weights while a sim trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tf_keras

from keras_edgeq.callbacks.sim_of import BackupOrder, sim_of
from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.sim.calibrate import collect, observer_of
from keras_edgeq.sim.data import batches
from keras_edgeq.sim.new_ranges import recalibrate


class Recalibrate(tf_keras.callbacks.Callback):
    """Derives static ranges again at the end of epochs, from the present weights and from data.

    Frozen and learned ranges stay; bits stay as they are. It comes before the epoch's
    validation, so `val_loss`, and what `ModelCheckpoint` saves for it, belong to the new ranges.
    When `fit` ends, `sim.stats` are the statistics of the sim as it is then. The pass over the data
    is traced once per `fit`.

    List `BackupAndRestore` after it, with `save_freq="epoch"`.

    Args:
        data: representative inputs in any form that `quantize` takes, except a generator: they are
            read again each time.
        every: recalibrate every so many epochs; after the last one always.
        batch_size: for arrays and files.
        steps: read at most that many batches.

    Raises:
        ValueError: `every` is below 1.
        CalibrationDataError: no data, or data that can be read only once; when the ranges are
            derived, data that does not fit or makes NaN.
        UnsupportedModelError: when `fit` starts, the model is not a sim; later, weights became NaN.

    Warns:
        UserWarning: `BackupAndRestore` saves what is not recalibrated yet.

    Example:
        >>> again = eq.callbacks.Recalibrate(x[:200], every=2)
        >>> history = sim.fit(x, y, epochs=2, callbacks=[again], verbose=0)
    """

    def __init__(
        self, data: Any, every: int = 1, *, batch_size: int = 32, steps: int | None = None
    ):
        super().__init__()
        if every < 1:
            raise ValueError(f"every is {every}; it must be at least 1.")
        if data is None or isinstance(data, Iterator):
            raise CalibrationDataError(
                f"Recalibrate got {type(data).__name__} and reads its data again at each epoch's "
                "end; give arrays, a file, a tf.data.Dataset or a Sequence."
            )
        self.data, self.every, self.batch_size, self.steps = data, every, batch_size, steps
        self._is_due = False

    def on_train_begin(self, logs=None):
        del logs
        self._observer = observer_of(sim_of(self))
        self._order = BackupOrder(self)
        self._is_due = False

    def on_epoch_begin(self, epoch, logs=None):
        del logs
        self._order.check_no_batches()
        after = epoch + 1
        self._is_due = after % self.every == 0 or after == self.params["epochs"]

    def on_test_begin(self, logs=None):
        del logs
        self._derive()

    def on_epoch_end(self, epoch, logs=None):
        del epoch, logs
        if self._is_due:  # there was no validation
            self._order.check_epochs()
        self._derive()

    def on_train_end(self, logs=None):
        del logs
        sim = sim_of(self)
        # Once more, because EarlyStopping may have brought back other weights.
        sim.stats = collect(sim, self._source(), progress=False, observer=self._observer)

    def _derive(self) -> None:
        if self._is_due:
            self._is_due = False
            recalibrate(sim_of(self), self._source(), self._observer)

    def _source(self):
        return batches(self.data, sim_of(self), self.batch_size, self.steps)
