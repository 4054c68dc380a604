"""AdaRound: rounding directions learned by reconstruction."""

from keras_edgeq.ptq.adaround.adaround import adaround

__all__ = ["adaround"]
