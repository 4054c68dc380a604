"""Cross-layer equalization: channels of like weight range, so that one scale fits a whole kernel.

Reference:
    Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
    arXiv:1906.04721, section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.ops import op_of
from keras_edgeq.prepare import prepared_form
from keras_edgeq.prepare.functional import as_functional
from keras_edgeq.prepare.known_statistics import KnownStatistics
from keras_edgeq.ptq.balance import balanced_scales
from keras_edgeq.ptq.channel_statistics import NORM_DEVIATIONS, channel_statistics
from keras_edgeq.ptq.nothing_done import warn_of_nothing
from keras_edgeq.ptq.scale_groups import FIXED, ScaleGroups, rescale, scale_groups
from keras_edgeq.sim.data import batches
from keras_edgeq.sim.identity import check_equal
from keras_edgeq.sim.samples import few, peek, random_inputs
from keras_edgeq.spec.tensor_ref import TensorRef

NO_CHANNEL = (
    "no channel lies between two kernels with nothing around it that fixes its scale, such as a "
    "normalization, a sigmoid or an output of the model."
)
NO_GAIN = "its kernels are in balance, or no scale but 1 is known to keep below the caps."


def equalize(
    model: tf_keras.Model,
    data: Any = None,
    *,
    batch_size: int = 32,
    steps: int | None = None,
    progress: bool = True,
) -> tf_keras.Model:
    """Return an equal float model whose kernels lose less with one scale per tensor.

    A channel divided by `s` in one layer and multiplied by `s` in the next gives the same result.
    Scales run through ReLU, LeakyReLU, PReLU, pools, padding, reshapes, concatenation and sums;
    layers that meet in an Add share theirs. A channel that any other layer reads stays as it is.

    Through ReLU6 and other caps a scale is exact while the channel stays below the cap. The data
    shows which channels do, and by how much; without data, batch norms do. Channels that neither
    says anything about stay. Only an input that drives a channel several deviations further than
    all of the data can make a difference.

    Args:
        model: a built functional or Sequential `tf_keras` model; it is not changed.
        data: inputs as `quantize` takes them; 100 samples usually do. None takes the ranges of
            activations from batch norms.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        progress: show a progress bar.

    Returns:
        A prepared model: batch norms folded, one operation per layer. Quantize it as the original.

    Raises:
        UnsupportedModelError: as for `quantize`.
        CalibrationDataError: the data is empty, does not fit the model or holds NaN.
        SimMismatchError: the result would compute something else, which is a fault of this package.

    Warns:
        QuantizationWarning: no channel can have another scale.

    Example:
        >>> import numpy as np, tf_keras, keras_edgeq as eq
        >>> x = tf_keras.Input((4,))
        >>> y = tf_keras.layers.Dense(3, activation="relu")(x)
        >>> model = tf_keras.Model(x, tf_keras.layers.Dense(2)(y))
        >>> inputs = np.random.rand(8, 4).astype("float32")
        >>> bool(np.allclose(eq.equalize(model)(inputs), model(inputs), atol=1e-5))
        True

    Reference:
        Nagel et al. 2019, arXiv:1906.04721, section 4.1, there for pairs and without caps.
    """
    model = as_functional(model)
    form = prepared_form(model)
    prepared, known = form.model, form.known
    graph, groups = LayerGraph.of(prepared), scale_groups(prepared)
    if data is None:
        reach, greatest = _of_batch_norms(graph, groups, known)
        samples = random_inputs(model, known.ranges)
    else:
        edges = _edges(graph, groups)
        first, source = peek(batches(data, model, batch_size, steps))
        samples = few(first, model)
        seen = channel_statistics(prepared, {*groups.caps, *edges}, source, progress)
        reach = {ref: seen[ref].reach for ref in groups.caps}
        greatest = {ref: np.maximum(seen[ref].high, -seen[ref].low) for ref in edges}
    scales = balanced_scales(prepared, groups, least_scales(groups, reach), greatest)
    if np.all(scales == 1.0):
        warn_of_nothing("equalize", model.name, NO_CHANNEL if groups.count == 1 else NO_GAIN)
    equalized = rescale(prepared, groups, scales)
    check_equal(model, equalized, samples)
    return equalized


def least_scales(
    groups: ScaleGroups, reach: Mapping[TensorRef, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the scale at which each group comes to reach a cap; nan where it does so already.

    Args:
        groups: from `scale_groups`.
        reach: tensor -> greatest value of each channel. Channels of unknown tensors may reach.
    """
    least = np.zeros(groups.count)
    for ref, cap in groups.caps.items():
        members = groups.tensors[ref]
        share = np.broadcast_to(reach.get(ref, np.inf), members.shape) / cap
        np.maximum.at(least, members, np.where(share < 1.0, share, np.inf))
    return np.where(np.isinf(least), np.nan, least)


def _edges(graph: LayerGraph, groups: ScaleGroups) -> list[TensorRef]:
    """Return the tensors with scales that a target stores: not what only an activation reads."""
    return [
        ref
        for ref, members in groups.tensors.items()
        if np.any(members != FIXED)
        and not all(_scales_run_through(reader.layer) for reader in graph.consumers(ref))
    ]


def _of_batch_norms(graph: LayerGraph, groups: ScaleGroups, known: KnownStatistics) -> tuple:
    """Return what batch norms say of channels: where they end, and how great they are stored."""
    reach, greatest = {}, {}
    for node in graph.nodes:
        moments, ref = known.made.get(node.layer.name), node.outputs[0]
        if moments is None:
            continue
        reach[ref] = moments.mean + NORM_DEVIATIONS * moments.deviation
        clipped = all(op_of(r.layer).rectifies for r in graph.consumers(ref))
        low = 0.0 if clipped else NORM_DEVIATIONS * moments.deviation - moments.mean
        greatest[ref] = np.maximum(reach[ref], low)
    return reach, greatest


def _scales_run_through(layer) -> bool:
    """Tell whether a layer is an activation that scales run through."""
    op = op_of(layer)
    return op.activates and op.scale in ("passes", "caps")
