"""The layers a sim adds to a Keras model, and what is known about Keras's own."""

from keras_edgeq.layers.fake_quant import FakeQuant
from keras_edgeq.layers.quantized_layer import QuantizedLayer
from keras_edgeq.ops.freezable_batch_norm import FreezableBatchNorm

__all__ = ["FakeQuant", "FreezableBatchNorm", "QuantizedLayer"]
