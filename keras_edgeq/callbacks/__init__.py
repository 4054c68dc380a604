"""Keras callbacks: around a plain float training, and for training a sim.

Example:
    >>> import keras_edgeq as eq
    >>> freeze = eq.callbacks.FreezeEncodings(1)
    >>> history = sim.fit(x, y, epochs=2, callbacks=[freeze], verbose=0)
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
