"""Scores that a mask takes out of a softmax: their grid has room for a number that becomes 0.

`tf.where(mask, scores, -1e9)` is not a number for a grid: it would leave the scores no steps. The
grid ends a little below them instead, and -1e9 is clipped to its end.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.layers.fake_quant import FAR, FakeQuant
from keras_edgeq.ops import op_of
from keras_edgeq.ops.moves import readers_behind_moves
from keras_edgeq.ops.operands import selected_numbers
from keras_edgeq.ops.plain import SELECT, SOFTMAX

if TYPE_CHECKING:
    from keras_edgeq.sim.quant_sim import QuantSim

# Keys that a softmax shares among where their number is free.
MANY = 128
REASON = (
    "selects a number beyond 1000, beside which a grid has no steps for others; only -1e9 and "
    "alike right in front of a Softmax are clipped"
)


def far_numbers(graph: LayerGraph) -> dict[int, str]:
    """Return why calls that select a number like -1e9 stay float, unless a softmax reads it.

    Args:
        graph: of the prepared model.

    Returns:
        The reasons by the `id` of the call.
    """
    selects = [node for node in graph.nodes if op_of(node.layer) is SELECT]
    far = [n for n in selects if any(abs(x) >= FAR for x in selected_numbers(n.call.node))]
    return {id(node): REASON for node in far if not masked_keys(graph, node)}


def masked_keys(graph: LayerGraph, node: GraphNode) -> int:
    """Return among how many keys a softmax shares that reads a call with masked scores, else 0."""
    if op_of(node.layer) is not SELECT:
        return 0
    numbers = selected_numbers(node.call.node)
    if len(numbers) != 1 or numbers[0] > -FAR:
        return 0
    readers = readers_behind_moves(graph, node)
    if any(op_of(reader.layer) is not SOFTMAX for reader in readers):
        return 0
    return max((reader.shapes[0][-1] or MANY for reader in readers), default=0)


def room(keys: int, bits: int) -> float:
    """Return how far below the least score masked ones lie.

    All of them together weigh less than a step of the softmax's grid then, even beside a key that
    has the least score.
    """
    return log(keys * 2.0**bits)


def masked_grids(sim: QuantSim) -> dict[str, int]:
    """Return, for each grid that masked scores lie on, among how many keys a softmax shares."""
    found: dict[str, int] = {}
    for node in LayerGraph.of(sim).nodes:
        keys = node.call.node.call_kwargs.get("keys") if isinstance(node.layer, FakeQuant) else None
        if keys:
            found[node.layer.tensor] = max(keys, found.get(node.layer.tensor, 0))
    return found
