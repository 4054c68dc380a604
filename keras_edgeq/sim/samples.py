"""Random samples within the ranges of a model's inputs, for use without data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import tf_keras

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.ops import op_of
from keras_edgeq.sim.data import Batch, fixed_batch
from keras_edgeq.sim.ids import id_tensors
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.tensor_ref import TensorRef

# As many as a check looks at.
SAMPLES = 4
# Of an axis whose size the model leaves open: a few strided layers deep.
OPEN_SIZE = 64
Ranges = Mapping[str, tuple[float, float]]


def random_inputs(model: tf_keras.Model, ranges: Ranges) -> list[np.ndarray]:
    """Return uniform inputs in the order of the model's, always the same.

    Args:
        model: a functional model.
        ranges: of inputs by name; others lie between -1 and 1. Ids are those of the smallest table
            among those of the model.
    """
    generator = np.random.default_rng(0)
    graph = LayerGraph.of(model)
    ids, tables = id_tensors(graph), _tables(graph)
    inputs = []
    for symbol, name in zip(model.inputs, model.input_names, strict=True):
        batch, *sizes = symbol.shape
        shape = (batch or SAMPLES, *(OPEN_SIZE if d is None else d for d in sizes))
        kind = symbol.dtype.as_numpy_dtype
        if not symbol.dtype.is_floating or TensorRef(name) in ids:
            values = generator.integers(0, min(tables, default=2), shape)
        else:
            values = generator.uniform(*ranges.get(name, (-1.0, 1.0)), shape)
        inputs.append(values.astype(kind))
    return inputs


def peek(source: Iterator[Batch]) -> tuple[Batch, Iterator[Batch]]:
    """Return the first batch of a source, and the source with that batch still in it."""
    first = next(source)
    return first, chain([first], source)


def few(inputs: Sequence[np.ndarray], model: tf_keras.Model) -> list[np.ndarray]:
    """Return a few of the samples, or a whole batch where the model takes no other."""
    most = fixed_batch(model) or SAMPLES
    return [part[:most] for part in inputs]


def samples_of(sim: QuantSim) -> tuple[list[np.ndarray], bool]:
    """Return the samples that a sim keeps and True, or random ones within its grids and False."""
    if sim.record.samples:
        return list(sim.record.samples), True
    grids = {name: quantizer.encoding for name, quantizer in sim.quantizers().items()}
    ranges = {
        name: (float(grid.min), float(grid.max))
        for name in sim.input_names
        if (grid := grids.get(name)) is not None
    }
    return random_inputs(sim, ranges), False


def _tables(graph: LayerGraph) -> list[int]:
    """Return the sizes of the tables that ids are looked up in."""
    layers = [node.layer for node in graph.nodes]
    layers = [getattr(layer, "layer", layer) for layer in layers]
    sizes = [
        getattr(layer, "input_dim", None) or getattr(layer, "num_tokens", None)
        for layer in layers
        if op_of(layer).reads_ids
    ]
    return [int(size) for size in sizes if size]
