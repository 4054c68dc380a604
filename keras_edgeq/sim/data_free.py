"""Statistics without data: what batch norms remember of training, followed through the model.

Reference:
    Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
    arXiv:1906.04721, section 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.numerics.quantiles import Quantiles
from keras_edgeq.ops import op_of
from keras_edgeq.ops.plain import INPUT
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.prepare.known_statistics import KnownStatistics
from keras_edgeq.sim.propagate import Propagation
from keras_edgeq.sim.stats import CalibrationStats
from keras_edgeq.spec.tensor_ref import TensorRef

DEVIATIONS = 6.0
# Rules that trade tails for resolution have to know the tails. Here these are taken to be normal;
# those of trained models are heavier.
RULES = {"activations": "minmax"}


def data_free_stats(
    prepared: tf_keras.Model,
    plan: QuantPlan,
    known: KnownStatistics,
    input_range: Any = None,
    deviations: float = DEVIATIONS,
) -> CalibrationStats:
    """Return statistics of a model's activations that no data was needed for.

    What a batch norm makes is normal per channel, with mean beta and deviation gamma. Activations
    clip it, sums add means and variances. Its histogram ends exactly at the extremes, so every
    range rule works on it as on a calibrated one.

    Args:
        prepared: the model that the plan is for.
        plan: which tensors need a range.
        known: what `prepared_form` found.
        input_range: `(low, high)` of the model's inputs, or a dict by input name.
        deviations: where normal distributions end, in standard deviations.

    Returns:
        Statistics of 0 samples, of every tensor that something is known about; so precisions and
        targets can change later as well.

    Raises:
        CalibrationDataError: names every tensor that needs a range and has no statistics.
    """
    ranges = {**known.ranges, **input_ranges(input_range, prepared.input_names)}
    graph, quantiles = LayerGraph.of(prepared), Quantiles(deviations)
    spreads = Propagation(graph, known, ranges, quantiles).spreads
    missing = [ref for ref in _needed(graph, plan) if ref not in spreads]
    if missing:
        raise CalibrationDataError(_missing(missing, _unknown_inputs(graph, spreads)))
    histograms = {
        str(ref): quantiles.histogram(spreads[ref].points, _elements(shape))
        for node in graph.nodes
        for ref, shape in zip(node.outputs, node.shapes, strict=True)
        if ref in spreads
    }
    return CalibrationStats(histograms, 0, known_means(prepared, known, ranges))


def known_means(
    prepared: tf_keras.Model,
    known: KnownStatistics,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, np.ndarray]:
    """Return the mean per channel of every tensor that batch norms tell something about.

    Args:
        prepared: the model.
        known: what `prepared_form` found.
        ranges: of the model's inputs by name; None takes those that are known.
    """
    graph, quantiles = LayerGraph.of(prepared), Quantiles(DEVIATIONS)
    ranges = known.ranges if ranges is None else ranges
    spreads = Propagation(graph, known, ranges, quantiles, bounds=False).spreads
    channels = {
        ref: shape[-1]
        for node in graph.nodes
        for ref, shape in zip(node.outputs, node.shapes, strict=True)
        if shape and shape[-1]
    }
    means = {ref: quantiles.moments(spreads[ref].points)[0] for ref in channels if ref in spreads}
    return {
        str(ref): np.broadcast_to(np.float32(mean), (channels[ref],)).copy()
        for ref, mean in means.items()
        if mean.size in (1, channels[ref])
    }


def _needed(graph: LayerGraph, plan: QuantPlan) -> list[TensorRef]:
    """Return the tensors that a range of the plan has to cover."""
    open_grids = {
        ref
        for ref, spec in plan.specs.items()
        if ref.kind != "param" and spec.fixed_range is None and not spec.is_half
    }
    refs = [*open_grids, *(ref for ref, owner in plan.shared.items() if owner in open_grids)]
    nodes = {(node.layer.name, node.call.number): node for node in graph.nodes}
    # A quantizer at an input of a call covers the tensor that stands there.
    made = {
        nodes[ref.layer, ref.call].inputs[ref.index] if ref.kind == "input" else ref for ref in refs
    }
    return [ref for node in graph.nodes for ref in node.outputs if ref in made]


def input_ranges(given: Any, names: list[str]) -> dict[str, tuple[float, float]]:
    """Return checked ranges by input name."""
    if given is None:
        return {}
    by_name = dict(given) if isinstance(given, Mapping) else dict.fromkeys(names, given)
    unknown = sorted(str(name) for name in by_name if name not in names)
    if unknown:
        raise CalibrationDataError(
            f"input_range names {unknown}; the model's inputs are {names}."
            + did_you_mean(unknown[0], names)
        )
    return {name: _checked(name, pair) for name, pair in by_name.items()}


def _checked(name: str, pair: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in pair)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise CalibrationDataError(
            f"input_range of {name!r} is {pair!r}; it must be two finite numbers (low, high), "
            "such as (-1, 1)."
        )
    return low, high


def _unknown_inputs(graph: LayerGraph, spreads: Mapping[TensorRef, Any]) -> list[str]:
    """Return model inputs that a range would help: not those that an Embedding looks up."""
    unknown = [node for node in graph.nodes if op_of(node.layer) is INPUT]
    unknown = [node for node in unknown if node.outputs[0] not in spreads]
    return [
        node.layer.name
        for node in unknown
        if any(not op_of(r.layer).reads_ids for r in graph.consumers(node.outputs[0]))
    ]


def _missing(missing: list[TensorRef], inputs: list[str]) -> str:
    """Return the one message for all tensors without statistics."""
    advice = "Give calibration data: quantize(model, data)."
    if inputs:
        advice = (
            f"Give the range of {inputs}, such as input_range={{{inputs[0]!r}: (-1.0, 1.0)}}, or "
            "calibration data: quantize(model, data)."
        )
    names = ", ".join(map(str, missing))
    return (
        "Without data, ranges come from batch norms and from the range of the model's inputs; "
        f"nothing is known about {names}. {advice}"
    )


def _elements(shape: tuple) -> float:
    """Return the size of one sample, as far as it is known."""
    return float(math.prod(size or 1 for size in shape[1:]))
