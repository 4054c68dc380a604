"""Measure the activations of a sim in one pass over data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_edgeq.graph.rebuild import replay
from keras_edgeq.layers import FakeQuant
from keras_edgeq.numerics.histogram import (
    Histogram,
    empty,
    exponent_for,
    merge,
    observe,
    of_batch,
)
from keras_edgeq.sim.not_real import infer_unrounded, not_real
from keras_edgeq.sim.quant_sim import QuantSim, quantized_tensors
from keras_edgeq.sim.stats import CalibrationStats

Observer = tuple[list[str], Callable]


def collect(
    sim: QuantSim,
    source: Iterable[Sequence[Any]],
    progress: bool = True,
    observer: Observer | None = None,
) -> CalibrationStats:
    """Run the sim over the data once and return histograms of its activations.

    Weights are quantized in this pass, activations are not. Memory does not depend on the number of
    batches. The result does not depend on their order, except for moving averages. An `observer` of
    the sim from an earlier pass saves its tracing.
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
            raise not_real(sim, batch, bad)
        for i, tensor in enumerate(tensors):
            seen = of_batch(counts[i], exponents[i], lows[i], highs[i])
            merged[tensor] = merge(merged[tensor], seen)
    return CalibrationStats(merged, samples)


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
                masked = layer.is_masked(tensor, kwargs)
                counted = tensor if masked is None else tf.where(masked, 0.0, tensor)
                seen[name] = observe(counted, exponents[order[name]])
                return tensor, tensor, tf.constant(1.0)
            return infer_unrounded(layer, args, kwargs, float_weights)

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
