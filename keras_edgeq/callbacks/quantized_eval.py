"""`QuantizedEval`: how good the model would be on the target, seen while it trains in float."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tf_keras

from keras_edgeq.callbacks.refresh import refresh
from keras_edgeq.callbacks.scoring import check_validation, compile_like, evaluate
from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.graph import keras_compat
from keras_edgeq.prepare.check import check_model
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.quantize import quantize
from keras_edgeq.sim import QuantSim
from keras_edgeq.sim.calibrate import observer_of
from keras_edgeq.sim.data import Batch, batches

# What a generator that can be read only once may take in memory.
KEPT_BYTES = 2**30


class QuantizedEval(tf_keras.callbacks.Callback):
    """Logs `val_quant_loss` and `val_quant_<metric>`: the validation of the quantized weights.

    At an epoch's end the current float weights are quantized into a sim, calibrated, and evaluated
    with the loss and the metrics that the model was compiled with. The values go into `logs`, so
    `History` and every callback after this one in the list can use them:
    `EarlyStopping(monitor="val_quant_accuracy", mode="max")`, `ModelCheckpoint`, `CSVLogger`.
    Epochs in between log NaN, which improves nothing. The model, its optimizer and its metrics are
    not touched.

    The sim is built and traced once per `fit`; later epochs get the new weights and new grids.
    Weight regularization counts as in `val_loss`, with the float weights. A `test_step` of the
    model's own class is not used.

    Args:
        calibration: representative inputs in any form that `quantize` takes, read again at each
            evaluation. A generator, which can be read once, is kept in memory, up to 1 GiB.
        validation: `(x, y)` or `(x, y, sample_weight)`, a finite `tf.data.Dataset` or a `Sequence`.
        profile: the target, as in `quantize`.
        every: evaluate every so many epochs; the first and the last always.
        batch_size: of calibration and validation arrays.
        steps: read at most that many calibration batches.
        options: further arguments of `quantize`, such as `precision`.

    Attributes:
        sim: the sim of the last evaluation, of weights that may be some epochs old; None before
            `fit`. It can be exported.

    Raises:
        UnsupportedModelError: when `fit` starts, a model that `quantize` does not take, or one that
            is compiled without loss and metrics; at an epoch's end, weights that became NaN.
        CalibrationDataError: no calibration data; validation data that can be read only once or
            never ends; when `fit` starts, calibration data that `quantize` does not take or a
            generator above 1 GiB.

    Example:
        >>> import numpy as np, tf_keras, keras_edgeq as eq
        >>> x, y = np.random.rand(64, 8), np.random.randint(0, 2, 64)
        >>> model = tf_keras.Sequential([tf_keras.Input((8,)), tf_keras.layers.Dense(2)])
        >>> loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile("sgd", loss, metrics=["accuracy"])
        >>> quantized = eq.callbacks.QuantizedEval(x, (x, y))
        >>> history = model.fit(x, y, epochs=2, callbacks=[quantized], verbose=0)
        >>> len(history.history["val_quant_accuracy"])
        2
    """

    sim: QuantSim | None

    def __init__(
        self,
        calibration: Any,
        validation: Any,
        profile: str | Path | TargetProfile = "litert_int8",
        *,
        every: int = 1,
        batch_size: int = 32,
        steps: int | None = None,
        **options: Any,
    ):
        super().__init__()
        if every < 1:
            raise ValueError(f"every is {every}; it must be at least 1.")
        if calibration is None:
            raise CalibrationDataError(
                "Calibration data is None; the grids follow the weights, so give representative "
                "inputs. Quantizing without data is done by quantize alone."
            )
        check_validation(validation)
        self.calibration, self.validation, self.profile = calibration, validation, profile
        self.every, self.batch_size, self.steps = every, batch_size, steps
        self.options = {"progress": False, **options}
        self.sim = None

    def on_train_begin(self, logs=None):
        del logs
        check_model(self.model)
        if isinstance(self.calibration, Iterator):
            source = batches(self.calibration, self.model, self.batch_size, self.steps)
            self.calibration = _read_once(source)
        with keras_compat.kept_seeds():
            sim = quantize(
                self.model,
                self.calibration,
                self.profile,
                batch_size=self.batch_size,
                steps=self.steps,
                **self.options,
            )
            compile_like(sim, self.model)
            self._observer = observer_of(sim)
        self.sim = sim
        self._names: list[str] = []

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        last = epoch + 1 == self.params["epochs"]
        if self._names and epoch % self.every and not last:
            logs.update(dict.fromkeys(self._names, float("nan")))
            return
        assert self.sim is not None  # fit has begun
        with keras_compat.kept_seeds():
            source = batches(self.calibration, self.model, self.batch_size, self.steps)
            refresh(self.sim, self.model, source, self._observer)
            scores = evaluate(self.sim, self.model, self.validation, self.batch_size)
        seen = {f"val_quant_{name}": value for name, value in scores.items()}
        self._names = list(seen)
        logs.update(seen)


def _read_once(source: Iterator[Batch]) -> list[Batch]:
    """Return all batches of a source that can be read only once."""
    kept, size = [], 0
    for batch in source:
        kept.append(batch)
        size += sum(part.nbytes for part in batch)
        if size > KEPT_BYTES:
            raise CalibrationDataError(
                f"The calibration generator can be read only once and holds more than "
                f"{KEPT_BYTES} bytes. Give a tf.data.Dataset or a Sequence, which can be read "
                "again, or fewer batches with steps=."
            )
    return kept
