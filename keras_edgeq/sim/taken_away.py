"""Numbers that a selection takes away: what makes them computes in float.

`tf.where(y > 0, x / y, 0)` divides by zero where it takes zero. No grid holds what that makes, a
grid for the rest would end at the largest quotient of all, and a divisor that is rounded behind the
comparison may be zero where the quotient is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops import op_of
from keras_edgeq.ops.operands import divides_by_number
from keras_edgeq.ops.plain import SELECT
from keras_edgeq.ops.table import is_known
from keras_edgeq.spec.tensor_ref import TensorRef

REASON = (
    "belongs to a branch of a selection that may be NaN, infinite or very large where the other "
    "one is taken, which no grid holds"
)

COMPARED = "is only compared, and may be NaN or infinite, which no grid holds"


def taken_away(graph: LayerGraph) -> dict[int, str]:
    """Return why calls stay float whose NaN or infinity a selection takes away, or a comparison.

    Those are functions that have no real number for some inputs, or none that a grid would hold,
    where they are only compared, or a selection takes their results; then also what computes on
    each of these alone, and the selection; and in front of the functions what computes on numbers
    that the condition reads as well, which rounding would part from it.

    Args:
        graph: of the prepared model.

    Returns:
        The reasons by the `id` of the call.
    """
    found: dict[int, str] = {}
    behind = _behind(graph)
    for node in graph.nodes:
        if _is_singular(node) and _is_compared(graph, node):
            found[id(node)] = COMPARED
        elif op_of(node.layer) is SELECT and node.is_float and behind.intersection(node.inputs):
            found.update(dict.fromkeys(map(id, _guarded(graph, node, behind)), REASON))
    return found


def _behind(graph: LayerGraph) -> set[TensorRef]:
    """Return the tensors that are made of what a singular function made, number by number."""
    behind: set[TensorRef] = set()
    for node in graph.nodes:
        if _is_singular(node) or behind.intersection(_passed_on(graph, node)):
            behind.update(node.outputs)
    return behind


def _guarded(graph: LayerGraph, node: GraphNode, behind: set[TensorRef]) -> list[GraphNode]:
    """Return a selection that takes away what a singular function makes, and what is in front."""
    operands = keras_compat.operands(node.call.node)[:3]
    condition, *branches = (
        [graph.name_of(one)] if keras_compat.is_keras_tensor(one) else [] for one in operands
    )
    guards = _made_of(graph, condition, lambda n: n.inputs if _is_each(n) or not n.is_float else ())
    taken = _made_of(
        graph,
        [ref for branch in branches for ref in branch if ref in behind],
        lambda n: behind.intersection(_passed_on(graph, n)),
    )
    singular = [n for n in map(graph.producer, taken) if _is_singular(n)]
    front = _made_of(
        graph,
        [ref for n in singular for ref in n.inputs if ref not in guards],
        lambda n: [ref for ref in n.inputs if ref not in guards] if _is_each(n) else (),
    )
    shared = set(guards)
    for one in graph.nodes:
        if front.intersection(one.outputs) and _is_each(one) and shared.intersection(one.inputs):
            shared.update(one.outputs)
    return [node, *map(graph.producer, taken | (shared - guards))]


def _made_of(
    graph: LayerGraph,
    refs: Iterable[TensorRef],
    reads: Callable[[GraphNode], Iterable[TensorRef]],
) -> set[TensorRef]:
    """Return tensors, and what they are made of as far as a function of calls says."""
    found: set[TensorRef] = set()
    open_ends = list(refs)
    while open_ends:
        ref = open_ends.pop()
        if ref not in found:
            found.add(ref)
            open_ends += reads(graph.producer(ref))
    return found


def _passed_on(graph: LayerGraph, node: GraphNode) -> Sequence[TensorRef]:
    """Return the inputs whose numbers a call passes on or computes with, one by one.

    What a selection has made is over with the next computation: only selections of selections guard
    one thing together.
    """
    op = op_of(node.layer)
    if op is SELECT or op.spread == "moves" or op.transparent:
        return node.inputs
    made = [ref for ref in node.inputs if op_of(graph.producer(ref).layer) is not SELECT]
    return made if _is_each(node) else ()


def _is_each(node: GraphNode) -> bool:
    """Tell whether a call computes on each number alone, or moves numbers."""
    op = op_of(node.layer)
    return op.spread in ("each", "moves") or op.activates or op.transparent


def _is_singular(node: GraphNode) -> bool:
    """Tell whether a call may make NaN, infinite or very large numbers of usual ones."""
    if not node.is_float or divides_by_number(node.call.node):
        return False
    is_function = keras_compat.op_symbol(node.layer) is not None
    return op_of(node.layer).singular or (is_function and not is_known(node.layer))


def _is_compared(graph: LayerGraph, node: GraphNode) -> bool:
    """Tell whether only calls that make no real numbers read what a call makes."""
    readers = [reader for ref in node.outputs for reader in graph.consumers(ref)]
    is_output = any(ref in graph.outputs for ref in node.outputs)
    return bool(readers) and not is_output and not any(reader.is_float for reader in readers)
