"""Give a sim its grids: weights from their values, activations from one pass over data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_edgeq.errors import CalibrationDataError, UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.graph.rebuild import replay
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.apart import infer_apart
from keras_edgeq.numerics.affine import grid_from_range
from keras_edgeq.numerics.histogram import (
    Histogram,
    empty,
    exponent_for,
    join,
    merge,
    observe,
    of_batch,
)
from keras_edgeq.numerics.range_rules import histogram_range, weight_range
from keras_edgeq.ops import op_of
from keras_edgeq.sim.quant_sim import QuantSim, quantized_tensors
from keras_edgeq.sim.stats import CalibrationStats
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.quant_spec import QuantSpec

# Bits of the largest bias, by the bits of its grid and those of the input. An int32 bias of at most
# 2^24 is exact in float32, so the sim adds what the kernel adds. Behind 16 bits the sums are not
# exact anyway, and the bias only has to stay inside what the kernel holds.
BIAS_BITS = {(32, 8): 24, (32, 16): 30, (64, 8): 38, (64, 16): 38}
Observer = tuple[list[str], Callable]


def assign_weights(sim: QuantSim, bits: Mapping[str, int] | None = None) -> None:
    """Give every weight its grid from its present values, but for frozen ones.

    A weight named in `bits` gets so many.
    """
    for layer in sim.quantized_layers().values():
        for name, quantizer in layer.quantizers.items():
            if f"{layer.name}/{name}" in sim.record.frozen:
                continue
            values = getattr(layer.layer, name).numpy()
            if not np.isfinite(values).all():
                raise UnsupportedModelError(f"Weight {layer.name}/{name} has NaN or infinity.")
            if quantizer.spec.is_half:
                continue
            spec = _widened(quantizer.spec, f"{layer.name}/{name}", bits)
            spec = _signed(spec, float(values.min()))
            low, high = weight_range(values, spec.axes, spec.rule, **_grid_options(spec))
            quantizer.assign(_encoding(spec, low, high))


def collect(
    sim: QuantSim,
    source: Iterable[Sequence[Any]],
    progress: bool = True,
    observer: Observer | None = None,
) -> CalibrationStats:
    """Run the sim over the data once and return histograms of its activations.

    Weights are quantized meanwhile, activations are not. Memory does not depend on the number of
    batches, and the result not on their order but for moving averages. An `observer` of the sim
    from an earlier pass saves its tracing.
    """
    tensors, observe_batch = observer or observer_of(sim)
    merged: dict[str, Histogram] = dict.fromkeys(tensors, empty())
    exponents = np.full(len(tensors), exponent_for(0.0, 0.0), np.int32)
    samples = 0
    for batch in tqdm(source, desc="calibrate", unit="batch", disable=not progress):
        samples += len(batch[0])
        counts, exponents, lows, highs = (t.numpy() for t in observe_batch(batch, exponents))
        finite = (lows <= highs) & np.isfinite(lows) & np.isfinite(highs)
        bad = [tensor for tensor, good in zip(tensors, finite, strict=True) if not good]
        if bad:
            raise CalibrationDataError(
                f"Tensor {bad[0]} becomes NaN or infinite on the calibration data"
                + (f" (and {len(bad) - 1} more)." if len(bad) > 1 else ".")
            )
        for i, tensor in enumerate(tensors):
            seen = of_batch(counts[i], exponents[i], lows[i], highs[i])
            merged[tensor] = merge(merged[tensor], seen)
    return CalibrationStats(merged, samples)


def assign_activations(
    sim: QuantSim, stats: CalibrationStats, bits: Mapping[str, int] | None = None
) -> None:
    """Give every activation its grid from statistics, but for frozen ones; no data is needed.

    A tensor named in `bits` gets so many.

    Raises:
        CalibrationDataError: the statistics lack tensors; all are named.
    """
    sources = _sources(sim, stats)
    for owner, quantizer in sim.quantizers().items():
        if owner in sim.record.frozen:
            continue
        spec = _widened(quantizer.spec, owner, bits)
        if spec.is_half:
            continue
        if spec.fixed_range is not None:
            low, high = spec.fixed_range
        else:
            histogram = reduce(join, (stats.histograms[name] for name in sources[owner]))
            spec = _signed(spec, histogram.low)
            low, high = histogram_range(histogram, spec.rule, **_grid_options(spec))
        quantizer.assign(_encoding(spec, low, high))


def check_statistics(sim: QuantSim, stats: CalibrationStats, where: str) -> None:
    """Raise unless the statistics cover every grid of the sim.

    Raises:
        CalibrationDataError: names `where` they are from, and what they lack.
    """
    try:
        _sources(sim, stats)
    except CalibrationDataError as error:
        raise CalibrationDataError(f"{where} belongs to another sim: {error}") from None


def floor_weight_scales(sim: QuantSim) -> dict[str, int]:
    """Raise weight scales whose integer bias would leave the kernel's range, and count them.

    A scale is at least |bias| / (s_in 2^n), n being 24 for int32 biases behind 8 bits, so that the
    integer bias is exact in float32 (`BIAS_BITS`), and at least s_out / (s_in 2^n), below which the
    output cannot see the weight. Such channels are dead: tiny weights under a large bias.
    """
    graph, floored = LayerGraph(sim), {}
    for name, layer in sim.quantized_layers().items():
        floor = np.zeros(())
        for node in graph.calls_of(layer):
            input_grid = _input_quantizer(node)
            if layer.bias_spec is None or layer.bias_spec.is_half or input_grid is None:
                continue
            output_grid = _output_quantizer(graph, node)
            bias = layer.layer.bias
            least = np.zeros(1) if bias is None else np.abs(np.float64(bias.numpy()))
            if output_grid is not None:
                least = np.maximum(least, np.float64(output_grid.scale.numpy()))
            wide = 8 if input_grid.spec.bits <= 8 else 16
            room = 2.0 ** BIAS_BITS[layer.bias_spec.bits, wide]
            floor = np.maximum(floor, least / (float(input_grid.scale) * room))
        if not floor.ndim or f"{name}/{layer.kernel_name}" in sim.record.frozen:
            continue
        quantizer = layer.quantizers[layer.kernel_name]
        floored_count = _raise_scales(quantizer, floor)
        if floored_count:
            floored[name] = floored_count
    return floored


def _raise_scales(quantizer: FakeQuant, floor: np.ndarray) -> int:
    encoding = quantizer.encoding
    assert encoding is not None  # assign_weights ran before
    shape = encoding.scale.shape
    flat = np.broadcast_to(floor.ravel(), encoding.scale.size) if shape else floor.max()
    floor = np.nextafter(np.float32(flat).reshape(shape), np.float32(np.inf))
    low = encoding.scale < floor
    if np.any(low):
        quantizer.assign(replace(encoding, scale=np.where(low, floor, encoding.scale)))
    return int(np.sum(low))


def _sources(sim: QuantSim, stats: CalibrationStats) -> dict[str, list[str]]:
    """Return, for each grid, the observed tensors it has to cover."""
    graph = LayerGraph(sim)
    sources: dict[str, list[str]] = {}
    missing = []
    for node in graph.nodes:
        if not isinstance(node.layer, FakeQuant):
            continue
        seen = _observed(graph, node, stats)
        if not seen and node.layer.spec.fixed_range is None and not node.layer.spec.is_half:
            missing.append(node.call.node.call_kwargs["tensor"])
        sources.setdefault(node.layer.tensor, []).extend(seen)
    if missing:
        raise CalibrationDataError(
            f"The calibration statistics lack {', '.join(missing)}; calibrate with data."
        )
    return sources


def _observed(graph: LayerGraph, node: GraphNode, stats: CalibrationStats) -> list[str]:
    """Return the observed tensors that hold the values of a call's output.

    A tensor that was not observed itself, because only this precision or target quantizes it, holds
    no other values than what it was moved, averaged or quantized from.
    """
    name = node.call.node.call_kwargs.get("tensor", str(node.outputs[0]))
    if name in stats.histograms:
        return [name]
    is_edge = isinstance(node.layer, FakeQuant)
    if not is_edge and not op_of(node.layer).stays_in_range:
        return []
    sources = node.inputs[:1] if is_edge else node.inputs
    found = [_observed(graph, graph.producer(ref), stats) for ref in sources]
    return [name for names in found for name in names] if all(found) else []


def observer_of(sim: QuantSim, float_weights: bool = False) -> Observer:
    """Return the names of all quantized tensors and a traced function over one batch.

    It computes with the weights rounded, or with the float ones.
    """

    def observe_batch(inputs, exponents):
        seen: dict[str, tuple] = {}
        order = {tensor: i for i, tensor in enumerate(tensors)}

        def on_call(call, args, kwargs):
            layer = call.layer
            if isinstance(layer, FakeQuant):
                tensor, name = layer.activate(args[0], kwargs), kwargs["tensor"]
                seen[name] = observe(tensor, exponents[order[name]])
                return tensor, tensor, tf.constant(1.0)
            if isinstance(layer, QuantizedLayer):
                kwargs = {}
                if float_weights:
                    tensor = layer.layer(*args)
                    return tensor, tensor, tf.constant(1.0)
            return infer_apart(layer, args, kwargs)

        replay(sim, inputs, on_call)
        return _stack([seen[tensor] for tensor in tensors])

    tensors = quantized_tensors(sim)
    signature = [
        [tf.TensorSpec(t.shape, t.dtype) for t in sim.inputs],
        tf.TensorSpec([len(tensors)], tf.int32),
    ]
    traced = tf.function(observe_batch, input_signature=signature, autograph=False)
    # A concrete function: TensorFlow would warn of retracing when several models are calibrated.
    return tensors, traced.get_concrete_function()


def _stack(taps: list):
    if not taps:  # every layer is float
        return tuple(tf.zeros(shape) for shape in ([0, 0], [0], [0], [0]))
    counts, exponents, lows, highs = zip(*taps, strict=True)
    return tf.stack(counts), tf.stack(exponents), tf.stack(lows), tf.stack(highs)


def _widened(spec: QuantSpec, name: str, bits: Mapping[str, int] | None) -> QuantSpec:
    return replace(spec, bits=bits[name]) if bits and name in bits else spec


def _signed(spec: QuantSpec, low: float) -> QuantSpec:
    return spec if spec.signed is not None else replace(spec, signed=low < 0.0)


def _grid_options(spec: QuantSpec) -> dict:
    return {
        "bits": spec.bits,
        "symmetric": spec.symmetric,
        "signed": bool(spec.signed),
        "narrow_range": spec.narrow_range,
        "percentile": spec.percentile,
    }


def _encoding(spec: QuantSpec, low, high) -> Encoding:
    options = {k: v for k, v in _grid_options(spec).items() if k != "percentile"}
    scale, zero_point = grid_from_range(low, high, **options)
    return Encoding(spec, scale, zero_point)


def _input_quantizer(node: GraphNode) -> FakeQuant | None:
    scale = node.call.node.call_kwargs.get("input_scale")
    return None if scale is None else keras_compat.producer(scale)[0]


def _output_quantizer(graph: LayerGraph, node: GraphNode) -> FakeQuant | None:
    """Return the quantizer that requantizes the sums of a weighted call."""
    reader = graph.only_consumer(node.outputs[1])
    return reader.layer if reader is not None and isinstance(reader.layer, FakeQuant) else None
