"""Choose the scale of every group so that the kernels around it have channels of like range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.ptq.scale_groups import FIXED, ScaleGroups
from keras_edgeq.spec.tensor_ref import TensorRef

SWEEPS = 100
# Sweeps end when they would change no scale by more than this share.
CONVERGED = 0.01
# A bias may grow to so many times the greatest weight of its layer.
BIAS_SHARE = 8.0


@dataclass(frozen=True, eq=False)
class _Kernel:
    """Greatest magnitudes of a kernel per pair of channels, and the groups of these."""

    magnitudes: NDArray[np.float64]
    inputs: NDArray[np.intp]
    outputs: NDArray[np.intp]
    bias: NDArray[np.float64]
    bias_groups: NDArray[np.intp]


def balanced_scales(
    model: tf_keras.Model,
    groups: ScaleGroups,
    least: NDArray[np.float64],
    greatest: Mapping[TensorRef, NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Return scales that give each group the same range in front of it as behind it.

    `s = sqrt(r_out / r_in)`, with the greatest magnitude of all kernels on either side, repeated
    over all groups at once until nothing changes. A group with only zeros on one side keeps scale
    1. No bias grows far beyond the weights and the other biases of its layer: a channel whose
    weights are tiny under a large bias would otherwise ask for more than an int32 bias can hold.

    Args:
        model: what the groups are of.
        groups: from `scale_groups`.
        least: the least scale each group may have, nan where it may have none but 1.
        greatest: tensor -> greatest magnitude of each channel. No channel grows beyond the greatest
            of its tensor, so weights do not gain what activations lose.

    Returns:
        float64 `(groups.count,)`.

    Reference:
        Nagel et al. 2019, arXiv:1906.04721, equation 10 for pairs.
    """
    kernels = _kernels(model, groups)
    scales = np.ones(groups.count)
    for _ in range(SWEEPS):
        made, read = _ranges(kernels, scales)
        movable = (made > 0.0) & (read > 0.0) & ~np.isnan(least)
        movable[FIXED] = False
        change = np.sqrt(np.divide(made, read, where=movable, out=np.ones_like(made)))
        floor = np.fmax(least, _floor(kernels, scales))
        for ref, magnitudes in greatest.items():
            _raise(floor, magnitudes, groups.tensors[ref], scales)
        wanted = np.where(movable, np.maximum(scales * change, floor), 1.0)
        if np.all(np.abs(np.log(wanted / scales)) < CONVERGED):
            break
        scales = wanted
    return scales


def _kernels(model: tf_keras.Model, groups: ScaleGroups) -> list[_Kernel]:
    kernels = []
    for name, ends in groups.layers.items():
        layer = model.get_layer(name)
        kernel = np.abs(np.asarray(getattr(layer, ends.kernel), np.float64))
        rank = max(ends.inputs.ndim, ends.outputs.ndim)
        spatial = tuple(range(kernel.ndim - rank))
        bias, members = np.zeros(ends.bias.shape), ends.bias
        if ends.bias_name is not None:
            bias = np.abs(np.asarray(getattr(layer, ends.bias_name), np.float64))
            members = np.broadcast_to(members, bias.shape)
        kernels.append(_Kernel(kernel.max(axis=spatial), ends.inputs, ends.outputs, bias, members))
    return kernels


def _ranges(kernels: list[_Kernel], scales: NDArray) -> tuple[NDArray, NDArray]:
    """Return the greatest magnitude in front of every group, and behind it."""
    made, read = np.zeros(scales.size), np.zeros(scales.size)
    for kernel in kernels:
        now = kernel.magnitudes * scales[kernel.inputs] / scales[kernel.outputs]
        for ranges, index in ((made, kernel.outputs), (read, kernel.inputs)):
            # One channel per row or column: reduce the rest first, it is much the larger part.
            alike = tuple(axis for axis, size in enumerate(index.shape) if size == 1)
            most = now.max(axis=alike, keepdims=True)
            np.maximum.at(ranges, np.broadcast_to(index, most.shape), most)
    return made, read


def _floor(kernels: list[_Kernel], scales: NDArray) -> NDArray:
    """Return the least scales at which no bias exceeds what its layer has room for."""
    floor = np.zeros(scales.size)
    for kernel in kernels:
        now = kernel.magnitudes * scales[kernel.inputs] / scales[kernel.outputs]
        _raise(floor, kernel.bias, kernel.bias_groups, scales, BIAS_SHARE * now.max())
    return floor


def _raise(floor: NDArray, values: NDArray, members: NDArray, scales: NDArray, room: float = 0.0):
    """Raise the least scales so that no value exceeds the greatest of all, nor `room`."""
    greatest = max(float(np.max(values / scales[members])), room)
    if greatest > 0.0:
        np.maximum.at(floor, members, values / greatest)
