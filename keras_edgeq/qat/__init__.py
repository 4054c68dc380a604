"""Quantization-aware training beyond `fit`.

Example:
    >>> import keras_edgeq as eq
    >>> result = eq.qat.train(sim, (x, y), epochs=2, loss="mse", teacher=model, progress=False)
"""

from keras_edgeq.qat.distill import Distillation
from keras_edgeq.qat.train import TrainingResult, train

__all__ = ["Distillation", "TrainingResult", "train"]
