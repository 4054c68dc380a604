"""`FreezeEncodings`: ranges that no longer change from an epoch on."""

from __future__ import annotations

import tf_keras

from keras_edgeq.callbacks.sim_of import sim_of
from keras_edgeq.sim.freeze import all_quantizers, freezable


class FreezeEncodings(tf_keras.callbacks.Callback):
    """Keeps the ranges of some tensors from an epoch on, while the weights train on.

    Learned ranges are held: no optimizer step changes them. `Recalibrate` and later calibrations
    leave them too, as after `freeze_encodings`. Nothing is traced again.

    Works with `BackupAndRestore` in any order.

    Args:
        epoch: from which on, counted from 0.
        patterns: names of tensors as `describe` prints them, `*` and `?` allowed; none means all.

    Raises:
        ValueError: a negative epoch.
        UnsupportedModelError: when `fit` starts, the model is not a sim.
        EncodingsError: when `fit` starts, a pattern names no tensor, or one without a grid.

    Example:
        >>> sim = eq.learn_ranges(sim)
        >>> sim.compile("adam", "mse")
        >>> freeze = eq.callbacks.FreezeEncodings(1, "conv/*")
        >>> history = sim.fit(x, y, epochs=2, callbacks=[freeze], verbose=0)
    """

    def __init__(self, epoch: int, *patterns: str):
        super().__init__()
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}; it must be at least 0.")
        self.epoch, self.patterns = epoch, patterns
        self._names: frozenset[str] = frozenset()
        self._froze = False

    def on_train_begin(self, logs=None):
        del logs
        self._names, self._froze = freezable(sim_of(self), self.patterns or ["*"]), False

    def on_epoch_begin(self, epoch, logs=None):
        del logs
        if epoch >= self.epoch:
            self._freeze()

    def on_train_end(self, logs=None):
        del logs
        # EarlyStopping may have brought back weights of an epoch in which the ranges learned.
        if self._froze:
            self._freeze()

    def _freeze(self) -> None:
        sim = sim_of(self)
        quantizers = all_quantizers(sim)
        for name in self._names:
            quantizers[name].hold()
        sim.keep(frozen=sim.record.frozen | self._names)
        self._froze = True
