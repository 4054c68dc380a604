"""Which layers a model's accuracy depends on."""

from keras_edgeq.analysis.sensitivity import sensitivity
from keras_edgeq.analysis.sensitivity_report import SensitivityReport

__all__ = ["SensitivityReport", "sensitivity"]
