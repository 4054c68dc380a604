"""The simulation: decide where quantizers stand, insert them, give them their grids."""

from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.stats import CalibrationStats

__all__ = ["CalibrationStats", "QuantSim"]
