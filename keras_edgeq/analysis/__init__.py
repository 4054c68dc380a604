"""Which layers a model's accuracy hangs on."""

from keras_edgeq.analysis.sensitivity import sensitivity
from keras_edgeq.analysis.sensitivity_report import SensitivityReport

__all__ = ["SensitivityReport", "sensitivity"]
