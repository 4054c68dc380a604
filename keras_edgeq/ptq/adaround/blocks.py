"""Which layers of a sim are rounded together: single layers, or blocks found in its graph.

A block is, in this order of preference:

1. what lies between an addition and the tensor from which its branches fork, where nothing else
   reads what is computed in between: a residual block;
2. a pointwise convolution, the depthwise convolution behind it and the pointwise one behind that,
   where the last has no activation: an inverted residual without its addition;
3. a depthwise convolution and the pointwise one behind it;
4. a single layer.

A unit ends behind the quantizer and the activation that follow it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph.rebuild import calls
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.ops import Op, Unsupported, matrix_form, op_of
from keras_edgeq.ops.matrix_form import ConvolutionForm, DepthwiseForm, MatrixForm
from keras_edgeq.ops.plain import IDENTITY, PAD
from keras_edgeq.ptq.layer_visit import is_product

# What a block runs through without ending.
PASSED = (IDENTITY, PAD)
# Longer ones are left to smaller units: their rounding would fit the few calibration samples.
MOST_LAYERS = 8
ROOT = -1


@dataclass(frozen=True)
class Unit:
    """Layers whose rounding is found together; numbers count the calls behind the inputs.

    Args:
        layers: weighted calls whose rounding is free.
        end: call whose first output is to stay as it is.
    """

    layers: tuple[int, ...]
    end: int

    @property
    def start(self) -> int:
        """The first call that the unit computes."""
        return self.layers[0]


class _Graph:
    """Producers and readers of each call by number; scales of grids are not edges."""

    def __init__(self, sim: tf_keras.Model):
        self.calls = [call for call in calls(sim) if not call.node.is_input]
        made = {id(t): i for i, c in enumerate(self.calls) for t in tf.nest.flatten(c.node.outputs)}
        self.sources: list[tuple[int, ...]] = []
        self.readers: list[set[int]] = [set() for _ in self.calls]
        for i, call in enumerate(self.calls):
            tensors = [t for t in call.reads if t.shape.rank != 0]
            self.sources.append(tuple(dict.fromkeys(made.get(id(t), ROOT) for t in tensors)))
            for source in self.sources[-1]:
                if source != ROOT:
                    self.readers[source].add(i)
        self.outputs = {made.get(id(t), ROOT) for t in sim.outputs}

    def op(self, i: int) -> Op:
        return operation(self.calls[i].layer)

    def form(self, i: int) -> MatrixForm | Unsupported:
        layer = self.calls[i].layer
        return matrix_form(layer.layer if isinstance(layer, QuantizedLayer) else layer)

    def next(self, i: int) -> int | None:
        """Return the only reader of a call that reads nothing else, None if there is none."""
        readers = self.readers[i]
        if i in self.outputs or len(readers) != 1:
            return None
        (reader,) = readers
        return reader if self.sources[reader] == (i,) else None

    def end_of(self, i: int) -> int:
        """Return the quantizer or activation behind a call with which it ends."""
        activated = False
        while (following := self.next(i)) is not None:
            call = self.calls[following]
            if self.op(following).activates and not activated:
                activated = True
            elif not isinstance(call.layer, FakeQuant):
                break
            elif call.node.call_kwargs.get("activation"):
                activated = True
            i = following
        return i

    def is_activated(self, i: int) -> bool:
        """Tell whether an activation follows a call before anything else but a quantizer."""
        end = self.end_of(i)
        while i != end:
            i = self.next(i)  # type: ignore[assignment]  # a call before the end has one reader
            call = self.calls[i]
            fused = isinstance(call.layer, FakeQuant) and call.node.call_kwargs.get("activation")
            if self.op(i).activates or fused:
                return True
        return False

    def next_weighted(self, i: int) -> int | None:
        """Return the weighted call that a weighted call feeds and nothing else does."""
        following = self.next(self.end_of(i))
        while following is not None and self.op(following) in PASSED:
            following = self.next(following)
        return following

    def forks(self) -> list[int]:
        """Return for each call the nearest call that every path to it passes, its dominator."""
        above: list[int] = []
        depth: list[int] = []

        def meet(a: int, b: int) -> int:
            while a != b:
                deeper = a if b == ROOT or (a != ROOT and depth[a] > depth[b]) else b
                if deeper == a:
                    a = above[a]
                else:
                    b = above[b]
            return a

        for sources in self.sources:
            above.append(reduce(meet, sources, sources[0] if sources else ROOT))
            depth.append(0 if above[-1] == ROOT else depth[above[-1]] + 1)
        return above

    def between(self, fork: int, join: int) -> set[int]:
        """Return the calls on paths from one call to another, both left out."""
        found: set[int] = set()
        waiting = [s for s in self.sources[join] if s not in (fork, ROOT)]
        while waiting:
            i = waiting.pop()
            if i not in found:
                found.add(i)
                waiting += [s for s in self.sources[i] if s not in (fork, ROOT)]
        return found


def operation(layer: Any) -> Op:
    """Return the operation of a layer of a sim, wrapped or not."""
    return op_of(layer.layer if isinstance(layer, QuantizedLayer) else layer)


def single_units(sim: tf_keras.Model) -> list[Unit]:
    """Return a unit per layer; a layer that is called several times is rounded for its first."""
    graph = _Graph(sim)
    return [Unit((i,), graph.end_of(i)) for i in _weighted(graph)]


def block_units(sim: tf_keras.Model) -> list[Unit]:
    """Return the blocks of a sim, and units of one layer for what is in none, in graph order."""
    graph = _Graph(sim)
    weighted = _weighted(graph)
    counts: dict[int, int] = {}
    for call in graph.calls:
        counts[id(call.layer)] = counts.get(id(call.layer), 0) + 1
    free = {i for i in weighted if counts[id(graph.calls[i].layer)] == 1}
    units: list[Unit] = []

    def take(layers: Iterable[int]) -> None:
        layers = tuple(sorted(layers))
        free.difference_update(layers)
        units.append(Unit(layers, graph.end_of(layers[-1])))

    for join, layers in _residuals(graph, weighted):
        if layers <= free:
            free -= layers
            units.append(Unit(tuple(sorted(layers)), graph.end_of(join)))
    before = {graph.next_weighted(i): i for i in sorted(free)}
    for i in sorted(free):
        behind = graph.next_weighted(i) if isinstance(graph.form(i), DepthwiseForm) else None
        if behind not in free or not _is_pointwise(graph, behind):
            continue
        chain = {i, behind}
        expand = before.get(i)
        if expand in free and _is_pointwise(graph, expand) and not graph.is_activated(behind):
            chain.add(expand)
        take(chain)
    taken = {i for unit in units for i in unit.layers}
    units += [Unit((i,), graph.end_of(i)) for i in weighted if i not in taken]
    return sorted(units, key=lambda unit: unit.start)


def _weighted(graph: _Graph) -> list[int]:
    """Return the first calls of layers whose rounding can be found."""
    seen: set[int] = set()
    found = []
    for i, call in enumerate(graph.calls):
        if is_product(call.layer) and id(call.layer) not in seen:
            found.append(i)
        seen.add(id(call.layer))
    return found


def _residuals(graph: _Graph, weighted: list[int]) -> list[tuple[int, set[int]]]:
    """Return additions with the weighted calls behind the fork of their branches."""
    found, forks = [], graph.forks()
    for join in range(len(graph.calls)):
        adds = graph.op(join).scale == "joins" and graph.op(join).combine is not None
        if not adds or len(graph.sources[join]) < 2:
            continue
        inside = graph.between(forks[join], join)
        closed = all(graph.readers[i] <= inside | {join} for i in inside)
        layers = inside & set(weighted)
        if closed and not inside & graph.outputs and 0 < len(layers) <= MOST_LAYERS:
            found.append((join, layers))
    return found


def _is_pointwise(graph: _Graph, i: int) -> bool:
    form = graph.form(i)
    if type(form) is not ConvolutionForm or form.groups != 1:
        return False
    return set(form.layer.kernel_size) == {1}
