"""How a tensor is quantized and what it is called: frozen data with a JSON form, no TensorFlow."""

from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.quant_spec import QuantSpec
from keras_edgeq.spec.tensor_ref import TensorRef

__all__ = ["Encoding", "QuantSpec", "TensorRef"]
