"""Turn what was measured of a sim into the rows of a `Diagnosis`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.diagnose.error_walk import TensorSums, quantizers_by_tensor
from keras_edgeq.diagnose.rows import FloatLayer, GraphLayer, Switch, TensorDiagnosis
from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.numerics.histogram import Histogram
from keras_edgeq.numerics.metrics import ratio_db
from keras_edgeq.ops import op_of, op_type
from keras_edgeq.ops.macs import macs
from keras_edgeq.ops.plain import INPUT
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.tensor_ref import TensorRef

# A channel explodes if it reaches so many times as far as the median channel.
FAR = 100.0
BINS = 64


def tensor_rows(
    sim: QuantSim,
    graph: LayerGraph,
    sums: Mapping[str, TensorSums],
    switches: Mapping[str, Switch],
    unknown: Switch,
) -> tuple[TensorDiagnosis, ...]:
    """Return a row per quantized tensor.

    Args:
        sim: the sim.
        graph: of its float model.
        sums: of each tensor.
        switches: of each grid, by the tensor that owns it.
        unknown: for those that were not measured.
    """
    quantizers = quantizers_by_tensor(sim)
    histograms = {} if sim.stats is None else sim.stats.histograms
    ops = {node.layer.name: op_type(node.layer) for node in graph.nodes}
    rows = []
    for name, one in sums.items():
        quantizer = quantizers[name]
        encoding = quantizer.encoding
        assert encoding is not None  # sims are checked
        layer = layer_of(name)
        counts, ends = _coarse(histograms.get(name))
        rows.append(
            TensorDiagnosis(
                tensor=name,
                layer=layer,
                op=ops.get(layer, INPUT.name),
                owner=quantizer.tensor,
                type_name=encoding.spec.type_name,
                own_db=ratio_db(one.signal, one.own),
                inherited_db=ratio_db(one.signal, one.inherited),
                total_db=ratio_db(one.signal, one.total),
                cosine=_cosine(one),
                noise={cause: _over(power, one.signal) for cause, power in one.noise.items()},
                low=float(np.min(one.low, initial=0.0)),
                high=float(np.max(one.high, initial=0.0)),
                grid_low=float(np.min(encoding.min)),
                grid_high=float(np.max(encoding.max)),
                clipped=one.clipped / max(one.count, 1),
                step=float(np.max(encoding.scale)),
                switch=switches.get(quantizer.tensor, unknown),
                channels=np.size(one.low),
                histogram=counts,
                histogram_ends=ends,
                **_odd_channels(one),
            )
        )
    return tuple(rows)


def layer_of(tensor: str) -> str:
    """Return the layer that makes, or reads, a tensor."""
    return TensorRef.parse(tensor, "input" if "<" in tensor else "output").layer


def float_rows(sim: QuantSim, graph: LayerGraph) -> tuple[FloatLayer, ...]:
    """Return the layers that compute in float, with the reason."""
    rows: dict[str, FloatLayer] = {}
    for node in graph.nodes:
        name = node.layer.name
        why = sim.record.plan.floats.get(name)
        if why is None or op_of(node.layer).transparent or not node.is_float:
            continue
        more = known_macs(graph, node)
        before = rows.get(name)
        if before is not None and before.macs is not None and more is not None:
            more += before.macs
        rows[name] = FloatLayer(name, op_type(node.layer), why, more)
    return tuple(rows.values())


def graph_rows(graph: LayerGraph, tensors: Mapping[str, Any]) -> tuple[GraphLayer, ...]:
    """Return the layers in graph order; one that is called again is one layer.

    Args:
        graph: of the float model.
        tensors: quantized tensors by name.
    """
    made: dict[str, list[str]] = {}
    for name in tensors:
        made.setdefault(layer_of(name), []).append(name)
    rows: dict[str, GraphLayer] = {}
    for node in graph.nodes:
        name = node.layer.name
        reads = [ref.layer for ref in node.inputs if ref.layer != name]
        count = known_macs(graph, node) or 0
        before = rows.get(name)
        if before is not None:
            reads, count = [*before.reads, *reads], count + before.macs
        names = tuple(dict.fromkeys(reads))
        rows[name] = GraphLayer(name, op_type(node.layer), names, tuple(made.get(name, ())), count)
    return tuple(rows.values())


def known_macs(graph: LayerGraph, node: GraphNode) -> int | None:
    """Return the multiply-accumulates of a call for one sample, None if a size is not known."""
    try:
        return macs(graph, node)
    except UnsupportedModelError:
        return None


def _cosine(one: TensorSums) -> float:
    norm = math.sqrt(one.signal * one.sim)
    return one.product / norm if norm else 1.0


def _over(power: float, signal: float) -> float:
    if not signal:
        return math.inf if power else 0.0
    return power / signal


def _odd_channels(one: TensorSums) -> dict[str, tuple[int, ...]]:
    """Return the channels that are dead, constant or far beyond the others."""
    low, high = np.asarray(one.low, np.float64), np.asarray(one.high, np.float64)
    same = low == high
    most = np.maximum(np.abs(low), np.abs(high))
    alive = most[~same]
    usual = float(np.median(alive)) if alive.size else 0.0
    dead, constant = same & (most == 0.0), same & (most > 0.0)
    far = (most > FAR * usual) & ~same & (usual > 0.0) & (low.size > 2)
    found = {"dead": dead, "constant": constant, "exploding": far}
    return {name: _numbers(where) for name, where in found.items()}


def _numbers(where: NDArray) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(where)))


def _coarse(seen: Histogram | None) -> tuple[tuple[int, ...], tuple[float, float]]:
    """Return a histogram's counts in few bins between its ends."""
    if seen is None or not seen.total:
        return (), (0.0, 0.0)
    low, high = seen.low, seen.high if seen.high > seen.low else seen.low + 1e-9
    counts, _ = np.histogram(
        np.clip(seen.bin_centers, low, high), BINS, (low, high), weights=seen.counts
    )
    return tuple(map(int, counts)), (float(low), float(high))
