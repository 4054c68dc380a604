"""What is quantized, how, and for whom: frozen data with a JSON form and no TensorFlow."""

from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.quant_plan import QuantPlan
from keras_edgeq.spec.quant_spec import QuantSpec
from keras_edgeq.spec.target_profile import TargetProfile, load_profile, profile_names
from keras_edgeq.spec.tensor_ref import TensorRef

__all__ = [
    "Encoding",
    "QuantPlan",
    "QuantSpec",
    "TargetProfile",
    "TensorRef",
    "load_profile",
    "profile_names",
]
