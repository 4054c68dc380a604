"""`FreezeBatchNorm`: batch norms stop following the batches."""

from __future__ import annotations

import tf_keras

from keras_edgeq.callbacks.sim_of import sim_of
from keras_edgeq.errors import UnsupportedModelError


class FreezeBatchNorm(tf_keras.callbacks.Callback):
    """Lets all batch norms of a sim run on their moving statistics from an epoch on.

    Training then matches deployment: a folded batch norm does not depend on the batch. Gamma and
    beta train on. Nothing is traced again. The batch norms stay frozen after training;
    `layer.frozen.assign(0.0)` unfreezes one.

    Works with `BackupAndRestore` in any order.

    Args:
        epoch: from which on, counted from 0.

    Raises:
        ValueError: a negative epoch.
        UnsupportedModelError: when `fit` starts, the model is not a sim with batch norms.

    Example:
        >>> sim = eq.quantize(model, data, batch_norm="train", progress=False)
        >>> sim.compile("adam", "mse")
        >>> freeze = eq.callbacks.FreezeBatchNorm(1)
        >>> history = sim.fit(x, y, epochs=2, callbacks=[freeze], verbose=0)

    Reference:
        Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference",
        arXiv:1806.08342, on batch normalization.
    """

    def __init__(self, epoch: int):
        super().__init__()
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}; it must be at least 0.")
        self.epoch = epoch

    def on_train_begin(self, logs=None):
        del logs
        if not sim_of(self).batch_norms():
            raise UnsupportedModelError(
                "The sim has no batch norms that FreezeBatchNorm could freeze, because they are "
                'folded. Quantize with batch_norm="train", or leave the callback out.'
            )

    def on_epoch_begin(self, epoch, logs=None):
        del logs
        if epoch >= self.epoch:
            for layer in sim_of(self).batch_norms().values():
                layer.frozen.assign(1.0)
