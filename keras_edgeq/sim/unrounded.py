"""A sim whose grids have scales but neither round nor clip: it must equal the float model.

Each grid gets a power of two for a scale, another one than its neighbours, so that a tensor that is
read in the wrong unit is wrong by a factor. Powers of two change no digits: what is left of a
difference is float noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.graph.rebuild import Call, infer
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.arithmetic import UNROUNDED
from keras_edgeq.layers.swap import swapped
from keras_edgeq.sim.quant_sim import QuantSim

# Exponents of the scales; as many as a prime number, so that no layout of a model repeats them.
EXPONENTS = (-3, 2, -1, 4, 1, -4, 3, -2, 5, -5, 6)


class Unrounded:
    """Computes the calls of a sim without rounding; the sim is not changed.

    Args:
        sim: a sim, calibrated or not.
    """

    def __init__(self, sim: QuantSim):
        self._exponents = {name: i for i, name in enumerate(sim.quantizers())}

    def __call__(self, call: Call, args: tuple, kwargs: dict) -> Any:
        """Compute a call in inference mode."""
        with self._open(call.layer):
            return infer(call.layer, args, kwargs)

    @contextmanager
    def _open(self, layer: Any) -> Iterator[None]:
        with ExitStack() as stack:
            if isinstance(layer, FakeQuant):
                stack.enter_context(swapped(layer, self._grid(layer)))
            elif isinstance(layer, QuantizedLayer):
                stack.enter_context(swapped(layer, {"arithmetic": UNROUNDED}))
                for quantizer in layer.quantizers.values():
                    stack.enter_context(swapped(quantizer, self._grid(quantizer)))
            yield

    def _grid(self, quantizer: FakeQuant) -> dict[str, Any]:
        first = self._exponents.setdefault(quantizer.tensor, len(self._exponents))
        count = math.prod(quantizer.start.shape)
        scale = [2.0 ** EXPONENTS[(first + i) % len(EXPONENTS)] for i in range(count)]
        scale = np.reshape(np.asarray(scale, np.float32), quantizer.start.shape)
        return {
            "arithmetic": UNROUNDED,
            "learned": None,
            "start": tf.constant(1.0 if quantizer.spec.is_half else scale),
            "start_zero_point": tf.constant(0.0),
            "multiples": None if quantizer.multiples is None else tf.ones_like(quantizer.multiples),
            "qmin": tf.constant(-np.inf),
            "qmax": tf.constant(np.inf),
        }
