"""Keras callbacks: around a plain float training, and for training a sim.

Example:
    >>> import keras_edgeq as eq
    >>> eq.callbacks.QuantizedEval(calibration, (test_x, test_y))  # doctest: +SKIP
    >>> sim.fit(x, y, callbacks=[eq.callbacks.FreezeEncodings(5)])  # doctest: +SKIP
"""

from keras_edgeq.callbacks.bit_width_schedule import BitWidthSchedule
from keras_edgeq.callbacks.encoding_logger import EncodingLogger
from keras_edgeq.callbacks.export_best import ExportBest
from keras_edgeq.callbacks.freeze_batch_norm import FreezeBatchNorm
from keras_edgeq.callbacks.freeze_encodings import FreezeEncodings
from keras_edgeq.callbacks.oscillation_freezing import OscillationFreezing
from keras_edgeq.callbacks.quantized_eval import QuantizedEval
from keras_edgeq.callbacks.recalibrate import Recalibrate

__all__ = [
    "BitWidthSchedule",
    "EncodingLogger",
    "ExportBest",
    "FreezeBatchNorm",
    "FreezeEncodings",
    "OscillationFreezing",
    "QuantizedEval",
    "Recalibrate",
]
