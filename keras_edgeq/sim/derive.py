"""Derive the grids of a sim: weights from their values, activations from statistics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import replace
from functools import reduce

import numpy as np

from keras_edgeq.errors import CalibrationDataError, UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.layers import FakeQuant
from keras_edgeq.numerics.histogram import join
from keras_edgeq.numerics.range_rules import histogram_range
from keras_edgeq.ops import op_of
from keras_edgeq.sim.fit import fit_range, fit_weight, grid_options
from keras_edgeq.sim.masked_scores import masked_grids, room
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.stats import CalibrationStats
from keras_edgeq.spec.quant_spec import QuantSpec

# Bits of the largest bias, by the bits of its grid and those of the input. An int32 bias of at most
# 2^24 is exact in float32, so the sim adds what the kernel adds. Behind 16 bits the sums are not
# exact anyway, and the bias only has to stay inside what the kernel holds.
BIAS_BITS = {(32, 8): 24, (32, 16): 30, (64, 8): 38, (64, 16): 38}
Bits = Mapping[str, int]


def derive(
    sim: QuantSim,
    stats: CalibrationStats | Callable[[], CalibrationStats],
    names: Collection[str] | None = None,
    bits: Bits | None = None,
    held: Container[str] = (),
) -> CalibrationStats:
    """Give a sim grids: weights, then activations, then weights under large biases again.

    Frozen grids stay as they are. `record.floored` follows; `record.stats` does not, because
    statistics may be of other bits than the plan's.

    Args:
        sim: its grids change.
        stats: of its activations, or what measures them once the weights have their grids.
        names: grids to derive, by printed name; None for all.
        bits: printed name -> bits, where they are not those of the plan.
        held: weights whose scale is not raised for a bias.

    Returns:
        The statistics.

    Raises:
        CalibrationDataError: the statistics lack tensors; all are named.
    """
    derive_weights(sim, names, bits)
    if not isinstance(stats, CalibrationStats):
        stats = stats()
    derive_activations(sim, stats, names, bits)
    every = [*sim.quantizers(), *kernels(sim)]
    raise_scales(sim, {n for n in every if _is_due(sim, n, names)}, held)
    return stats


def derive_weights(
    sim: QuantSim, names: Container[str] | None = None, bits: Bits | None = None
) -> None:
    """Give weights, all or those named, their grids from their present values.

    Raises:
        UnsupportedModelError: a weight has NaN or infinity.
    """
    for layer in sim.quantized_layers().values():
        for name, quantizer in layer.quantizers.items():
            if not _is_due(sim, f"{layer.name}/{name}", names):
                continue
            values = getattr(layer.layer, name).numpy()
            if not np.isfinite(values).all():
                raise UnsupportedModelError(f"Weight {layer.name}/{name} has NaN or infinity.")
            if quantizer.spec.is_half:
                continue
            spec = _widened(quantizer.spec, f"{layer.name}/{name}", bits)
            spec = _signed(spec, float(values.min()))
            quantizer.assign(fit_weight(spec, values))


def kernels(sim: QuantSim) -> dict[str, str]:
    """Return the printed names of the quantized kernels, and the layer of each."""
    return {f"{n}/{layer.kernel_name}": n for n, layer in sim.quantized_layers().items()}


def derive_activations(
    sim: QuantSim,
    stats: CalibrationStats,
    names: Container[str] | None = None,
    bits: Bits | None = None,
) -> None:
    """Give activations, all or those named, their grids from statistics; no data is needed.

    Raises:
        CalibrationDataError: the statistics lack tensors; all are named.
    """
    sources, keys = _sources(sim, stats, names), masked_grids(sim)
    for owner, quantizer in sim.quantizers().items():
        if not _is_due(sim, owner, names):
            continue
        spec = _widened(quantizer.spec, owner, bits)
        if spec.is_half:
            continue
        if spec.fixed_range is not None:
            low, high = spec.fixed_range
        else:
            histogram = reduce(join, (stats.histograms[name] for name in sources[owner]))
            spec = _signed(spec, histogram.low)
            low, high = histogram_range(histogram, spec.rule, **grid_options(spec))
            low = low - room(keys[owner], spec.bits) if owner in keys else low
        quantizer.assign(fit_range(spec, low, high))


def check_statistics(sim: QuantSim, stats: CalibrationStats, where: str) -> None:
    """Raise unless the statistics cover every grid of the sim.

    Raises:
        CalibrationDataError: names `where` they are from, and what they lack.
    """
    try:
        _sources(sim, stats)
    except CalibrationDataError as error:
        raise CalibrationDataError(f"{where} belongs to another sim: {error}") from None


def raise_scales(
    sim: QuantSim, derived: Container[str] = (), held: Container[str] = ()
) -> dict[str, int]:
    """Raise weight scales whose integer bias would leave the kernel's range.

    A scale is at least |bias| / (s_in 2^n), n being 24 for int32 biases behind 8 bits, so that the
    integer bias is exact in float32 (`BIAS_BITS`), and at least s_out / (s_in 2^n), below which the
    output cannot see the weight. Such channels are dead: tiny weights under a large bias.

    Args:
        sim: its grids change, except frozen ones, and `record.floored`.
        derived: printed names of weights whose grids are new, so that none of their channels was
            raised before.
        held: weights whose scale stays.

    Returns:
        Layer -> number of channels that were raised now.
    """
    graph, floored = LayerGraph.of(sim), {}
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
        kernel = f"{name}/{layer.kernel_name}"
        if not floor.ndim or kernel in sim.record.frozen or kernel in held:
            continue
        quantizer = layer.quantizers[layer.kernel_name]
        floored_count = _raise(quantizer, floor)
        if floored_count:
            floored[name] = floored_count
    before = sim.record.floored
    kept = {n: before[n] for k, n in kernels(sim).items() if n in before and k not in derived}
    sim.keep(floored={**kept, **floored})
    return floored


def _raise(quantizer: FakeQuant, floor: np.ndarray) -> int:
    encoding = quantizer.encoding
    assert encoding is not None  # derive_weights ran before
    shape = encoding.scale.shape
    flat = np.broadcast_to(floor.ravel(), encoding.scale.size) if shape else floor.max()
    floor = np.nextafter(np.float32(flat).reshape(shape), np.float32(np.inf))
    low = encoding.scale < floor
    if np.any(low):
        quantizer.assign(replace(encoding, scale=np.where(low, floor, encoding.scale)))
    return int(np.sum(low))


def _is_due(sim: QuantSim, name: str, names: Container[str] | None) -> bool:
    """Tell whether a grid is among those to derive, and not frozen."""
    return (names is None or name in names) and name not in sim.record.frozen


def _sources(
    sim: QuantSim, stats: CalibrationStats, names: Container[str] | None = None
) -> dict[str, list[str]]:
    """Return, for each grid of those named, the observed tensors it has to cover."""
    graph = LayerGraph.of(sim)
    sources: dict[str, list[str]] = {}
    missing = []
    for node in graph.nodes:
        if not isinstance(node.layer, FakeQuant):
            continue
        if names is not None and node.layer.tensor not in names:
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


def _widened(spec: QuantSpec, name: str, bits: Bits | None) -> QuantSpec:
    return replace(spec, bits=bits[name]) if bits and name in bits else spec


def _signed(spec: QuantSpec, low: float) -> QuantSpec:
    return spec if spec.signed is not None else replace(spec, signed=low < 0.0)


def _input_quantizer(node: GraphNode) -> FakeQuant | None:
    scale = node.call.node.call_kwargs.get("input_scale")
    return None if scale is None else keras_compat.producer(scale)[0]


def _output_quantizer(graph: LayerGraph, node: GraphNode) -> FakeQuant | None:
    """Return the quantizer that requantizes the sums of a weighted call."""
    reader = graph.only_consumer(node.outputs[1])
    return reader.layer if reader is not None and isinstance(reader.layer, FakeQuant) else None
