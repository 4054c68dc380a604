"""Constants, batch norms and pools in the form that targets compute, in as few walks as can be.

What waits for nothing is rewritten in one walk; what stands beside a rewritten layer, in the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tf_keras

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.graph.rebuild import Edits, edited
from keras_edgeq.ops import op_of
from keras_edgeq.ops.plain import BATCH_NORM
from keras_edgeq.prepare.affine import affine, can_be_affine, constant_edits
from keras_edgeq.prepare.fold_batch_norms import (
    Fold,
    find_folds,
    fold_edits,
    made_by,
    on_last_axis,
    scale_and_offset,
)
from keras_edgeq.prepare.global_pools import mean_edits

L = tf_keras.layers


@dataclass(frozen=True, eq=False)
class Simplified:
    """What `simplified` made of a model.

    Args:
        model: the new one.
        made: layer -> the batch norm whose output it makes now.
        kept: batch norms that stay -> the layer in front of them that they fold into.
        constants: layers that hold constants now.
    """

    model: tf_keras.Model
    made: Mapping[str, str]
    kept: Mapping[str, str]
    constants: frozenset[str]


def simplified(model: tf_keras.Model, keep_batch_norms: bool = False) -> Simplified:
    """Return a model with batch norms folded, and those that do not fold as 1x1 convolutions.

    Rescaling, Normalization and operations with constants become convolutions, too, and average
    pools over the whole image become means.

    Args:
        model: with one operation per layer; it is not changed.
        keep_batch_norms: let batch norms that fold into the layer in front of them stay.
    """
    graph = LayerGraph.of(model)
    edits, constants = constant_edits(graph)
    edits |= mean_edits(graph)
    made: dict[str, str] = {}
    settled: set[str] = set()
    while True:
        folds = [f for f in find_folds(graph, settled) if not _touches(graph, f, edits)]
        made |= made_by(folds)
        kept = {fold.batch_norm.name: fold.layer.name for fold in folds if fold.behind}
        if keep_batch_norms:
            folds = [fold for fold in folds if not fold.behind]
        changed = {**edits, **fold_edits(folds)}
        rest = _settled(graph, changed, kept if keep_batch_norms else {})
        settled |= {layer.name for layer in rest}
        edits = {**changed, **{id(layer): _as_affine(layer) for layer in rest}}
        if not edits:
            return Simplified(model, made, kept if keep_batch_norms else {}, constants)
        model = edited(model, edits)
        graph, edits = LayerGraph.of(model), {}


def _touches(graph: LayerGraph, fold: Fold, edits: Edits) -> bool:
    """Tell whether a batch norm stands beside a layer that is rewritten first."""
    return not edits.keys().isdisjoint(_beside(graph, fold.batch_norm))


def _settled(graph: LayerGraph, edits: Edits, kept: Mapping[str, str]) -> list[Any]:
    """Return the batch norms that nothing is left to fold into."""
    layers = {id(n.layer): n.layer for n in graph.nodes if op_of(n.layer) is BATCH_NORM}
    return [
        layer
        for key, layer in layers.items()
        if key not in edits
        and layer.name not in kept
        and all(_can_be_affine(layer, call.shapes[0]) for call in graph.calls_of(layer))
        and edits.keys().isdisjoint(_beside(graph, layer))
    ]


def _beside(graph: LayerGraph, batch_norm: Any) -> set[int]:
    """Return the ids of the layers that a batch norm could fold into, and of those between."""
    found: set[int] = set()
    for node in graph.calls_of(batch_norm):
        found |= {id(graph.producer(ref).layer) for ref in node.inputs}
        behind = _readers(graph, node)
        flat = [reader for reader in behind if type(reader.layer) is L.Flatten]
        behind += [reader for flatten in flat for reader in _readers(graph, flatten)]
        found |= {id(reader.layer) for reader in behind}
    return found


def _readers(graph: LayerGraph, node: GraphNode) -> list[GraphNode]:
    return [reader for ref in node.outputs for reader in graph.consumers(ref)]


def _can_be_affine(batch_norm: Any, shape: tuple) -> bool:
    return on_last_axis(batch_norm, shape) and can_be_affine(shape)


def _as_affine(batch_norm: Any) -> Any:
    function = affine(batch_norm.name, *scale_and_offset(batch_norm), batch_norm.trainable)
    return lambda x, **_: function(x)
