"""SmoothQuant: move outliers of activations into the weights behind them.

Reference:
    Xiao et al. 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
    Language Models", arXiv:2211.10438.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.errors import EdgeqError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.ops import channel_map, op_of
from keras_edgeq.ops.table import scales_channels
from keras_edgeq.prepare import prepare
from keras_edgeq.prepare.functional import as_functional
from keras_edgeq.ptq.channel_statistics import channel_statistics
from keras_edgeq.ptq.nothing_done import warn_of_nothing
from keras_edgeq.ptq.scale_groups import FIXED, NORMS, ScaleGroups, rescale, scale_groups
from keras_edgeq.sim.data import batches
from keras_edgeq.sim.identity import check_equal
from keras_edgeq.sim.samples import few, peek
from keras_edgeq.spec.tensor_ref import TensorRef

NO_NORM = "no normalization with gamma and beta is read by Dense and EinsumDense layers alone."


def smooth(
    model: tf_keras.Model,
    data: Any,
    alpha: float = 0.5,
    *,
    batch_size: int = 32,
    steps: int | None = None,
    progress: bool = True,
) -> tf_keras.Model:
    """Return an equal float model whose normalized activations have no outlier channels.

    A channel behind a normalization is divided by `s = max|X|^alpha / max|W|^(1 - alpha)` in gamma
    and beta, and multiplied by `s` in all Dense and EinsumDense layers that read it. Normalizations
    stay as they are if anything else reads them: MultiHeadAttention, an Add, the model's output.

    Args:
        model: a built functional or Sequential `tf_keras` model; it is not changed.
        data: inputs as `quantize` takes them; 100 samples usually do.
        alpha: how much of the difficulty goes into the weights, 0 to 1. Use more if activations
            lose more than weights; the paper takes 0.5, and 0.75 for models with larger outliers.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        progress: show a progress bar.

    Returns:
        A prepared model. Quantize it as the original.

    Raises:
        UnsupportedModelError: as for `quantize`.
        CalibrationDataError: the data is empty, does not fit the model or holds NaN.
        EdgeqError: alpha is not between 0 and 1.
        SimMismatchError: the result would compute something else, which is a fault of this package.

    Warns:
        QuantizationWarning: no normalization can be divided.

    Example:
        >>> import numpy as np, tf_keras, keras_edgeq as eq
        >>> x = tf_keras.Input((4,))
        >>> y = tf_keras.layers.LayerNormalization()(x)
        >>> model = tf_keras.Model(x, tf_keras.layers.Dense(2)(y))
        >>> inputs = np.random.rand(8, 4).astype("float32")
        >>> result = eq.smooth(model, inputs, progress=False)
        >>> bool(np.allclose(result(inputs), model(inputs), atol=1e-5))
        True

    Reference:
        Xiao et al. 2022, arXiv:2211.10438, equations 3 and 4.
    """
    if not 0.0 <= alpha <= 1.0:
        raise EdgeqError(f"alpha is {alpha!r}; it must be a number from 0 to 1, such as 0.5.")
    model = as_functional(model)
    prepared = prepare(model)
    graph, groups = LayerGraph.of(prepared), scale_groups(prepared, norms=True)
    read = _read_tensors(graph)
    first, source = peek(batches(data, model, batch_size, steps))
    seen = channel_statistics(prepared, read, source, progress)
    activations = np.zeros(groups.count)
    for ref, statistics in seen.items():
        magnitudes = np.maximum(statistics.high, -statistics.low)
        np.maximum.at(activations, groups.tensors[ref], magnitudes)
    weights = _weight_ranges(prepared, groups)
    smoothed = _behind_norms(prepared, groups) & (activations > 0.0) & (weights > 0.0)
    scales = np.ones(groups.count)
    scales[smoothed] = activations[smoothed] ** alpha / weights[smoothed] ** (1.0 - alpha)
    if not np.any(smoothed):
        warn_of_nothing("smooth", model.name, NO_NORM)
    result = rescale(prepared, groups, scales)
    check_equal(model, result, few(first, model))
    return result


def _read_tensors(graph: LayerGraph) -> list[TensorRef]:
    refs = [node.inputs[0] for node in graph.nodes if _reads_features(node.layer)]
    return list(dict.fromkeys(refs))


def _weight_ranges(model: tf_keras.Model, groups: ScaleGroups) -> NDArray:
    """Return the greatest magnitude of all kernels that read a group."""
    ranges = np.zeros(groups.count)
    for name, ends in groups.layers.items():
        kernel = np.abs(np.asarray(getattr(model.get_layer(name), ends.kernel), np.float64))
        np.maximum.at(ranges, np.broadcast_to(ends.inputs, kernel.shape), kernel)
    return ranges


def _behind_norms(model: tf_keras.Model, groups: ScaleGroups) -> NDArray:
    """Tell which groups only normalizations make, and only Dense and EinsumDense read."""
    allowed, made = np.ones(groups.count, bool), np.zeros(groups.count, bool)
    for name, ends in groups.layers.items():
        layer = model.get_layer(name)
        if _normalizes(layer):
            made[ends.outputs] = True
        else:
            allowed[ends.outputs] = False
        if not _reads_features(layer):
            allowed[ends.inputs] = False
    for ref in groups.caps:
        allowed[groups.tensors[ref]] = False
    allowed[FIXED] = False
    return allowed & made


def _normalizes(layer) -> bool:
    """Tell whether a layer is a normalization, or one that `prepare` made a 1x1 convolution."""
    one_by_one = scales_channels(layer) and set(layer.strides) == {1}
    return type(layer) in NORMS or one_by_one


def _reads_features(layer) -> bool:
    """Tell whether a layer multiplies the last axis with a matrix, as Dense and EinsumDense do."""
    return bool(channel_map(layer)) and not op_of(layer).window
