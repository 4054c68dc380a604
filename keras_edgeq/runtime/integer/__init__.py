"""Execute TFLite files in NumPy integers, bit for bit as LiteRT's kernels do."""

from keras_edgeq.runtime.integer.model import IntegerModel

__all__ = ["IntegerModel"]
