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

from keras_edgeq.prepare import prepare_with_statistics
from keras_edgeq.prepare.known_statistics import KnownStatistics
from keras_edgeq.ptq.balance import balanced_scales
from keras_edgeq.ptq.channel_statistics import DEVIATIONS, channel_statistics
from keras_edgeq.ptq.scale_groups import ScaleGroups, rescale, scale_groups
from keras_edgeq.sim.data import batches
from keras_edgeq.spec.tensor_ref import TensorRef


def equalize(
    model: tf_keras.Model,
    data: Any = None,
    *,
    batch_size: int = 32,
    steps: int | None = None,
    progress: bool = True,
) -> tf_keras.Model:
    """Return an equal float model whose kernels lose less with one scale per tensor.

    A channel divided by `s` in one layer and multiplied by `s` in the next is the same channel.
    Scales run through ReLU, LeakyReLU, PReLU, pools, padding, reshapes, concatenation and sums;
    layers that meet in an Add share theirs. Where anything else reads a channel, it stays as it is.

    Through ReLU6 and other caps a scale is exact while the channel stays below the cap. Which
    channels do, and how far, is read from the data; without data from batch norms, and what
    neither says anything about stays. An input that drives a channel further than any of the data
    by several deviations is the only one that can make a difference.

    Args:
        model: a built functional or Sequential `tf_keras` model; it is not changed.
        data: inputs as `quantize` takes them, read only if the model has capped activations. 100
            samples usually do.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        progress: show a progress bar.

    Returns:
        A prepared model: batch norms folded, one operation per layer. Quantize it as the original.

    Raises:
        UnsupportedModelError: the model is subclassed, unbuilt, of another framework or holds NaN.
        CalibrationDataError: the data is empty, does not fit the model or holds NaN.

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
    prepared, known = prepare_with_statistics(model)
    groups = scale_groups(prepared)
    if data is None:
        reach = _reach_of_batch_norms(groups, known)
    elif groups.caps:
        source = batches(data, model, batch_size, steps)
        seen = channel_statistics(prepared, groups.caps, source, progress)
        reach = {ref: statistics.reach for ref, statistics in seen.items()}
    else:
        reach = {}
    scales = balanced_scales(prepared, groups, least_scales(groups, reach))
    return rescale(prepared, groups, scales)


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


def _reach_of_batch_norms(groups: ScaleGroups, known: KnownStatistics) -> dict:
    made = {ref: known.made[ref.layer] for ref in groups.caps if ref.layer in known.made}
    return {ref: moments.mean + DEVIATIONS * moments.deviation for ref, moments in made.items()}
