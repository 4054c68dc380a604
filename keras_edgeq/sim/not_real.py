"""Tensors that become NaN or infinite while a sim is calibrated: whose fault it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import CalibrationDataError, EdgeqError, UnsupportedModelError
from keras_edgeq.graph.rebuild import replay
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.apart import infer_apart
from keras_edgeq.profiles.precision import FLOAT
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.tensor_ref import TensorRef


def infer_unrounded(layer: Any, args: tuple, kwargs: dict, float_weights: bool = False) -> Any:
    """Call a layer of a sim as it computes without rounded activations."""
    if isinstance(layer, FakeQuant):
        tensor = layer.activate(args[0], kwargs)
        return tensor, tensor, tf.constant(1.0)
    if isinstance(layer, QuantizedLayer):
        kwargs = {}
        if float_weights:
            tensor = layer.layer(*args)
            return tensor, tensor, tf.constant(1.0)
    return infer_apart(layer, args, kwargs)


def not_real(sim: QuantSim, batch: Sequence[Any], tensors: Sequence[str]) -> EdgeqError:
    """Return the error for a batch that makes NaN or infinity.

    The data is at fault, or the model as a whole, where an output becomes such a number too. Where
    none does, the model takes them away again, and only a grid cannot hold them.

    Args:
        sim: the sim.
        batch: of its inputs.
        tensors: quantized ones that hold such numbers, in topological order.
    """
    layers: dict[str, None] = {}

    def on_call(call, args, kwargs):
        made = infer_unrounded(call.layer, args, kwargs)
        reads = (args, kwargs) if _floats(call.node.outputs) else ()
        if not _are_real((made, reads)):
            is_grid = isinstance(call.layer, FakeQuant)
            ref = TensorRef.parse(call.layer.tensor, "output") if is_grid else None
            layers[call.layer.name if ref is None else ref.layer] = None
        return made

    outputs = replay(sim, [tf.constant(part) for part in batch], on_call)
    more = f" (and {len(tensors) - 1} more)" if len(tensors) > 1 else ""
    if not _are_real(outputs):
        return CalibrationDataError(
            f"Tensor {tensors[0]} becomes NaN or infinite on the calibration data{more}."
        )
    floats = {name: FLOAT for name in layers if name not in sim.record.plan.floats}
    return UnsupportedModelError(
        f"Tensor {tensors[0]} becomes NaN or infinite on the calibration data{more}, which no grid "
        "holds, and the model takes that away before its outputs. Let these layers compute in "
        f"float, precision={floats}."
    )


def _are_real(tensors: Any) -> bool:
    """Tell whether all real tensors hold finite numbers."""
    return all(bool(np.isfinite(np.asarray(t, np.float64)).all()) for t in _floats(tensors))


def _floats(tensors: Any) -> list[Any]:
    return [t for t in tf.nest.flatten(tensors) if tf.is_tensor(t) and t.dtype.is_floating]
