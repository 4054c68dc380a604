"""keras_edgeq: quantize a Keras model for the edge, and know what the device will compute.

import keras_edgeq as eq

sim = eq.quantize(model, calibration, profile="litert_int8")
sim.compile(loss=loss, metrics=["accuracy"]); sim.evaluate(test)
report = eq.export(sim, "out/", formats=["tflite", "onnx"], verify=test_x)
"""

from keras_edgeq.export.export import export
from keras_edgeq.export.strip import strip
from keras_edgeq.prepare.fold_batch_norms import fold_batch_norms
from keras_edgeq.prepare.model_file import load_model
from keras_edgeq.quantize import quantize
from keras_edgeq.runtime.verify import verify
from keras_edgeq.sim.describe import describe
from keras_edgeq.sim.storage import load_sim, save_sim

__version__ = "0.1.0"
__all__ = [
    "describe",
    "export",
    "fold_batch_norms",
    "load_model",
    "load_sim",
    "quantize",
    "save_sim",
    "strip",
    "verify",
]
