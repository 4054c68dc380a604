"""Quantize a Keras model for the edge, and know what the device will compute.

Example:
    >>> import keras_edgeq as eq
    >>> sim = eq.quantize(model, calibration, profile="litert_int8", progress=False)
    >>> report = eq.export(sim, "out/", verify=test_x, progress=False)
    >>> all(run.agrees for run in report.runs)
    True
"""

import sys
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "AutoQuantResult",
    "BenchmarkReport",
    "CalibrationStats",
    "Comparison",
    "Diagnosis",
    "EdgeqError",
    "ExportReport",
    "Finding",
    "Grids",
    "ModelDescription",
    "Precision",
    "QuantPlan",
    "QuantSim",
    "QuantSpec",
    "QuantizationWarning",
    "RunReport",
    "SearchResult",
    "SensitivityReport",
    "TargetProfile",
    "ValidationReport",
    "absorb_bias",
    "adaround",
    "analysis",
    "as_functional",
    "auto_quantize",
    "benchmark",
    "callbacks",
    "compare",
    "correct_bias",
    "describe",
    "diagnose",
    "equalize",
    "errors",
    "export",
    "fold_batch_norms",
    "freeze_encodings",
    "from_keras3",
    "gptq",
    "grids",
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
    "register_layer",
    "requantize",
    "save_sim",
    "search_mixed_precision",
    "seq_mse",
    "smooth",
    "strip",
    "to_keras3",
    "validate",
    "verify",
]


def _is_starting() -> bool:
    """Tell whether this process is the command, which loads the rest when it has to."""
    # `python -m` puts "-m" where the name of the script will be, while it looks for the module.
    _, _, module = " ".join(sys.orig_argv).partition(" -m ")
    as_module = sys.argv[:1] == ["-m"] and module.split()[:1] == [__name__]
    return as_module or getattr(sys.modules.get("keras_edgeq_cli"), "starting", False)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


# TensorFlow takes seconds to import; whoever only asks the command for help does not wait for it.
if TYPE_CHECKING or not _is_starting():
    from keras_edgeq import analysis, callbacks, errors, qat
    from keras_edgeq.analysis import SensitivityReport
    from keras_edgeq.autoquant.auto_quantize import auto_quantize
    from keras_edgeq.autoquant.result import AutoQuantResult
    from keras_edgeq.diagnose import Diagnosis, Finding, diagnose
    from keras_edgeq.errors import EdgeqError, QuantizationWarning
    from keras_edgeq.evaluate.benchmark import benchmark
    from keras_edgeq.evaluate.benchmark_report import BenchmarkReport
    from keras_edgeq.evaluate.compare import compare
    from keras_edgeq.evaluate.comparison import Comparison
    from keras_edgeq.evaluate.validate import validate
    from keras_edgeq.evaluate.validation_report import ValidationReport
    from keras_edgeq.export.encodings import load_encodings
    from keras_edgeq.export.export import export
    from keras_edgeq.export.report import ExportReport
    from keras_edgeq.keras3 import from_keras3, to_keras3
    from keras_edgeq.mixed_precision import SearchResult, keep_worst, search_mixed_precision
    from keras_edgeq.plan import QuantPlan
    from keras_edgeq.prepare.functional import as_functional
    from keras_edgeq.prepare.model_file import load_model
    from keras_edgeq.prepare.own_layers import register_layer
    from keras_edgeq.profiles import TargetProfile, load_profile, profile_names
    from keras_edgeq.profiles.precision import Precision
    from keras_edgeq.ptq.absorb_bias import absorb_bias
    from keras_edgeq.ptq.adaround.adaround import adaround
    from keras_edgeq.ptq.correct_bias import correct_bias
    from keras_edgeq.ptq.equalize import equalize
    from keras_edgeq.ptq.gptq import gptq
    from keras_edgeq.ptq.seq_mse import seq_mse
    from keras_edgeq.ptq.smooth import smooth
    from keras_edgeq.qat.learn_ranges import learn_ranges
    from keras_edgeq.qat.reestimate_batch_norms import reestimate_batch_norms
    from keras_edgeq.quantize import quantize
    from keras_edgeq.requantize import requantize
    from keras_edgeq.runtime.verify import RunReport, verify
    from keras_edgeq.sim import CalibrationStats, QuantSim
    from keras_edgeq.sim.describe import ModelDescription, describe
    from keras_edgeq.sim.fold_batch_norms import fold_batch_norms
    from keras_edgeq.sim.freeze import freeze_encodings
    from keras_edgeq.sim.grids import Grids, grids
    from keras_edgeq.sim.save_load import load_sim, save_sim
    from keras_edgeq.sim.strip import strip
    from keras_edgeq.spec import QuantSpec
