"""Which layer hurts, why, what helps, and what that gives."""

from keras_edgeq.diagnose.diagnose import diagnose
from keras_edgeq.diagnose.diagnosis import Diagnosis
from keras_edgeq.diagnose.finding import Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]
