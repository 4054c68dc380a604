"""`EncodingLogger`: every scale of a sim in TensorBoard."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import tensorflow as tf
import tf_keras

from keras_edgeq.callbacks.sim_of import sim_of
from keras_edgeq.errors import EdgeqError
from keras_edgeq.graph.os_errors import os_errors
from keras_edgeq.sim.freeze import all_quantizers
from keras_edgeq.spec.encoding import Encoding


class EncodingLogger(tf_keras.callbacks.Callback):
    """Writes the grids of a sim for TensorBoard at the end of epochs.

    Per tensor, under `tensor/...`: `scale_min`, `scale_mean` and `scale_max`, `zero_point_min` and
    `zero_point_max`, `bits`; and `scales`, a histogram, where there is a scale per channel. Half
    precision and tensors without a grid have none. A restarted training writes another file beside
    the first one; TensorBoard shows them as one.

    Args:
        log_dir: folder for the event files; made if needed.
        every: write every so many epochs; the first and the last always.

    Raises:
        ValueError: `every` is below 1.
        EdgeqError: TensorBoard is not installed; or in training, `log_dir` cannot be written.
        UnsupportedModelError: when `fit` starts, the model is not a sim.

    Example:
        >>> logger = eq.callbacks.EncodingLogger("logs/encodings")
        >>> history = sim.fit(x, y, epochs=2, callbacks=[logger], verbose=0)
    """

    def __init__(self, log_dir: str | Path, every: int = 1):
        super().__init__()
        if every < 1:
            raise ValueError(f"every is {every}; it must be at least 1.")
        if find_spec("tensorboard") is None:
            raise EdgeqError(
                "EncodingLogger writes by way of TensorBoard, which is not installed: "
                "pip install 'keras_edgeq[tensorboard]'."
            )
        self.log_dir, self.every = Path(log_dir), every

    def on_train_begin(self, logs=None):
        del logs
        sim_of(self)
        with self._writing():
            self._writer = tf.summary.create_file_writer(str(self.log_dir))
            self._writer.init()

    def on_epoch_end(self, epoch, logs=None):
        del logs
        if epoch % self.every and epoch + 1 != self.params["epochs"]:
            return
        with self._writing(), self._writer.as_default(step=epoch):
            for name, quantizer in all_quantizers(sim_of(self)).items():
                encoding = quantizer.encoding
                if encoding is not None and not encoding.spec.is_half:
                    _write(name, encoding)
            self._writer.flush()

    def on_train_end(self, logs=None):
        del logs
        with self._writing():
            self._writer.close()

    @contextmanager
    def _writing(self):
        try:
            with os_errors():
                yield
        except OSError as error:
            raise EdgeqError(f"EncodingLogger cannot write {self.log_dir}: {error}") from error


def _write(name: str, encoding: Encoding) -> None:
    scale, zero_point = encoding.scale, encoding.zero_point
    numbers = {
        "scale_min": scale.min(),
        "scale_mean": scale.mean(),
        "scale_max": scale.max(),
        "zero_point_min": zero_point.min(),
        "zero_point_max": zero_point.max(),
        "bits": encoding.spec.bits,
    }
    for key, value in numbers.items():
        tf.summary.scalar(f"{name}/{key}", float(value))
    if scale.size > 1:
        tf.summary.histogram(f"{name}/scales", scale.ravel())
