"""A unit with its data: what the loop of `reconstruct` needs to know about it.

`RowsWork` takes a single layer as a matrix product and looks at random outputs of all samples.
`GraphWork` computes the unit's part of the model on random samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_edgeq.graph.rebuild import Call
from keras_edgeq.layers import FakeQuant
from keras_edgeq.ops import matrix_form
from keras_edgeq.ops.matrix_form import MatrixForm
from keras_edgeq.ptq.adaround.blocks import Unit, operation
from keras_edgeq.ptq.adaround.reconstruct import Candidates
from keras_edgeq.ptq.adaround.segment import Segment, open_call
from keras_edgeq.ptq.open_kernel import assign_steps, bounds, encoding_of, ratio, steps
from keras_edgeq.streams.stream import Stream, float_call, real_input

# Samples that do not fit into memory at once are drawn again after so many iterations.
REDRAW = 500
MOST_ROWS = 65_536
PATCH_BYTES = 64_000_000
EVALUATED = {"rows": 8192, "samples": 32}


@dataclass(frozen=True)
class Sampling:
    """What an iteration sees of the data, and where it begins.

    Args:
        memory_bytes: for the samples drawn.
        batch_size: samples per iteration.
        drop: probability with which an element of an activation inside a unit is not quantized.
        trust: see `Candidates.around`.
        seed: of the draw.
    """

    memory_bytes: int
    batch_size: int = 32
    drop: float = 0.0
    trust: float = 0.9
    seed: int = 0


class RowsWork:
    """A single layer whose output is followed by activations of single elements only."""

    evaluated = EVALUATED["rows"]

    def __init__(self, unit: Unit, floats: Stream, rounded: Stream, sampling: Sampling):
        call = rounded.calls[unit.start]
        self._floats, self._rounded, self._sampling = floats, rounded, sampling
        self._number, self._layer = unit.start, call.layer
        self.layers = [call.layer]
        form = matrix_form(call.layer.layer)
        assert form  # `is_product` was asked
        self._form, (groups, inputs, outputs) = form, form.shape
        self._tail = _Tail(floats.calls, unit)
        each = encoding_of(call.layer).unit(form.kernel_shape)
        scale = np.broadcast_to(each, form.kernel_shape)
        bias = getattr(call.layer.layer, "bias", None)
        bias = np.zeros((groups, 1, outputs)) if bias is None else form.of_bias(bias)
        self.fixed = [
            tf.constant(form.columns(scale), tf.float32),
            tf.constant(np.reshape(bias, -1), tf.float32),
        ]
        per_row = 4 * groups * (inputs + outputs)
        self._most = int(np.clip(sampling.memory_bytes // (2 * per_row), 256, MOST_ROWS))
        self._kept: tuple[list, Any] | None = None
        self._is_all = False

    @property
    def key(self) -> tuple:
        """What the traced loop depends on."""
        return (self._form.groups, *self.fixed[0].shape, self._tail.key)

    def candidates(self, wanted: Sequence[NDArray]) -> list[Candidates]:
        """Return the candidates, as columns, around the kernel wanted in real numbers."""
        layer, form = self._layer, self._form
        shape = form.kernel_shape
        low, high = (form.columns(np.broadcast_to(b, shape)) for b in bounds(layer))
        start = form.columns(steps(layer))
        columns = form.columns(ratio(layer, wanted[0]))
        return [Candidates.around(columns, start, low, high, self._sampling.trust)]

    def forward(self, inputs, fixed, kernels, seed):
        """Return the layer's output for rows `[rows, groups, inputs]`, activated."""
        del seed
        (x,), (scale, bias), columns = inputs, fixed, kernels[0] * fixed[0]
        del scale
        if columns.shape[0] == 1:
            y = tf.matmul(x[:, 0], columns[0])
        else:
            y = tf.reduce_sum(x[..., None] * columns, 2)
        y = tf.reshape(y, [tf.shape(x)[0], bias.shape[0]])
        return self._tail(y + bias)

    def draw(self, iteration: int) -> tuple[list, Any, int]:
        """Return rows of all samples with the outputs that the layer should give."""
        if self._kept is None or not self._is_all:
            rng = np.random.default_rng([self._sampling.seed, iteration])
            self._kept = self._rows_of_all(rng)
        return (*self._kept, 2**31 - 1 if self._is_all else REDRAW)

    def _rows_of_all(self, rng) -> tuple[list, Any]:
        per_batch = -(-self._most // len(self._rounded))
        found, wanted, left_out = [], [], False
        float_layer = self._floats.calls[self._number].layer
        for batch in range(len(self._rounded)):
            x = real_input(*self._rounded.arguments(batch))
            y = float_layer.layer(self._floats.arguments(batch)[0][0])
            for part_x, part_y, share in _parts(x, y, self._form):
                rows = tf.transpose(self._form.rows(part_x), [1, 0, 2])
                products = self._form.products(part_y)
                most = max(1, int(per_batch * share))
                if len(rows) > most:
                    at = rng.choice(len(rows), most, replace=False)
                    rows, products, left_out = tf.gather(rows, at), tf.gather(products, at), True
                found.append(rows)
                wanted.append(products)
        self._is_all = not left_out
        return [tf.concat(found, 0)], self._tail(tf.concat(wanted, 0))

    def assign(self, kernels: Sequence[NDArray]) -> None:
        """Give the layer its columns in steps."""
        assign_steps(self._layer, self._form.kernel(kernels[0]))


class GraphWork:
    """Any unit, computed as the sim computes it on samples of a part of the batches."""

    evaluated = EVALUATED["samples"]
    key = None

    def __init__(self, unit: Unit, floats: Stream, rounded: Stream, sampling: Sampling):
        self._floats, self._rounded, self._sampling = floats, rounded, sampling
        self.layers = [rounded.calls[i].layer for i in unit.layers]
        self._segment = Segment(rounded.calls, unit, unit.start)
        self._float_segment = Segment(floats.calls, unit, unit.start)
        self._target = _target_of(self._float_segment, floats)
        living = rounded.living(0)
        self._scalars = [key for key in self._segment.inputs if living[key].shape.rank == 0]
        self._tensors = [key for key in self._segment.inputs if living[key].shape.rank != 0]
        self.fixed = [living[key] for key in self._scalars]
        end = self._float_segment.output(self._target(self._living_floats(0)))
        sizes = [living[key].numpy().nbytes for key in self._tensors] + [end.numpy().nbytes]
        self._most = int(np.clip(sampling.memory_bytes // (2 * sum(sizes)), 1, len(rounded)))
        self._kept: tuple[list, Any] | None = None

    def candidates(self, wanted: Sequence[NDArray]) -> list[Candidates]:
        """Return the candidates around each of the kernels wanted in real numbers."""
        trust = self._sampling.trust
        return [
            Candidates.around(ratio(layer, kernel), steps(layer), *bounds(layer), trust)
            for layer, kernel in zip(self.layers, wanted, strict=True)
        ]

    def forward(self, inputs, fixed, kernels, seed):
        """Return the unit's output for samples."""
        values = dict(zip([*self._tensors, *self._scalars], [*inputs, *fixed], strict=True))
        named = {layer.name: k for layer, k in zip(self.layers, kernels, strict=True)}
        on_call = open_call(
            self._segment.end, named, 0.0 if seed is None else self._sampling.drop, seed
        )
        return self._segment.output(self._segment.run(values, on_call))

    def draw(self, iteration: int) -> tuple[list, Any, int]:
        """Return samples of random batches with the outputs that the unit should give."""
        count, is_all = len(self._rounded), self._most == len(self._rounded)
        if self._kept is None or not is_all:
            rng = np.random.default_rng([self._sampling.seed, iteration])
            chosen = np.sort(rng.choice(count, self._most, replace=False))
            living = [self._rounded.living(i) for i in chosen]
            inputs = [tf.concat([one[key] for one in living], 0) for key in self._tensors]
            outputs = [
                self._float_segment.output(self._target(self._living_floats(i))) for i in chosen
            ]
            self._kept = inputs, tf.concat(outputs, 0)
        return (*self._kept, 2**31 - 1 if is_all else REDRAW)

    def _living_floats(self, batch: int) -> dict[int, Any]:
        living = self._floats.living(int(batch))
        return {key: living[key] for key in self._float_segment.inputs}

    def assign(self, kernels: Sequence[NDArray]) -> None:
        """Give each layer its kernel in steps."""
        for layer, kernel in zip(self.layers, kernels, strict=True):
            assign_steps(layer, kernel)


def make_work(
    unit: Unit, floats: Stream, rounded: Stream, sampling: Sampling
) -> RowsWork | GraphWork:
    """Return the cheaper form that fits a unit; both streams stand in front of it."""
    if len(unit.layers) == 1:
        behind = [call.layer for call in Segment(rounded.calls, unit, unit.start).calls[1:]]
        if all(isinstance(layer, FakeQuant) or operation(layer).is_pointwise for layer in behind):
            return RowsWork(unit, floats, rounded, sampling)
    return GraphWork(unit, floats, rounded, sampling)


def _target_of(segment: Segment, floats: Stream):
    return lambda values: segment.run(values, float_call)


class _Tail:
    """The activations behind a layer, on `[rows, channels]`."""

    def __init__(self, walked: list[Call], unit: Unit):
        self._weighted = walked[unit.start]
        self._calls = Segment(walked, unit, unit.start)

    def __call__(self, products):
        def on_call(call, args, kwargs):
            if call.node is self._weighted.node:
                return products, products, tf.constant(1.0)
            return float_call(call, args, kwargs)

        inputs = dict.fromkeys(self._calls.inputs, tf.constant(1.0))
        return self._calls.output(self._calls.run(inputs, on_call))

    @property
    def key(self) -> tuple:
        """What the activations are; calls of op layers are never alike."""
        found: list[Any] = []
        for call in self._calls.calls[1:]:
            if isinstance(call.layer, FakeQuant):
                found.append(call.node.call_kwargs.get("activation"))
            else:
                config = {k: v for k, v in call.layer.get_config().items() if k != "name"}
                own = id(call.node) if "function" in config else None
                found.append((type(call.layer).__name__, str(config), own))
        return tuple(found)


def _parts(inputs, outputs, form: MatrixForm):
    """Split a batch so that its rows stay small; give each part's share of the batch."""
    groups, width, _ = form.shape
    per_sample = 4 * max(int(np.prod(form.positions(inputs))) * groups * width, 1)
    size = max(1, PATCH_BYTES // per_sample)
    for i in range(0, len(inputs), size):
        part = inputs[i : i + size]
        yield part, outputs[i : i + size], len(part) / len(inputs)
