"""`ActivationMemory`: bytes of the activations that live at one time, as a choice makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_edgeq.graph.layer_graph import GraphNode
from keras_edgeq.mixed_precision.group_map import GroupMap
from keras_edgeq.mixed_precision.integer_program import Numbers, Table
from keras_edgeq.mixed_precision.stored_bits import activation_bytes
from keras_edgeq.ops import op_of, op_type
from keras_edgeq.ops.macs import elements
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.spec.tensor_ref import TensorRef

# Beyond it a step's tensors that follow many groups are bounded from above instead.
ROWS_PER_STEP = 64


@dataclass(frozen=True)
class Tensor:
    """An activation.

    Args:
        elements: numbers in it, of one sample.
        follows: groups that decide its precision; the widest does.
        width: bytes of a number by candidate; one entry where no group decides.
        made: step that makes it.
        last: last step that reads it.
    """

    elements: int
    follows: frozenset[int]
    width: tuple[int, ...]
    made: int
    last: int

    def bytes_at(self, numbers: Numbers) -> int:
        """Return its bytes at a choice."""
        if not self.follows:
            return self.elements * self.width[0]
        return self.elements * max(self.width[numbers[group]] for group in self.follows)


class ActivationMemory:
    """The tensors of a model on the schedule of its graph.

    Args:
        group_map: of the model.
        profile: the target.
        candidates: names of precisions.
        allowed: `[groups, candidates]`.
    """

    def __init__(
        self,
        group_map: GroupMap,
        profile: TargetProfile,
        candidates: Sequence[str],
        allowed: NDArray[np.bool_],
    ):
        self.allowed = allowed
        tensors = _tensors(group_map, profile, candidates)
        steps = sorted({tensor.made for tensor in tensors})
        self.live = [[t for t in tensors if t.made <= step <= t.last] for step in steps]

    def peak(self, numbers: Numbers) -> int:
        """Return the largest sum of bytes of live tensors."""
        return max(sum(t.bytes_at(numbers) for t in live) for live in self.live)

    def rows(self) -> list[tuple[Table, int]]:
        """Return tables with constants whose largest sum is the peak.

        A tensor that follows several groups has the width of the widest, so there is a row for
        each of them. Where a step would need more than `ROWS_PER_STEP`, its row is an upper bound.
        """
        found = [row for live in self.live for row in self._rows_of(live)]
        return [
            (np.where(self.allowed, table, np.nan), constant)
            for table, constant in _undominated(found)
        ]

    def _rows_of(self, live: Sequence[Tensor]) -> list[tuple[Table, int]]:
        sizes: dict[tuple[frozenset[int], tuple[int, ...]], int] = {}
        for tensor in live:
            key = tensor.follows, tensor.width
            sizes[key] = sizes.get(key, 0) + tensor.elements
        shape, constant = self.allowed.shape, 0
        # What was taken for the widest of each set, and the row so far.
        rows: list[tuple[dict[frozenset[int], int], Table]] = [({}, np.zeros(shape))]
        for (follows, width), size in sorted(sizes.items(), key=lambda item: len(item[0][0])):
            if not follows:
                constant += size * width[0]
                continue
            options = [_widest(follows, taken) for taken, _ in rows]
            if sum(map(len, options)) > ROWS_PER_STEP:
                narrow = min(width)
                constant += size * narrow
                for _, table in rows:
                    table[sorted(follows)] += size * (np.array(width) - narrow)
                continue
            old, rows = rows, []
            for (taken, table), groups in zip(old, options, strict=True):
                for group in groups:
                    changed = table.copy()
                    changed[group] += size * np.array(width)
                    rows.append(({**taken, follows: group}, changed))
        return [self._shifted(table, constant) for _, table in rows]

    def _shifted(self, table: Table, constant: int) -> tuple[Table, int]:
        """Move what a group costs in any case to the constant."""
        least = np.min(np.where(self.allowed, table, np.inf), axis=1)
        shifted = np.where(self.allowed, table - least[:, None], 0.0)
        return shifted, constant + int(least.sum())


def _widest(follows: frozenset[int], taken: dict[frozenset[int], int]) -> list[int]:
    """Return which groups may be the widest: of a subset only the one taken there."""
    if follows in taken:
        return [taken[follows]]
    inner = [subset for subset in taken if subset < follows]
    covered = frozenset().union(*inner)
    return sorted({*(taken[subset] for subset in inner), *(follows - covered)})


def _undominated(rows: Sequence[tuple[Table, int]]) -> list[tuple[Table, int]]:
    """Return the rows that no other exceeds everywhere, the largest first."""
    ordered = sorted(rows, key=lambda row: -(row[0].sum() + row[1]))
    kept: list[tuple[Table, int]] = []
    for table, constant in ordered:
        if not any(c >= constant and bool((t >= table).all()) for t, c in kept):
            kept.append((table, constant))
    return kept


def _tensors(
    group_map: GroupMap, profile: TargetProfile, candidates: Sequence[str]
) -> list[Tensor]:
    graph, heads = group_map.graph, group_map.heads
    place = {id(node): i for i, node in enumerate(graph.nodes)}
    # A fused kernel runs where its last call stands.
    runs = {id(head): place[id(node)] for node in graph.nodes for head in [heads[id(node)]]}
    source = _sources(group_map)
    last: dict[TensorRef, int] = {}
    for node in graph.nodes:
        for ref in node.inputs:
            last[source[ref]] = max(last.get(source[ref], 0), runs[id(heads[id(node)])])
    last.update({source[ref]: len(graph.nodes) for ref in graph.outputs})
    found = []
    for node in graph.nodes:
        step = runs[id(heads[id(node)])]
        if place[id(node)] != step:
            continue
        made = 0 if not node.inputs else step
        for index, ref in enumerate(node.outputs):
            if source[ref] == ref:
                follows, width = _width(group_map, profile, candidates, node, index)
                size = elements(node, index)
                found.append(Tensor(size, follows, width, made, last.get(ref, made)))
    return found


def _sources(group_map: GroupMap) -> dict[TensorRef, TensorRef]:
    """Return the tensor that each is: what does nothing makes none."""
    source: dict[TensorRef, TensorRef] = {}
    for node in group_map.graph.nodes:
        same = op_of(node.layer).transparent and len(node.inputs) == 1
        for ref in node.outputs:
            source[ref] = source[node.inputs[0]] if same else ref
    return source


def _width(
    group_map: GroupMap,
    profile: TargetProfile,
    candidates: Sequence[str],
    node: GraphNode,
    index: int,
) -> tuple[frozenset[int], tuple[int, ...]]:
    """Return which groups decide the bytes of a result's numbers, and the bytes by candidate."""
    dtype = tf.nest.flatten(node.call.node.outputs)[index].dtype
    op = op_type(group_map.heads[id(node)].layer)
    rule = profile.ops.get(op)
    if not dtype.is_floating:
        return frozenset(), (int(dtype.size),)
    if id(node) in group_map.floats or (rule is not None and not rule.output):
        return frozenset(), (4,)
    allowed = profile.allowed(op)
    names = [name if name in allowed else allowed[0] for name in candidates]
    follows = group_map.follows[id(node)]
    width = tuple(activation_bytes(profile.precision(name)) for name in names)
    if not follows or len(set(width)) == 1:
        own = activation_bytes(profile.precision(allowed[0]))
        return frozenset(), (width[0] if follows else own,)
    return follows, width
