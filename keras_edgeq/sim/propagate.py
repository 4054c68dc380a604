"""Follow the distribution of every tensor through a prepared model, without data.

A tensor is one distribution per channel of its last axis; positions are taken to be alike, and
tensors that do not come from the same one to be independent.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.numerics.quantiles import Quantiles
from keras_edgeq.ops import Op, op_of
from keras_edgeq.ops.operands import keeps_channels
from keras_edgeq.prepare.known_statistics import KnownStatistics, Moments
from keras_edgeq.sim.weighted_sums import weighted_sums
from keras_edgeq.spec.tensor_ref import TensorRef

DYNAMIC_SIZE = 8


@dataclass(frozen=True, eq=False)
class Spread:
    """Distribution of a tensor.

    Args:
        points: `[points, channels]` of `Quantiles`, or one channel for all.
        source: the tensor that this is a function of, point by point; such tensors of one source
            are not independent but known together.
    """

    points: NDArray[np.float32]
    source: TensorRef


class Propagation:
    """One walk over a prepared model; `spreads` has what is known in the end.

    `bounds` takes what an operation makes of anything, such as 0 to 6 behind a ReLU6, for the
    distribution of what is not known: right for its range, a mere guess for its mean.
    """

    def __init__(
        self,
        graph: LayerGraph,
        known: KnownStatistics,
        ranges: Mapping[str, tuple[float, float]],
        quantiles: Quantiles,
        bounds: bool = True,
    ):
        self.known, self.ranges, self.quantiles = known, ranges, quantiles
        self.bounds = bounds
        self.spreads: dict[TensorRef, Spread] = {}
        for node in graph.nodes:
            for ref, spread in zip(node.outputs, self._outputs(node), strict=True):
                if spread is not None:
                    self.spreads[ref] = spread

    def _outputs(self, node: GraphNode) -> list[Spread | None]:
        """Return what a call makes: what batch norms know, else what follows from its inputs."""
        name, op = node.layer.name, op_of(node.layer)
        if name in self.known.made:
            return [self._normal(node.outputs[0], self.known.made[name])]
        seen = self.known.seen.get(node.outputs[0])
        if node.call.node.is_input:
            return [self._input(node, seen)]
        made = self._made(node, op)
        if seen is None or len(made) > 1:
            return made
        alike = op.spread == "each" and len(node.inputs) == 1
        if alike and made[0] is None:
            return self._elementwise(node, [self._normal(node.outputs[0], seen)])
        if made[0] is not None and (alike or op.spread in ("keeps", "moves")):
            return made
        return [self._normal(node.outputs[0], seen)]

    def _made(self, node: GraphNode, op: Op) -> list[Spread | None]:
        inputs = [self.spreads.get(ref) for ref in node.inputs]
        nothing: list[Spread | None] = [None] * len(node.outputs)
        ref = node.outputs[0]
        if op.spread == "table":
            return [Spread(self.quantiles.empirical(np.asarray(node.layer.embeddings)), ref)]
        if op.spread == "shares":
            return [self._shares(ref, node.shapes[0][-1])]
        if op.spread == "normal":
            return [self._normalized(node)]
        if self.bounds and op.bounds is not None and None in inputs:
            return [Spread(self.quantiles.uniform(*op.bounds), ref)]
        known = [spread for spread in inputs if spread is not None]
        if len(known) < len(inputs) or not known:
            return nothing
        if op.spread == "each":
            together = all(spread.source == known[0].source for spread in known)
            return self._elementwise(node, known) if together else [self._binary(ref, op, known)]
        if op.spread == "keeps" and keeps_channels(node):
            return [known[0]]
        if op.spread == "moves":
            return self._moved(node, known)
        points = weighted_sums(node.layer, known[0].points, self.quantiles)
        return nothing if points is None else [Spread(self._fitted(points, node, 0), ref)]

    def _normal(self, ref: TensorRef, moments: Moments) -> Spread:
        return Spread(self.quantiles.normal(moments.mean, moments.deviation), ref)

    def _input(self, node: GraphNode, seen: Moments | None) -> Spread | None:
        ref, bounds = node.outputs[0], self.ranges.get(node.layer.name)
        if bounds is not None:
            return Spread(self.quantiles.uniform(*bounds), ref)
        return None if seen is None else self._normal(ref, seen)

    def _shares(self, ref: TensorRef, classes: int | None) -> Spread:
        """Return probabilities between those of a guess and those of a certain answer."""
        mean = 1.0 / (classes or 2)
        points = self.quantiles.within(mean, mean * (1.0 - mean), 0.0, 1.0)
        points[0], points[-1] = 0.0, 1.0
        return Spread(points, ref)

    def _normalized(self, node: GraphNode) -> Spread | None:
        layer, rank = node.layer, len(node.shapes[0])
        axis = layer.axis if isinstance(layer.axis, int) else tuple(layer.axis)
        if axis not in (-1, rank - 1, (-1,), (rank - 1,)):
            return None
        mean = 0.0 if layer.beta is None else np.asarray(layer.beta)
        deviation = 1.0 if layer.gamma is None else np.abs(layer.gamma)
        moments = Moments(np.asarray(mean), np.asarray(deviation))
        return self._normal(node.outputs[0], moments)

    def _elementwise(self, node: GraphNode, inputs: list[Spread]) -> list[Spread | None]:
        """Call the layer on the points: exact for every function of one tensor."""
        rank = max(len(node.shapes[0]), 2)
        values = []
        for spread, symbol in zip(inputs, node.call.reads, strict=True):
            points = spread.points.reshape(len(spread.points), *[1] * (rank - 2), -1)
            # One column stands for all channels, and PReLU has a parameter for each of them.
            width = max(points.shape[-1], symbol.shape[-1] or 1)
            values.append(tf.constant(np.broadcast_to(points, (*points.shape[:-1], width))))
        (made,) = _called(node, values)
        points = np.asarray(made, np.float32)
        return [Spread(self._fitted(points, node, 0), inputs[0].source)]

    def _binary(self, ref: TensorRef, op: Op, inputs: list[Spread]) -> Spread | None:
        """Return a sum, difference or product of independent tensors as a normal distribution."""
        if op.combine is None:
            return None
        points = inputs[0].points
        for other in inputs[1:]:
            (m, v), (n, w) = self.quantiles.moments(points), self.quantiles.moments(other.points)
            ends = [
                op.combine(a, b) for a, b in itertools.product(_ends(points), _ends(other.points))
            ]
            variance = v * w + v * n**2 + w * m**2 if op.combine is np.multiply else v + w
            points = self.quantiles.within(
                op.combine(m, n), variance, np.minimum.reduce(ends), np.maximum.reduce(ends)
            )
        return Spread(points, ref)

    def _moved(self, node: GraphNode, inputs: list[Spread]) -> list[Spread | None]:
        """Find which channel comes from where by moving the channels' numbers."""
        symbols = node.call.reads
        widths = [symbol.shape[-1] or 1 for symbol in symbols]
        numbers, first = [], 1  # 0 is what a pad adds
        for symbol, width in zip(symbols, widths, strict=True):
            sizes = [DYNAMIC_SIZE if size is None else size for size in symbol.shape[1:]]
            sizes = [symbol.shape[0] or 1, *sizes[:-1], width]
            numbers.append(
                tf.constant(np.broadcast_to(np.arange(width) + first, sizes), tf.float32)
            )
            first += width
        columns = [
            np.broadcast_to(spread.points, (len(spread.points), width))
            for spread, width in zip(inputs, widths, strict=True)
        ]
        joined = np.concatenate(columns, axis=1)
        try:
            moved = [np.asarray(made, np.int64) for made in _called(node, numbers)]
        except tf.errors.InvalidArgumentError:  # sizes that depend on the number of samples
            return [None] * len(node.outputs)
        made = [self._gathered(joined, places.reshape(-1, places.shape[-1])) for places in moved]
        return [
            Spread(self._fitted(points, node, index), ref)  # one column where the size is unknown
            for index, (points, ref) in enumerate(zip(made, node.outputs, strict=True))
        ]

    def _gathered(self, points: NDArray, places: NDArray) -> NDArray:
        """Return the columns that a tensor is made of; several in one place are joined."""
        last = places.max(axis=0)
        if np.all((places == last) | (places == 0)):
            return points[:, np.maximum(last - 1, 0)]
        columns = []
        for column in places.T:
            found = np.unique(column[column > 0]) - 1
            columns.append(self.quantiles.mixture(points[:, found, None]))
        return np.concatenate(columns, axis=1)

    def _fitted(self, points: NDArray, node: GraphNode, index: int) -> NDArray:
        """Return one column per channel; what differs between positions is joined."""
        channels = node.shapes[index][-1] or 1
        points = points.reshape(len(points), -1)
        if points.shape[1] in (1, channels):
            return points
        return self.quantiles.mixture(points.reshape(len(points), -1, channels))


def _ends(points: NDArray) -> tuple[NDArray, NDArray]:
    points = np.asarray(points, np.float64)
    return points.min(axis=0), points.max(axis=0)


def _called(node: GraphNode, values: list) -> list:
    """Call a layer on other values, in the order of its inputs."""
    by_symbol = {id(s): value for s, value in zip(node.call.reads, values, strict=True)}
    args, kwargs = keras_compat.arguments(node.call.node, by_symbol)
    return tf.nest.flatten(node.layer(*args, **kwargs))
