"""What callbacks ask of the model that they are used with."""

from __future__ import annotations

from typing import Any

import tf_keras

from keras_edgeq.errors import UnsupportedModelError, warn
from keras_edgeq.graph import keras_compat
from keras_edgeq.sim import QuantSim


def sim_of(callback: tf_keras.callbacks.Callback) -> QuantSim:
    """Return the sim that a callback is used with.

    Raises:
        UnsupportedModelError: the model is not a sim.
    """
    model: Any = callback.model
    if not isinstance(model, QuantSim):
        raise UnsupportedModelError(
            f"{type(callback).__name__} is for training a sim and got {type(model).__name__}; give "
            "it to the fit of what keras_edgeq.quantize returns."
        )
    return model


class BackupOrder:
    """Tells whether `BackupAndRestore` stands before a callback, whose changes it would miss.

    Made in `on_train_begin`, asked later.
    """

    def __init__(self, callback: tf_keras.callbacks.Callback):
        self.callback = callback
        self.at_start = keras_compat.backup(callback.model)
        self.warned = False

    def check_epochs(self) -> None:
        """Warn if the end of an epoch is saved without what the callback does there."""
        self._warn_if(self._stands_before())

    def check_batches(self) -> None:
        """Warn if the end of a batch is saved without what the callback does there."""
        self._warn_if(self._saves_batches() and self._stands_before())

    def check_no_batches(self) -> None:
        """Warn if batches are saved at all, of which the last one lies before an epoch's end."""
        self._warn_if(self._saves_batches())

    def _stands_before(self) -> bool:
        return self.at_start is not None and self.at_start is keras_compat.backup(
            self.callback.model
        )

    def _saves_batches(self) -> bool:
        state = keras_compat.backup(self.callback.model)
        return state is not None and keras_compat.backs_up_batches(state)

    def _warn_if(self, wrong: bool) -> None:
        if wrong and not self.warned:
            self.warned = True
            name = type(self.callback).__name__
            warn(
                f"BackupAndRestore saves before {name} does its part, so a restarted training may "
                f"differ from one that was not killed. List it after {name}"
                + (", with save_freq='epoch'." if self._saves_batches() else "."),
                UserWarning,
            )
