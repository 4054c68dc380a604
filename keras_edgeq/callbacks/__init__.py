"""Keras callbacks around a plain float training.

Example:
    >>> import keras_edgeq as eq
    >>> eq.callbacks.QuantizedEval(calibration, (test_x, test_y))  # doctest: +SKIP
"""

from keras_edgeq.callbacks.quantized_eval import QuantizedEval

__all__ = ["QuantizedEval"]
