"""Real functions that kernels tabulate: float64 to float64.

A float32 function of the C library is that, rounded.
"""

from __future__ import annotations

import math

import numpy as np

from keras_edgeq.runtime.integer.call import Call


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Compute in the order of the C code: exp in float32, then the quotient."""
    exp = np.exp(-x).astype(np.float32)
    return np.float32(1.0) / (np.float32(1.0) + exp)


def elu(x: np.ndarray) -> np.ndarray:
    """Compute `x`, below 0 `exp(x) - 1`."""
    return np.where(x < 0, np.expm1(np.minimum(x, 0)), x)


def log(x: np.ndarray) -> np.ndarray:
    """Compute the logarithm; of what has none a number below all grids."""
    return np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), -1e9)


def gelu(call: Call):
    """Return the GELU that the options of a call ask for."""
    return _gelu_by_tanh if call.option("approximate", False) else _gelu


def _gelu(x: np.ndarray) -> np.ndarray:
    argument = x.astype(np.float32) * np.float32(-math.sqrt(0.5))
    return 0.5 * x * np.array([math.erfc(v) for v in argument]).astype(np.float32)


def _gelu_by_tanh(x: np.ndarray) -> np.ndarray:
    x32 = x.astype(np.float32)
    inner = x32 + np.float32(0.044715) * x32 * x32 * x32
    argument = np.float32(math.sqrt(2.0 / math.pi)) * inner
    tanh = np.tanh(argument.astype(np.float64)).astype(np.float32)
    return 0.5 * x * (np.float32(1.0) + tanh)
