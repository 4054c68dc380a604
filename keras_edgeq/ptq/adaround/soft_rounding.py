"""Rounding as a number between down (0) and up (1), and how it is driven to either end.

Reference:
    Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization",
    arXiv:2004.10568, equations 21 to 25.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# The sigmoid is stretched past 0 and 1, so that an end is reached at a finite number.
ZETA, GAMMA = 1.1, -0.1


def soft_rounding(logits):
    """Return h, from 0 (down) to 1 (up): a stretched sigmoid, cut off at the ends."""
    return tf.clip_by_value(tf.sigmoid(logits) * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)


def logits_of(share: NDArray) -> NDArray:
    """Return the logits at which `soft_rounding` gives a share between 0 and 1."""
    sigmoid = (np.clip(share, 0.0, 1.0) - GAMMA) / (ZETA - GAMMA)
    return np.log(sigmoid / (1.0 - sigmoid)).astype(np.float32)


def rounding_penalty(share, beta):
    """Return the sum of 1 - |2h - 1|^beta: 0 where every h has reached an end."""
    return tf.reduce_sum(1.0 - tf.pow(tf.abs(2.0 * share - 1.0), beta))


def beta_at(iteration, warm, total, beta):
    """Return the exponent of the penalty, which falls over half a cosine.

    Args:
        iteration: a number or scalar tensor, as all others.
        warm: iteration at which the penalty sets in.
        total: iteration at which it ends.
        beta: `(first, last)`.
    """
    done = (iteration - warm) / tf.maximum(total - warm, 1.0)
    return beta[1] + 0.5 * (beta[0] - beta[1]) * (1.0 + tf.cos(np.pi * done))
