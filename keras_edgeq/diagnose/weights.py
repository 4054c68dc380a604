"""What stands in the kernels of a sim: ranges of channels, their steps, and the sums they make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.diagnose.causes import WEIGHT_CLIPPING, WEIGHT_ROUNDING
from keras_edgeq.diagnose.rows import Switch, WeightDiagnosis
from keras_edgeq.diagnose.ways import CLIP, OFF, ROUND, Parameters
from keras_edgeq.graph.rebuild import calls
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.numerics.metrics import ratio_db
from keras_edgeq.ops import matrix_form, op_type
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding


def weight_rows(
    sim: QuantSim,
    known: Parameters,
    accumulated: Mapping[str, float],
    switches: Mapping[str, Switch],
    unknown: Switch,
    equalized: tf_keras.Model | None,
) -> tuple[WeightDiagnosis, ...]:
    """Return a row per layer with quantized weights.

    Args:
        sim: the sim.
        known: its parameters.
        accumulated: layer -> largest sum seen in it.
        switches: of each layer's weights.
        unknown: for those that were not measured.
        equalized: the float model after `equalize`, None if that cannot be done.
    """
    inputs = _input_grids(sim)
    after = {} if equalized is None else {layer.name: layer for layer in equalized.layers}
    rows = []
    for name, layer in sim.quantized_layers().items():
        kernel = layer.kernel_name
        encoding = layer.quantizers[kernel].encoding
        assert encoding is not None  # sims are checked
        exact, clipped, rounded = (known.arrays(name, w)[kernel] for w in (OFF, CLIP, ROUND))
        signal, noise = _power(exact), _power(rounded - exact + clipped - exact)
        low, high = channel_ranges(layer.layer, exact)
        new = after.get(name)
        same = new is not None and getattr(new, kernel, exact).shape == exact.shape
        ranges = channel_ranges(new, np.asarray(getattr(new, kernel))) if same else (None, None)
        most = np.maximum(np.abs(low), np.abs(high))
        rows.append(
            WeightDiagnosis(
                layer=name,
                op=op_type(layer.layer),
                type_name=encoding.spec.type_name,
                per_channel=np.size(encoding.scale) > 1,
                sqnr_db=ratio_db(signal, noise),
                noise={
                    WEIGHT_ROUNDING: _over(_power(rounded - exact), signal),
                    WEIGHT_CLIPPING: _over(_power(clipped - exact), signal),
                },
                low=low,
                high=high,
                equalized_low=ranges[0],
                equalized_high=ranges[1],
                unevenness=float(np.max(most, initial=0.0) / max(np.median(most), 1e-30)),
                steps=float(np.median(most / _scales(layer.layer, encoding, exact))),
                floored=sim.record.floored.get(name, 0),
                accumulator=accumulated.get(name, 0.0),
                accumulator_bound=_bound(layer, inputs.get(name), rounded + clipped - exact),
                accumulator_limit=_limit(layer, sim.record.profile),
                switch=switches.get(name, unknown),
            )
        )
    return tuple(rows)


def channel_ranges(layer: Any, kernel: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the smallest and the greatest weight of each output channel of a layer."""
    form = matrix_form(layer)
    if not form:
        rows = kernel.reshape(-1, 1)
        return rows.min(0).astype(np.float32), rows.max(0).astype(np.float32)
    columns = form.columns(kernel)
    ends = columns.min(1), columns.max(1)
    return ends[0].ravel().astype(np.float32), ends[1].ravel().astype(np.float32)


def _scales(layer: Any, encoding: Encoding, kernel: NDArray) -> NDArray:
    """Return the scale of each output channel."""
    form = matrix_form(layer)
    scale = np.maximum(np.asarray(encoding.unit(kernel.shape), np.float64), 1e-30)
    if not form:
        return np.max(scale, keepdims=False).reshape(1)
    return form.columns(np.broadcast_to(scale, kernel.shape)).max(1).ravel()


def _input_grids(sim: QuantSim) -> dict[str, Encoding]:
    """Return the grid that each layer with weights reads."""
    scales: dict[int, FakeQuant] = {}
    found: dict[str, Encoding] = {}
    for call in calls(sim):
        if isinstance(call.layer, FakeQuant):
            scales[id(call.node.outputs[2])] = call.layer
        elif isinstance(call.layer, QuantizedLayer):
            grid = scales.get(id(call.node.call_kwargs.get("input_scale")))
            if grid is not None and grid.encoding is not None:
                found[call.layer.name] = grid.encoding
    return found


def _bound(layer: QuantizedLayer, reads: Encoding | None, kernel: NDArray) -> float:
    """Return the largest sum of products that integers of the input's grid can lead to."""
    form = matrix_form(layer.layer)
    if not form or reads is None or reads.spec.is_half or not layer.sums_integers:
        return 0.0
    encoding = layer.quantizers[layer.kernel_name].encoding
    assert encoding is not None  # sims are checked
    steps = kernel / np.maximum(np.asarray(encoding.scale, np.float64), 1e-30)
    low, high = (float(end) - float(np.min(reads.zero_point)) for end in reads.bounds)
    columns = form.columns(np.abs(steps))
    return float(np.max(columns.sum(1)) * max(-low, high))


def _limit(layer: QuantizedLayer, profile: TargetProfile) -> float:
    """Return the largest integer that the accumulator of a layer holds; infinite for floats."""
    spec = layer.bias_spec
    if spec is not None and spec.is_half:
        return math.inf
    bits = 32 if spec is None else spec.bits
    return 2.0 ** ((profile.accumulator_bits or bits) - 1) - 1


def _power(values: NDArray) -> float:
    return float(np.sum(np.square(values, dtype=np.float64)))


def _over(power: float, signal: float) -> float:
    return power / signal if signal else 0.0
