"""`correct_bias`: take out the mean error that rounded weights leave in each layer's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.ops import channel_map, op_of
from keras_edgeq.ptq.layer_visit import is_product
from keras_edgeq.ptq.nothing_done import warn_of_nothing
from keras_edgeq.ptq.session import PtqSession, check_calibrated
from keras_edgeq.sim.derive import raise_scales
from keras_edgeq.sim.freeze import copy_sim
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.reference import float_form, float_parameters
from keras_edgeq.spec.tensor_ref import TensorRef
from keras_edgeq.streams.store import MEMORY_BYTES
from keras_edgeq.streams.stream import Stream, float_activations_call, float_call

NO_BIAS = "no layer of it has rounded weights and a bias."


def correct_bias(
    sim: QuantSim,
    data: Any = None,
    *,
    batch_size: int = 32,
    steps: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    cache_folder: str | Path | None = None,
    progress: bool = True,
) -> QuantSim:
    """Return a sim whose biases make up for the mean error of the rounded weights.

    With data, the correction is empirical: layer by layer in graph order, with rounded weights and
    float activations, the mean error of each output channel is subtracted from the bias. Without
    data it is analytical: the mean of a layer's input, per channel, follows from the model's batch
    norms, and its product with the error of the kernel is the shift. Layers whose input means are
    not known keep their bias then.

    Args:
        sim: a calibrated sim; it is not changed. Without data it has to come from `quantize` or
            `load_sim`.
        data: calibration inputs in any form `quantize` takes, or None.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        memory_bytes: activations are kept in memory up to that size, and in files past it.
        cache_folder: where those files lie meanwhile; None takes the system's temporary folder.
        progress: show a progress bar.

    Raises:
        CalibrationDataError: the data is empty, does not fit the model or holds NaN; or there is
            none, and nothing is known about any layer.
        EdgeqError: the sim is not calibrated, or the disk is full.

    Warns:
        QuantizationWarning: no layer with rounded weights has a bias.

    Example:
        >>> better = eq.correct_bias(sim, data, progress=False)

    Reference:
        Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
        arXiv:1906.04721, section 4.2 and appendix D.
    """
    if data is None:
        return _analytic(sim)
    with PtqSession(sim, data, batch_size, steps, memory_bytes, cache_folder, progress) as session:
        exact = Stream(session.exact, float_call, session.source, session.store)
        rounded = Stream(session.work, float_activations_call, session.source, session.store)
        stops = [i for i, call in enumerate(rounded.calls) if _has_bias(call.layer)]
        if not stops:
            warn_of_nothing("correct_bias", sim.name, NO_BIAS)
        shifts: dict[str, list[np.ndarray]] = {}
        for stop in session.bar(stops, "correct bias", "layer"):
            exact.advance(stop)
            rounded.advance(stop)
            layer, float_layer = rounded.calls[stop].layer.layer, exact.calls[stop].layer.layer
            calls = shifts.setdefault(layer.name, [])
            calls.append(_shift(exact, rounded))
            layer.bias.assign(np.float32(np.float64(float_layer.bias) - np.mean(calls, axis=0)))
        session.calibrate()
    return session.work


def _has_bias(layer: Any) -> bool:
    return isinstance(layer, QuantizedLayer) and getattr(layer.layer, "bias", None) is not None


def _shift(exact: Stream, rounded: Stream) -> np.ndarray:
    """Return the mean error of a layer's sums, biases left out, in the shape of its bias."""
    wanted_by, made_by = (stream.calls[stream.position].layer for stream in (exact, rounded))
    shape = tuple(wanted_by.layer.bias.shape)
    total, count = np.zeros(shape), 0
    for index in range(len(exact)):
        wanted = wanted_by.layer(exact.arguments(index)[0][0]) - wanted_by.layer.bias
        made = made_by(rounded.arguments(index)[0][0])[0] - made_by.layer.bias
        error = np.asarray(made - wanted, np.float64).reshape(-1, *shape)
        total, count = total + error.sum(0), count + len(error)
    return total / max(count, 1)


def _analytic(sim: QuantSim) -> QuantSim:
    """Correct by the means that batch norms know."""
    check_calibrated(sim)
    means = {} if sim.stats is None else sim.stats.means
    work, exact = copy_sim(sim), float_form(sim)
    work.reference = float_parameters(sim)
    graph, float_layers = LayerGraph.of(work), exact.quantized_layers()
    known = 0
    for name, layer in work.quantized_layers().items():
        if not is_product(layer) or not _has_bias(layer) or not channel_map(layer.layer):
            continue
        shifts = [
            _expected_shift(layer, float_layers[name], means[source])
            for node in graph.calls_of(layer)
            if (source := _source(graph, node)) in means
        ]
        if shifts:
            known += 1
            bias = np.asarray(float_layers[name].layer.bias, np.float64)
            layer.layer.bias.assign(np.float32(bias - np.mean(shifts, axis=0)))
    if not known:
        raise CalibrationDataError(
            "Without data, the means of activations come from batch norms; nothing is known about "
            "those of this sim. Give calibration data: correct_bias(sim, data)."
        )
    raise_scales(work)
    return work


def _source(graph: LayerGraph, node: GraphNode) -> str:
    """Return the name of the tensor that a weighted call reads, before it was quantized."""
    ref = node.inputs[0]
    maker = graph.producer(ref)
    while isinstance(maker.layer, FakeQuant):
        name = maker.call.node.call_kwargs["tensor"]
        if TensorRef.parse(name, "output").kind == "output":
            return name
        ref = maker.inputs[0]
        maker = graph.producer(ref)
    return str(ref)


def _expected_shift(layer: QuantizedLayer, float_layer: Any, mean: np.ndarray) -> np.ndarray:
    """Return the mean error of a layer's sums when each channel of its input has that mean."""
    channels, kernel = channel_map(layer.layer), layer.kernel_name
    assert channels  # `_analytic` asked
    error = np.asarray(layer.rounded_params()[kernel], np.float64)
    error -= np.asarray(getattr(float_layer.layer, kernel), np.float64)
    # A transposed convolution reads each input at one output in `strides`, and zeros elsewhere.
    per_input = op_of(layer.layer).macs == "input"
    share = 1.0 / np.prod(layer.layer.strides) if per_input else 1.0
    return channels.sums(mean * share, error)
