"""Ways to compute a sim's calls: with some of its quantizers, or a part of their error."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.diagnose import causes
from keras_edgeq.graph.rebuild import Call
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.apart import infer_apart
from keras_edgeq.layers.arithmetic import ROUNDED, UNROUNDED
from keras_edgeq.layers.block_scales import unit_of
from keras_edgeq.layers.swap import swapped
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.reference import float_parameters

# Of an activation's quantizer, and of a layer's weights.
ON, OFF, ROUND, CLIP, BIAS = "on", "off", "round", "clip", "bias"
NO_BOUNDS = {"qmin": tf.constant(-np.inf), "qmax": tf.constant(np.inf)}
# What it reads may lie between the steps of its grid, where a quantizer in front is off.
OPEN = ROUNDED._replace(whole=tf.identity)
# Settings of an activation's quantizer.
QUANTIZER: Mapping[str, Mapping[str, Any]] = {
    ON: {},
    OFF: {"arithmetic": UNROUNDED, **NO_BOUNDS},
    ROUND: NO_BOUNDS,
    CLIP: {"arithmetic": UNROUNDED},
}


@dataclass(frozen=True)
class Way:
    """What rounds in a walk.

    Args:
        activations: of the quantizers: `"on"`, `"off"`, `"round"` (without bounds) or `"clip"`
            (without rounding).
        weights: of the layers: the same, and `"bias"`, which rounds the bias alone. What `"round"`
            adds to the float weights is all that `"clip"` does not, a technique's changes included.
    """

    activations: str
    weights: str


EXACT = Way(OFF, OFF)
SIM = Way(ON, ON)
# Cause of an error -> the walk in which there is no other.
CAUSES = {
    causes.WEIGHT_ROUNDING: Way(OFF, ROUND),
    causes.WEIGHT_CLIPPING: Way(OFF, CLIP),
    causes.BIAS: Way(OFF, BIAS),
    causes.ROUNDING: Way(ROUND, OFF),
    causes.CLIPPING: Way(CLIP, OFF),
}


class Parameters:
    """The parameters of a sim's layers, with each part of what quantization does to them.

    Args:
        sim: a calibrated sim; it is not changed, and must not change.
    """

    def __init__(self, sim: QuantSim):
        exact = float_parameters(sim)
        self._parts: dict[str, dict[str, dict[str, Any]]] = {}
        for name, layer in sim.quantized_layers().items():
            parts = {way: {} for way in (OFF, ROUND, CLIP)}
            for param, quantizer in layer.quantizers.items():
                one = exact[f"{name}/{param}"]
                rounded = quantizer(getattr(layer.layer, param))[0].numpy()
                clipped = _clipped(one, quantizer)
                parts[OFF][param], parts[CLIP][param] = one, clipped
                parts[ROUND][param] = one + (rounded - clipped)
            if f"{name}/bias" in exact and "bias" not in layer.quantizers:
                bias = exact[f"{name}/bias"]
                parts[OFF]["bias"] = parts[CLIP]["bias"] = bias
                parts[ROUND]["bias"] = layer.layer.bias.numpy()
            self._parts[name] = parts
        self._tensors: dict[tuple[str, str], dict[str, tf.Tensor]] = {}
        self._integers: dict[tuple[str, float], tuple[dict[str, Any], Any]] = {}

    def arrays(self, layer: str, way: str) -> Mapping[str, np.ndarray]:
        """Return the parameters of a layer with one part of the error: `off`, `round`, `clip`."""
        return self._parts[layer][way]

    def tensors(self, layer: str, way: str) -> Mapping[str, tf.Tensor]:
        """Return the same as tensors."""
        if (layer, way) not in self._tensors:
            arrays = self._parts[layer][way]
            made = {param: tf.constant(array, tf.float32) for param, array in arrays.items()}
            self._tensors[layer, way] = made
        return self._tensors[layer, way]

    def integers(self, layer: QuantizedLayer, input_scale: Any) -> tuple[dict[str, Any], Any]:
        """Return `integer_params` of a layer, rounded once for all calls on the same grid."""
        key = layer.name, float(input_scale)
        if key not in self._integers:
            self._integers[key] = QuantizedLayer.integer_params(layer, input_scale)
        return self._integers[key]

    def noise(self, layer: str) -> float:
        """Return the power of the error of a layer's parameters over theirs."""
        parts = self._parts[layer]
        errors = (
            parts[ROUND][name] - one + parts[CLIP][name] - one
            for name, one in parts[OFF].items()
            if name != "bias"
        )
        signal = sum(float(np.sum(np.square(one))) for n, one in parts[OFF].items() if n != "bias")
        return sum(float(np.sum(np.square(error))) for error in errors) / max(signal, 1e-30)


def _clipped(values: np.ndarray, quantizer: FakeQuant) -> np.ndarray:
    """Return numbers that end where a grid ends, within half a step."""
    encoding = quantizer.encoding
    assert encoding is not None  # sims are checked
    if encoding.spec.is_half:
        return values
    half, (low, high) = encoding.unit(values.shape) / 2, encoding.ends(values.shape)
    return np.clip(values, low - half, high + half).astype(np.float32)


def compute_call(call: Call, args: tuple, kwargs: dict, way: Way, known: Parameters) -> Any:
    """Compute a call of a sim in one way; the sim is not changed."""
    layer = call.layer
    if _is_float(layer, args, way):
        made = _quantizer_off if isinstance(layer, FakeQuant) else partial(_layer_off, known)
        return made(layer, *args, **kwargs)
    with ExitStack() as stack:
        if isinstance(layer, FakeQuant):
            stack.enter_context(swapped(layer, QUANTIZER[way.activations]))
        elif isinstance(layer, QuantizedLayer):
            for target, values in _of_layer(layer, way, known):
                stack.enter_context(swapped(target, values))
        return infer_apart(layer, args, kwargs)


def _is_float(layer: Any, args: tuple, way: Way) -> bool:
    """Tell whether a call rounds nothing, so that it needs no steps of any grid."""
    if hasattr(args[0] if args else None, "_keras_mask"):
        return False  # which Keras hands on
    if isinstance(layer, FakeQuant):
        return way.activations == OFF and not layer.spec.is_half
    return isinstance(layer, QuantizedLayer) and way.weights == OFF and not layer.rounds_rows


def _quantizer_off(
    layer: FakeQuant, inputs: Any, input_scale: Any = None, unit: Any = None, **options: Any
) -> tuple[Any, Any, Any]:
    """Return what a quantizer reads, on its grid's scale: a reader's bias lies on that."""
    real = tf.cast(inputs, tf.float32)
    if unit is None and input_scale is not None:
        real = real * tf.cast(input_scale, tf.float32)
    real = layer.activate(real, options)
    scale = layer.scale
    return real, real * tf.math.divide_no_nan(1.0, unit_of(layer, scale, real.shape)), scale


def _layer_off(
    known: Parameters,
    layer: QuantizedLayer,
    inputs: Any,
    input_scale: Any = None,
    in_steps: bool = False,
    **_: Any,
) -> tuple[Any, Any, Any]:
    """Return what a layer computes in float, in steps of 1."""
    real = inputs * input_scale if in_steps else inputs
    with swapped(layer.layer, known.tensors(layer.name, OFF)):
        made = infer_apart(layer.layer, (real,), {})
    return made, made, tf.constant(1.0)


def _of_layer(layer: QuantizedLayer, way: Way, known: Parameters) -> list[tuple[Any, dict]]:
    """Return what is exchanged in a layer."""
    rows = OPEN.rows if way.activations in (ON, ROUND) else UNROUNDED.rows
    if way.weights == ON:
        kept = partial(known.integers, layer)
        return [(layer, {"arithmetic": OPEN._replace(rows=rows), "integer_params": kept})]
    parameters = known.tensors(layer.name, OFF if way.weights == BIAS else way.weights)
    arithmetic = OPEN if way.weights == BIAS else UNROUNDED
    return [
        (layer.layer, dict(parameters)),
        (layer, {"arithmetic": arithmetic._replace(rows=rows)}),
        *((quantizer, dict(QUANTIZER[OFF])) for quantizer in layer.quantizers.values()),
    ]
