"""All rows: what a random model may call."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module

from tests.random_graphs.island_rows import ISLANDS, island_layers
from tests.random_graphs.layer_rows import layer_rows
from tests.random_graphs.op_rows import OPS
from tests.random_graphs.rows import Row
from tests.random_graphs.written_rows import ARITHMETIC, MOVES

# Models are made of layers first, and most layers take one rank only.
LAYER_WEIGHT = 2.5


@cache
def table_of(library: str) -> dict[str, Row]:
    """Return the rows of models of `tf_keras`, or of Keras 3, which is `keras`."""
    L = import_module(library).layers
    layers = {k: replace(v, weight=LAYER_WEIGHT * v.weight) for k, v in layer_rows(L).items()}
    if library == "tf_keras":
        ops = {**OPS, **ISLANDS, **MOVES, **ARITHMETIC}
    else:
        from tests.random_graphs import keras_ops_rows, keras_shape_rows

        ops = {**keras_ops_rows.OPS, **keras_shape_rows.SHAPES}
    return {**layers, **island_layers(L), **ops}


TABLE = table_of("tf_keras")
