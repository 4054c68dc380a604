"""Causes of lost accuracy."""

from __future__ import annotations

DEAD, IN_FLOAT, CALIBRATION, SHARED_GRID = (
    "dead channels",
    "float",
    "calibration range",
    "shared grid",
)
OVERFLOW, KERNEL, RUNTIME, BIAS = "accumulator overflow", "kernel arithmetic", "runtime", "bias"
WEIGHT_ROUNDING, WEIGHT_CLIPPING = "weight rounding", "weight clipping"
ROUNDING, CLIPPING = "activation rounding", "activation clipping"
CAUSES = (
    WEIGHT_ROUNDING, WEIGHT_CLIPPING, ROUNDING, CLIPPING, BIAS, CALIBRATION, SHARED_GRID, DEAD,
    IN_FLOAT, OVERFLOW, KERNEL, RUNTIME,
)  # fmt: skip
