"""What a model's own layers say about its activations: statistics of training, kept in batch norms.

Reference:
    Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
    arXiv:1906.04721, section 4.2.1: what a batch norm makes has mean beta and deviation gamma.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import tf_keras

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.ops import op_of
from keras_edgeq.ops.plain import BATCH_NORM, IDENTITY, INPUT
from keras_edgeq.spec.tensor_ref import TensorRef

L = tf_keras.layers
# Rescaling factors that turn 8-bit pixels into about one or two units.
PIXEL_SCALES = (1 / 255, 1 / 256, 1 / 127.5, 1 / 128)


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and standard deviation of a tensor, per channel of its last axis."""

    mean: np.ndarray
    deviation: np.ndarray


@dataclass(frozen=True, eq=False)
class KnownStatistics:
    """Statistics of activations that a model carries.

    Args:
        made: layer of the prepared model -> what its outputs are like, for all inputs: the
            output of a batch norm, or of the layer that swallowed it.
        seen: tensor -> what a layer behind it saw in training: the input of a batch norm or
            Normalization layer.
        ranges: model input -> range, where a Rescaling layer shows that it holds pixels.
        constants: layers of the prepared model that hold constants, which no training changes.
    """

    made: Mapping[str, Moments] = field(default_factory=dict)
    seen: Mapping[TensorRef, Moments] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    constants: frozenset[str] = frozenset()


def known_statistics(
    model: tf_keras.Model, folded: Mapping[str, str], constants: frozenset[str] = frozenset()
) -> KnownStatistics:
    """Read the statistics of a model whose batch norms are still layers.

    Args:
        model: flattened and split, before constants and batch norms are rewritten.
        folded: layer -> the batch norm whose output it makes in the prepared model.
        constants: layers that hold constants there.
    """
    graph = LayerGraph.of(model)
    norms = {}
    seen: dict[TensorRef, Moments] = {}
    ranges = {}
    for node in graph.nodes:
        layer = node.layer
        if op_of(layer) is BATCH_NORM and _on_last_axis(layer.axis, node.shapes[0]):
            norms[layer.name] = _made(layer)
            mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
            deviation = np.sqrt(np.maximum(variance, 0.0))
            _see(graph, node.inputs[0], Moments(mean, deviation), seen)
        elif type(layer) is L.Normalization and not layer.invert and layer.mean is not None:
            mean, variance = _array(layer.mean).ravel(), _array(layer.variance).ravel()
            if mean.size in (1, node.shapes[0][-1]):
                _see(graph, node.inputs[0], Moments(mean, np.sqrt(variance)), seen)
        elif type(layer) is L.Rescaling and _scales_pixels(layer):
            source = graph.producer(node.inputs[0])
            if op_of(source.layer) is INPUT:
                ranges[source.layer.name] = (0.0, 255.0)
    made = {**norms, **{layer: norms[norm] for layer, norm in folded.items()}}
    return KnownStatistics(made, seen, ranges, constants)


def _made(layer) -> Moments:
    """Return the moments of a batch norm's output."""
    variance = np.maximum(_array(layer.moving_variance), 0.0)
    # Not gamma alone: a dead channel, whose variance is far below epsilon, is constant.
    deviation = np.sqrt(variance / (variance + layer.epsilon))
    if layer.scale:
        deviation = deviation * np.abs(_array(layer.gamma))
    mean = _array(layer.beta) if layer.center else np.zeros_like(deviation)
    return Moments(mean, deviation)


def _see(graph: LayerGraph, ref: TensorRef, moments: Moments, seen: dict) -> None:
    """Note what was seen of a tensor, and so of those it is put together from."""
    seen.setdefault(ref, moments)
    node = graph.producer(ref)
    if op_of(node.layer) is IDENTITY:
        _see(graph, node.inputs[0], moments, seen)
    elif type(node.layer) is L.Concatenate and _on_last_axis(node.layer.axis, node.shapes[0]):
        sizes = [symbol.shape[-1] for symbol in node.call.node.keras_inputs]
        if moments.mean.size == sum(sizes):
            ends = np.cumsum(sizes)[:-1]
            means, deviations = (np.split(v, ends) for v in (moments.mean, moments.deviation))
            for part, mean, deviation in zip(node.inputs, means, deviations, strict=True):
                _see(graph, part, Moments(mean, deviation), seen)


def _on_last_axis(axis, shape: tuple) -> bool:
    axis = axis if isinstance(axis, int) else axis[0]
    return axis in (-1, len(shape) - 1)


def _scales_pixels(layer) -> bool:
    scale = _array(layer.scale)
    return scale.size == 1 and bool(np.any(np.isclose(scale, PIXEL_SCALES, rtol=1e-3)))


def _array(values) -> np.ndarray:
    return np.asarray(values, np.float64)
