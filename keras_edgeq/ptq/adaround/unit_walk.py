"""`UnitWalk`: a float model and its sim side by side, from unit to unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_edgeq.graph import keras_compat
from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.ops import matrix_form
from keras_edgeq.ops.matrix_form import MatrixForm
from keras_edgeq.ptq.adaround.blocks import Unit
from keras_edgeq.ptq.adaround.reconstruct import Rounding, Settings, make_loop, optimise
from keras_edgeq.ptq.adaround.segment import Segment
from keras_edgeq.ptq.adaround.unit_work import GraphWork, RowsWork, Sampling, make_work
from keras_edgeq.ptq.gptq import round_layer
from keras_edgeq.ptq.layer_visit import LayerVisit
from keras_edgeq.ptq.normal_equations import NormalEquations
from keras_edgeq.ptq.open_kernel import kernel_of
from keras_edgeq.streams.pieces import OnCall
from keras_edgeq.streams.stream import Stream, float_call, rounded_call

# Outputs of one layer that an iteration looks at, per sample of a batch.
ROWS_PER_SAMPLE = 32


@dataclass(frozen=True)
class UnitReport:
    """What became of the layers of one unit.

    Args:
        layers: their names.
        iterations: how many were run.
        reason: why they ended: `"converged"`, all weights are decided; `"iterations"`, the
            schedule was over; `"not a matrix product"`, the layer stays rounded to nearest.
        undecided: weights that were between up and down at the end, and were rounded.
        changed: share of the weights rounded otherwise than at the start.
        start_db: signal to error at the unit's end with the rounding of the start, in dB.
        end_db: with the rounding found. Where it is worse, the start was kept.
    """

    layers: tuple[str, ...]
    iterations: int
    reason: str
    undecided: int = 0
    changed: float = 0.0
    start_db: float = 0.0
    end_db: float = 0.0

    @property
    def how(self) -> str:
        """What happened, in words."""
        if self.kept_start:
            return f"start kept after {self.iterations} iterations"
        return f"{self.reason} after {self.iterations} iterations"

    @property
    def kept_start(self) -> bool:
        """Tell whether the start's rounding was the better one."""
        return self.end_db < self.start_db


class UnitWalk:
    """Rounds unit after unit; what comes later sees what was rounded before.

    Args:
        floats: the float model's activations.
        rounded: those of the sim that is being rounded.
        settings: of the loop.
        sampling: what its iterations see.
        free_scales: tells of a layer whether its scales may change.
    """

    def __init__(
        self,
        floats: Stream,
        rounded: Stream,
        settings: Settings,
        sampling: Sampling,
        free_scales: Callable[[QuantizedLayer], bool],
    ):
        self.floats, self.rounded, self._free_scales = floats, rounded, free_scales
        self._settings, self._sampling = settings, sampling
        self._loops: dict[Any, Callable] = {}

    def advance(self, unit: Unit) -> None:
        """Go to the front of a unit."""
        self.floats.advance(unit.start)
        self.rounded.advance(unit.start)

    def round(self, unit: Unit, number: int) -> UnitReport:
        """Find and assign a unit's rounding, and the biases that go with it."""
        settings = replace(self._settings, seed=self._settings.seed + 1000 * number)
        sampling = replace(self._sampling, seed=settings.seed)
        wanted = [self._begin(unit.start, i) for i in unit.layers]
        work = make_work(unit, self.floats, self.rounded, sampling)
        candidates = work.candidates(wanted)
        loop = self._loop(work)
        found = optimise(loop, work.draw, work.fixed, candidates, settings)
        starts = [one.start for one in candidates]
        start_db, end_db = (_signal_db(work, k) for k in (starts, found.kernels))
        kernels = found.kernels if end_db >= start_db else starts
        work.assign(kernels)
        self._fit_biases(unit)
        return _report(work, found, starts, kernels, start_db, end_db)

    def _begin(self, start: int, number: int) -> NDArray:
        """Round a layer as the loop finds it, and return what the rounding stands for.

        The closed form is solved on the inputs that the layer has now, behind what was rounded
        before: one solved earlier makes up for errors that are no longer there.
        """
        layer, exact = self.rounded.calls[number].layer, self.floats.calls[number].layer
        if self._settings.start != "gptq":
            return kernel_of(exact).numpy()
        inside = (
            _Inside(self.floats, start, number, float_call),
            _Inside(self.rounded, start, number, rounded_call),
        )
        own = NormalEquations(getattr(layer.layer, "bias", None) is not None)
        visit = LayerVisit(layer, exact.layer, inside, self._free_scales(layer), own)
        visit.measure()
        return visit.form.kernel(round_layer(visit))

    def take(self, unit: Unit, arrays: dict[str, NDArray]) -> UnitReport:
        """Assign what was found before."""
        for layer in self._layers(unit):
            layer.set_weights([arrays[f"{layer.name}|{i}"] for i in range(len(layer.weights))])
        fields = {k: arrays[k].item() for k in UnitReport.__dataclass_fields__ if k != "layers"}
        return UnitReport(tuple(layer.name for layer in self._layers(unit)), **fields)

    def values(self, unit: Unit, report: UnitReport) -> dict[str, NDArray]:
        """Return what `take` takes."""
        weights = {
            f"{layer.name}|{i}": value
            for layer in self._layers(unit)
            for i, value in enumerate(layer.get_weights())
        }
        return {**weights, **_packed(report)}

    def _layers(self, unit: Unit) -> list[QuantizedLayer]:
        return [self.rounded.calls[i].layer for i in unit.layers]

    def _loop(self, work: RowsWork | GraphWork) -> Callable:
        if isinstance(work, GraphWork):
            return make_loop(work.forward, self._sampling.batch_size)
        if work.key not in self._loops:
            self._loops[work.key] = make_loop(
                work.forward, ROWS_PER_SAMPLE * self._sampling.batch_size
            )
        return self._loops[work.key]

    def _fit_biases(self, unit: Unit) -> None:
        """Move each layer's bias by its mean error, with the layers before it already right."""
        for i, layer in zip(unit.layers, self._layers(unit), strict=True):
            bias = getattr(layer.layer, "bias", None)
            form = matrix_form(layer.layer)
            if bias is not None and form:
                wanted = _means(form, self.floats, unit.start, i, float_call)
                made = _means(form, self.rounded, unit.start, i, rounded_call)
                bias.assign_add(np.float32(wanted - made))


class _Inside:
    """What a call inside a unit reads, while the stream stands in front of the unit."""

    def __init__(self, stream: Stream, start: int, number: int, on_call: OnCall):
        self._stream, self._on_call = stream, on_call
        self._node = stream.calls[number].node
        unit = Unit((number,), number)
        self._segment = None if number == start else Segment(stream.calls, unit, start)

    def __len__(self) -> int:
        return len(self._stream)

    def arguments(self, batch: int) -> tuple[tuple, dict]:
        if self._segment is None:
            return self._stream.arguments(batch)
        values = self._segment.run(self._stream.living(batch), self._on_call)
        return keras_compat.arguments(self._node, values)


def _means(form: MatrixForm, stream: Stream, start: int, number: int, on_call: OnCall) -> NDArray:
    """Return the mean output of a call over all data, in the shape of its bias."""
    segment = Segment(stream.calls, Unit((number,), number), start)
    total, count = np.zeros(()), 0
    for batch in range(len(stream)):
        made = segment.output(segment.run(stream.living(batch), on_call))
        flat = form.products(made).numpy()
        total, count = total + flat.sum(0, dtype=np.float64), count + len(flat)
    return form.bias(total / count)


def _signal_db(work: RowsWork | GraphWork, kernels: list[NDArray]) -> float:
    """Return the ratio of a unit's wanted output to its error with some kernels, in dB."""
    inputs, targets, _ = work.draw(0)
    kernels = [tf.constant(k, tf.float32) for k in kernels]
    noise = signal = 0.0
    for i in range(0, len(targets), work.evaluated):
        part = slice(i, i + work.evaluated)
        made = work.forward([x[part] for x in inputs], work.fixed, kernels, None)
        noise += float(tf.reduce_sum(tf.math.squared_difference(made, targets[part])))
        signal += float(tf.reduce_sum(tf.square(targets[part])))
    return float(10.0 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))


def _report(work, found: Rounding, starts, kernels, start_db, end_db) -> UnitReport:
    weights = sum(one.size for one in starts)
    changed = sum(int(np.sum(a != b)) for a, b in zip(starts, kernels, strict=True))
    return UnitReport(
        tuple(layer.name for layer in work.layers),
        found.iterations,
        "iterations" if found.undecided else "converged",
        found.undecided,
        changed / weights,
        start_db,
        end_db,
    )


def _packed(report: UnitReport) -> dict[str, NDArray]:
    names = (name for name in UnitReport.__dataclass_fields__ if name != "layers")
    return {name: np.array(getattr(report, name)) for name in names}
