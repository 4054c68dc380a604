"""Move the constant part of a channel into the next layer's bias.

Reference:
    Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
    arXiv:1906.04721, section 4.1.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.graph.rebuild import clone, rebuild
from keras_edgeq.ops import channel_map, op_of
from keras_edgeq.ops.operands import keeps_channels
from keras_edgeq.ops.table import sees_all
from keras_edgeq.prepare import prepared_form
from keras_edgeq.prepare.functional import as_functional
from keras_edgeq.prepare.known_statistics import Moments
from keras_edgeq.ptq.channel_statistics import (
    NORM_DEVIATIONS,
    ChannelStatistics,
    channel_statistics,
)
from keras_edgeq.ptq.nothing_done import warn_of_nothing
from keras_edgeq.sim.data import batches
from keras_edgeq.sim.identity import check_equal
from keras_edgeq.sim.samples import few, peek
from keras_edgeq.spec.tensor_ref import TensorRef

L = tf_keras.layers


NO_READER = "no layer with a bias is read by layers alone that can take up a constant part."
NO_PART = "no channel between such layers is known to have a constant part."


@dataclass(eq=False)
class _Path:
    """The way from a layer's output to all the kernels that read it."""

    readers: list[tuple[Any, int]] = field(default_factory=list)
    clips: bool = False


def absorb_bias(
    model: tf_keras.Model,
    data: Any = None,
    *,
    batch_size: int = 32,
    steps: int | None = None,
    progress: bool = True,
) -> tf_keras.Model:
    """Return an equal float model whose activations have no large constant part.

    A channel that never falls below `c` is lowered by `c`, and the layers that read it add the
    contribution of `c` to their biases. Through ReLU this is exact as long as the channel does not
    fall below `c`, so `c` is a bound that no sample is expected to fall below, found in the data as
    `equalize` finds caps. A channel without activation is centred. Without data, the bound comes
    from batch norms. One value in 700 of a normal distribution lies below the paper's `beta - 3
    gamma`, so the function would change; the bound here is `beta - 24 gamma`.

    These channels stay as they are: those that a padded kernel reads, because the border would miss
    `c`; those in front of a cap, which would move with it; and those that, behind ReLU, pools and
    Flatten, a layer other than Conv, DepthwiseConv and Dense reads.

    Args:
        model: a built functional or Sequential `tf_keras` model; it is not changed.
        data: inputs as `quantize` takes them; 100 samples usually do.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        progress: show a progress bar.

    Returns:
        A prepared model. Quantize it as the original; call it after `equalize`.

    Raises:
        UnsupportedModelError: as for `quantize`.
        CalibrationDataError: the data is empty, does not fit the model or holds NaN.
        SimMismatchError: the result would compute something else on the data, which is a fault of
            this package.

    Warns:
        QuantizationWarning: no channel has a constant part that its readers can take up.

    Example:
        >>> import numpy as np, tf_keras, keras_edgeq as eq
        >>> x = tf_keras.Input((4,))
        >>> y = tf_keras.layers.Dense(3, bias_initializer="ones")(x)
        >>> model = tf_keras.Model(x, tf_keras.layers.Dense(2)(y))
        >>> inputs = np.random.rand(64, 4).astype("float32")
        >>> result = eq.absorb_bias(model, inputs, progress=False)
        >>> bool(np.allclose(result(inputs), model(inputs), atol=1e-5))
        True

    Reference:
        Nagel et al. 2019, arXiv:1906.04721, section 4.1.3, there with three deviations.
    """
    model = as_functional(model)
    form = prepared_form(model)
    prepared, known = form.model, form.known
    paths = _paths(LayerGraph.of(prepared))
    samples: list[NDArray] = []
    if data is None:
        # Random inputs may reach further than what batch norms saw, where a shift is not exact.
        made = {ref: known.made[ref.layer] for ref in paths if ref.layer in known.made}
        ends = {ref: _of_moments(moments) for ref, moments in made.items()}
    else:
        first, source = peek(batches(data, model, batch_size, steps))
        samples = few(first, model)
        ends = channel_statistics(prepared, paths, source, progress)
    biases: dict[str, NDArray] = {}
    for ref, statistics in ends.items():
        _absorb(prepared, ref, paths[ref], statistics, biases)
    if not biases:
        warn_of_nothing("absorb_bias", model.name, NO_PART if paths else NO_READER)
    absorbed = rebuild(prepared, lambda layer: _with_bias(layer, biases.get(layer.name)))
    if samples:
        check_equal(model, absorbed, samples)
    return absorbed


def _paths(graph: LayerGraph) -> dict[TensorRef, _Path]:
    """Return outputs of kernels whose shift every reader can take up."""
    found = {}
    for node in graph.nodes:
        found_map = channel_map(node.layer)
        once = len(graph.calls_of(node.layer)) == 1
        if not once or not found_map or found_map.bias_name is None or found_map.outputs is None:
            continue
        path = _Path()
        if _follow(graph, node.outputs[0], 1, path):
            found[node.outputs[0]] = path
    return found


def _follow(graph: LayerGraph, ref: TensorRef, repeat: int, path: _Path) -> bool:
    """Collect what reads a tensor; False if a reader cannot take up a shift.

    Args:
        graph: of a prepared model.
        ref: the tensor.
        repeat: how often its channels follow each other on the last axis, behind Flatten.
        path: gets the readers.
    """
    readers = graph.consumers(ref)
    return (
        bool(readers)
        and ref not in graph.outputs
        and all(_follow_reader(graph, node, repeat, path) for node in readers)
    )


def _follow_reader(graph: LayerGraph, node: GraphNode, repeat: int, path: _Path) -> bool:
    op, layer = op_of(node.layer), node.layer
    shape = tuple(node.call.node.keras_inputs[0].shape)
    if _takes_shift(layer) and len(graph.calls_of(layer)) == 1:
        path.readers.append((layer, repeat))
        return True
    if op.rectifies and op.scale == "passes":  # f(x - c) = f(x) - c where x >= c >= 0
        path.clips = True
    elif type(layer) is L.Flatten and None not in shape[1:]:
        repeat *= int(np.prod(shape[1:-1]))
    elif not op.shifts or (op.scale == "pools" and not keeps_channels(node)):
        return False
    return _follow(graph, node.outputs[0], repeat, path)


def _takes_shift(layer) -> bool:
    """Tell whether every output of a layer sees all of its kernel on real input."""
    return bool(channel_map(layer)) and sees_all(layer)


def _of_moments(moments: Moments) -> ChannelStatistics:
    """Return what a batch norm says, as if it were seen on any number of samples."""
    low, high = (moments.mean + sign * NORM_DEVIATIONS * moments.deviation for sign in (-1, 1))
    zero = np.zeros_like(low)
    return ChannelStatistics(np.inf, low, high, (low, zero), (high, zero))


def _absorb(model, ref: TensorRef, path: _Path, ends: ChannelStatistics, biases: dict) -> None:
    """Move a shift out of a layer's bias into those of its readers."""
    shift = np.maximum(ends.depth, 0.0) if path.clips else (ends.low + ends.high) / 2.0
    layer = model.get_layer(ref.layer)
    if not np.any(shift):
        return
    biases[layer.name] = _bias(layer, biases) - shift
    for reader, repeat in path.readers:
        channels = channel_map(reader)
        assert channels  # _takes_shift asked
        biases[reader.name] = _bias(reader, biases) + channels.sums(np.tile(shift, repeat))


def _bias(layer, biases: dict) -> NDArray:
    if layer.name in biases:
        return biases[layer.name]
    channels = channel_map(layer)
    assert channels  # only such layers are on a path
    return channels.bias()


def _with_bias(layer, bias: NDArray | None):
    if bias is None:
        return None
    channels = channel_map(layer)
    assert channels  # only such layers are on a path
    weights = [*layer.get_weights()[:1], bias.astype(np.float32)]
    return clone(layer, **channels.with_bias, weights=weights)
