"""Fold batch norms, those of a float model or those that a sim was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.ops import channel_map
from keras_edgeq.prepare.fold_batch_norms import (
    batch_norms_behind,
    scale_and_offset,
)
from keras_edgeq.prepare.fold_batch_norms import fold_batch_norms as fold_float
from keras_edgeq.prepare.functional import as_functional
from keras_edgeq.sim.beside import Floats
from keras_edgeq.sim.derive import raise_scales
from keras_edgeq.sim.freeze import all_quantizers
from keras_edgeq.sim.identity import check_equal, check_identity
from keras_edgeq.sim.insert import insert
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.samples import few, random_inputs, samples_of
from keras_edgeq.sim.strip import stripped


def fold_batch_norms(model: tf_keras.Model) -> tf_keras.Model:
    """Return an equal model with batch norms folded into neighbouring weights.

    In a sim made with `batch_norm="train"`, each batch norm multiplies the scales of the kernel in
    front of it, per channel, and becomes its bias. The integers of the kernel stay. The result is
    the sim that is exported. The sim computed in these units before, so the result makes the same
    integers, except for float noise at a tie. All ranges keep their trained values and are no
    longer learned. The float weights that a technique keeps from before rounding are folded, too.

    In a float model, batch norms fold backward into Conv1D/2D/3D, their transposes, depthwise
    convolutions, Dense and EinsumDense. They fold forward into those of these layers that add no
    padding and are not transposed. Others stay.

    Args:
        model: a sim, or a functional model; it is not changed.

    Returns:
        The folded model; the same object when there was nothing to fold.

    Example:
        >>> sim = eq.quantize(model, data, batch_norm="train", progress=False)
        >>> len(sim.batch_norms()), len(eq.fold_batch_norms(sim).batch_norms())
        (1, 0)

    Raises:
        UnsupportedModelError: a kernel has one scale for all channels, so no batch norm folds into
            it; the layers are named.
        SimMismatchError: the result would compute other values, which is a fault of this package.

    Reference:
        Krishnamoorthi 2018, arXiv:1806.08342, section 3.1.2; Nagel et al. 2021, "A White Paper on
        Neural Network Quantization", arXiv:2106.08295, section 5.2.2.
    """
    if not isinstance(model, QuantSim):
        model = as_functional(model)
        folded = fold_float(model)
        if folded is not model:
            check_equal(model, folded, random_inputs(model, {}))
        return folded
    prepared = stripped(model)
    behind = batch_norms_behind(prepared)
    if not behind:
        return model
    _check_channels(model, behind.values())
    record = model.record
    folded = fold_float(prepared)
    result = insert(folded, replace(record, reference=_folded_reference(model, behind)))
    old, new = all_quantizers(model), all_quantizers(result)
    for name, quantizer in new.items():
        encoding = old[name].encoding
        if encoding is not None and not encoding.spec.is_half:
            quantizer.assign(encoding)
    for name, layer in behind.items():
        gain = scale_and_offset(model.get_layer(name))[0]
        _fold_scale(model.get_layer(layer), result.get_layer(layer), gain)
    raise_scales(result)
    samples = few(samples_of(model)[0], model)
    check_equal(prepared, folded, samples)
    check_identity(Floats(folded, samples), result)
    return result


def _folded_reference(sim: QuantSim, behind: Mapping[str, str]) -> dict[str, np.ndarray] | None:
    """Return the float parameters of a sim as its batch norms change them."""
    if sim.reference is None:
        return None
    found = dict(sim.reference)
    for name, layer in behind.items():
        wrapped = sim.get_layer(layer)
        if not isinstance(wrapped, QuantizedLayer):
            continue
        scale, offset = scale_and_offset(sim.get_layer(name))
        kernel, bias = f"{layer}/{wrapped.kernel_name}", f"{layer}/bias"
        channels = channel_map(wrapped.layer)
        assert channels  # a batch norm folds into it
        found[kernel] = np.asarray(found[kernel] * scale[channels.outputs], np.float32)
        found[bias] = np.asarray(found.get(bias, 0.0) * scale + offset, np.float32)
    return found


def _check_channels(sim: QuantSim, layers) -> None:
    """Raise unless the kernels have a scale per channel, or no grid."""
    wrapped = sim.quantized_layers()
    whole = [name for name in layers if name in wrapped and not _per_channel(wrapped[name])]
    if whole:
        raise UnsupportedModelError(
            f"The kernels of {sorted(whole)} have one scale for all channels, so folding their "
            "batch norms would change the integers. Quantize for a target with scales per channel, "
            'or with batch_norm="fold"; eq.quantize(eq.strip(sim), data, profile) makes new grids '
            "for the trained weights."
        )


def _per_channel(layer: QuantizedLayer) -> bool:
    spec = layer.quantizers[layer.kernel_name].spec
    return spec.is_half or bool(spec.axes)


def _fold_scale(old, new, gain: np.ndarray) -> None:
    """Multiply the scales of a kernel with a factor per channel, and keep its integers."""
    if not isinstance(new, QuantizedLayer):
        return
    name = new.kernel_name
    before, after = old.quantizers[name], new.quantizers[name]
    encoding = before.encoding
    if encoding is None or encoding.spec.is_half:
        return
    channels = channel_map(new.layer)
    assert channels  # a batch norm folds into it
    gain = gain[channels.outputs]
    factor = np.broadcast_to(np.abs(gain), encoding.scale.shape)
    shape = tuple(getattr(new.layer, name).shape)
    # A gamma of 0 leaves nothing of the channel: any scale gives its integers, all 0.
    scale = np.where(factor > 0.0, np.float64(encoding.scale) * factor, encoding.scale)
    after.assign(replace(encoding, scale=np.float32(scale)))
    wanted = _steps(old.layer, before, name) * np.sign(gain)
    (low, high), many = encoding.bounds, encoding.multiple(shape)
    if np.any((wanted < low * many) | (wanted > high * many)):
        raise UnsupportedModelError(
            f"Layer {new.name!r} has weights at {low}, and its batch norm turns their sign, which "
            f"the grid up to {high} does not hold. Leave gamma_constraint of the batch norm free, "
            "so that gamma stays positive."
        )
    kernel = getattr(new.layer, name)
    moved = _steps(new.layer, after, name) != wanted
    real = np.float32(
        wanted * np.float64(replace(encoding, scale=np.float32(scale)).unit(shape)) / many
    )
    # Where float rounding would take a weight next to a tie to the other integer.
    kernel.assign(np.where(moved, real, kernel.numpy()))


def _steps(layer: tf_keras.layers.Layer, quantizer: FakeQuant, name: str) -> np.ndarray:
    return np.asarray(quantizer(getattr(layer, name))[1])
