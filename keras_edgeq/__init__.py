"""Quantize a Keras model for the edge, and know what the device will compute.

Example:
    >>> import keras_edgeq as eq
    >>> sim = eq.quantize(model, calibration, profile="litert_int8")  # doctest: +SKIP
    >>> report = eq.export(sim, "out/", verify=test_x)  # doctest: +SKIP
"""

from keras_edgeq import analysis, callbacks, qat
from keras_edgeq.export.encodings import load_encodings
from keras_edgeq.export.export import export
from keras_edgeq.mixed_precision import keep_worst, search_mixed_precision
from keras_edgeq.prepare.model_file import load_model
from keras_edgeq.ptq.absorb_bias import absorb_bias
from keras_edgeq.ptq.adaround import adaround
from keras_edgeq.ptq.correct_bias import correct_bias
from keras_edgeq.ptq.equalize import equalize
from keras_edgeq.ptq.gptq import gptq
from keras_edgeq.ptq.seq_mse import seq_mse
from keras_edgeq.ptq.smooth import smooth
from keras_edgeq.qat.learn_ranges import learn_ranges
from keras_edgeq.qat.reestimate_batch_norms import reestimate_batch_norms
from keras_edgeq.quantize import quantize
from keras_edgeq.requantize import requantize
from keras_edgeq.runtime.verify import verify
from keras_edgeq.sim.describe import describe
from keras_edgeq.sim.fold_batch_norms import fold_batch_norms
from keras_edgeq.sim.freeze import freeze_encodings
from keras_edgeq.sim.storage import load_sim, save_sim
from keras_edgeq.sim.strip import strip
from keras_edgeq.spec.target_profile import load_profile, profile_names

__version__ = "0.1.0"
__all__ = [
    "absorb_bias",
    "adaround",
    "analysis",
    "callbacks",
    "correct_bias",
    "describe",
    "equalize",
    "export",
    "fold_batch_norms",
    "freeze_encodings",
    "gptq",
    "keep_worst",
    "learn_ranges",
    "load_encodings",
    "load_model",
    "load_profile",
    "load_sim",
    "profile_names",
    "qat",
    "quantize",
    "reestimate_batch_norms",
    "requantize",
    "save_sim",
    "search_mixed_precision",
    "seq_mse",
    "smooth",
    "strip",
    "verify",
]
