"""Estimate what each layer loses at each precision from gradients, all layers in one pass.

Rounding a tensor changes it by `d`, and so the outputs by `J d`, to first order. For signs `r` that
are random and independent `E[(r . J d)^2] = |J d|^2`, and `r . J d` is the product of `d` with the
gradient of `r . y`: one backward pass serves all layers and candidates. Weights count by what their
rounding does to the output of their layer, sample by sample, so that each sample is a trial of its
own and no gradient of weights is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_edgeq.graph.rebuild import Call, calls, compute, infer
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.swap import swapped
from keras_edgeq.measure.candidate_grids import CandidateForm, CandidateGrids
from keras_edgeq.measure.gates import Gates
from keras_edgeq.measure.precision_study import PrecisionStudy
from keras_edgeq.progress import each
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.streams.stream import float_call

# Backward passes per output. On 64 images losses of ResNet-8 spread by 18 % with 1, 13 % with 2,
# 7 % with 4; what the first order leaves out is some 20 % more at 4 bits.
PROBES = 2

# What rounds: `("layer", name)`, `("tensor", name)` or `("edge", number of a call)`.
Key = tuple[str, Any]


def measure_gradient(study: PrecisionStudy, baseline: str) -> tuple[NDArray[np.float64], float]:
    """Estimate every group at every candidate of a study beside a baseline.

    The losses are in the unit of `"sqnr"`. What they leave out is of higher order, and that errors
    of different places may cancel or pile up. A backward pass counts as two passes.

    HAWQ-V2 multiplies the mean trace of a layer's Hessian, of the loss on labels, with the power of
    its rounding error. Here the Hessian is the Gauss-Newton matrix of the noise at the outputs,
    which needs no labels and no second derivatives, and it is taken along the rounding error
    itself, of weights and of activations, instead of its mean in all directions.

    Args:
        study: of the sim, with the data.
        baseline: precision of all other groups.

    Returns:
        Losses `[groups, candidates]`, NaN where a group has no such kernel, and that of the
        baseline.

    Reference:
        Hutchinson 1989, "A stochastic estimator of the trace of the influence matrix", for the
        signs. Dong et al. 2020, "HAWQ-V2", arXiv:1911.03852, section 3, for traces as sensitivity.
    """
    grids = study.grids
    base, roundings = grids.uniform(baseline), _Roundings(grids)
    before = roundings.of(base)
    moves = {
        (row, column): roundings.of({**base, group.name: name})
        for row, group in enumerate(grids.groups)
        for column, name in enumerate(study.candidates)
        if name in group.candidates
    }
    power = _powers(study, roundings, base)
    losses = np.full((len(grids.groups), len(study.candidates)), np.nan)
    for at, after in moves.items():
        changed = [key for key, number in after.items() if before[key] != number]
        losses[at] = sum(power[after[key]] - power[before[key]] for key in changed)
    return losses, float(sum(power[number] for number in before.values()))


def gradient_passes(study: PrecisionStudy) -> int:
    """Return the work of `measure_gradient`: the float network, each candidate, the gradients."""
    return 1 + len(study.candidates) + 2 * PROBES * len(study.grids.base.outputs)


@dataclass(frozen=True, eq=False)
class _Rounding:
    """One way to round what a key names: a grid, or parameters."""

    key: Key
    grid: Encoding | None = None
    form: CandidateForm | None = None


class _Roundings:
    """Every rounding that choices have, numbered from 1; 0 does nothing."""

    def __init__(self, grids: CandidateGrids):
        self.grids = grids
        self.walked = [call for call in calls(grids.base) if not call.node.is_input]
        self.known: list[_Rounding] = []
        self._gates = Gates(self.walked, grids)
        self._numbers: dict[tuple[Key, str | None], int] = {}

    def of(self, choice: Mapping[str, str]) -> dict[Key, int]:
        """Return the number of the rounding that each key has under a choice."""
        made: dict[Key, str | None] = {("layer", g.name): choice[g.name] for g in self.grids.groups}
        made.update(self._gates.settings(self.grids.precisions(choice)))
        for entry in made.items():
            if entry not in self._numbers:
                self._numbers[entry] = self._number(*entry)
        return {key: self._numbers[key, value] for key, value in made.items()}

    def _number(self, key: Key, value: str | None) -> int:
        kind, name = key
        if kind == "layer":
            form = self.grids.forms[name][str(value)]
            if not form.encodings and not form.values:
                return 0
            self.known.append(_Rounding(key, form=form))
            return len(self.known)
        grid = self._gates.grid(key, value)
        if grid is None:
            return 0
        for number, other in enumerate(self.known, 1):
            if other.key == key and other.grid is not None and other.grid.same_grid(grid):
                return number
        self.known.append(_Rounding(key, grid=grid))
        return len(self.known)


def _powers(
    study: PrecisionStudy, roundings: _Roundings, base: Mapping[str, str]
) -> NDArray[np.float64]:
    """Return noise power over signal power at the outputs, of each rounding alone."""
    source, log, evaluator = study.judged, study.evaluator.log, study.evaluator
    shape = (len(study.grids.base.outputs), 1 + len(roundings.known))
    estimate, total = None, np.zeros(shape)
    numbers = range(len(source))
    for batch in each(numbers, "gradients", "batch", study.progress):
        part = f"gradient {batch}"
        sums = log.get(base, part)
        if sums is None:
            estimate = estimate or _estimate(roundings)
            sums = estimate(source[batch], tf.constant(batch)).numpy().astype(np.float64)
            log.add(base, part, sums)
            evaluator.passes_elsewhere += gradient_passes(study) / len(source)
        total += sums
    signal = np.maximum(total[:, :1], np.finfo(np.float64).tiny)
    power = np.mean(total / signal, axis=0)
    power[0] = 0.0
    return power


def _estimate(roundings: _Roundings) -> Callable[..., Any]:
    """Return a traced function of a batch and its number.

    It returns sums over the samples, `[outputs, 1 + roundings]`: the signal's power, then the
    noise's of each rounding.
    """
    sim, walk = roundings.grids.base, _Walk(roundings)

    def run(inputs, batch):
        walk.begin()
        values = {id(t): value for t, value in zip(sim.inputs, inputs, strict=True)}
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            compute(roundings.walked, values, lambda *call: walk.on_call(tape, *call))
        outputs = [values[id(t)] for t in sim.outputs]
        samples = tf.shape(inputs[0])[0]
        return tf.stack(
            [
                tf.concat([[tf.reduce_sum(y**2)], walk.noise(tape, y, samples, (batch, i))], 0)
                for i, y in enumerate(outputs)
            ]
        )

    signature = [
        [tf.TensorSpec(t.shape, t.dtype) for t in sim.inputs],
        tf.TensorSpec([], tf.int32),
    ]
    return tf.function(run, input_signature=signature, autograph=False)


class _Walk:
    """Walks the float network and notes how each rounding changes which tensor."""

    def __init__(self, roundings: _Roundings):
        self._count = len(roundings.known)
        self._numbers = {id(call.node): i for i, call in enumerate(roundings.walked)}
        self._by_key: dict[Key, list[tuple[int, Any]]] = {}
        layers = roundings.grids.base.quantized_layers()
        for index, rounding in enumerate(roundings.known):
            if rounding.form is not None:
                does: Any = _Parameters(layers[rounding.key[1]], rounding.form)
            else:
                assert rounding.grid is not None  # one of both
                does = _quantizer(rounding.grid, (None,))
            self._by_key.setdefault(rounding.key, []).append((index, does))
        self.begin()

    def begin(self) -> None:
        """Forget what was noted."""
        self._watched: list[Any] = []
        self._noted: list[tuple[int, int, Callable[[], Any]]] = []

    def on_call(self, tape: tf.GradientTape, call: Call, args: tuple, kwargs: dict) -> Any:
        """Compute a call in float."""
        layer, number = call.layer, self._numbers[id(call.node)]
        if isinstance(layer, QuantizedLayer) and ("edge", number) in self._by_key:
            # Other readers of the tensor do not see what this one rounds.
            args = (tf.identity(args[0]), *args[1:])
            self._note_grids(tape, ("edge", number), args[0])
        outputs = float_call(call, args, kwargs)
        if isinstance(layer, FakeQuant):
            self._note_grids(tape, ("tensor", layer.tensor), outputs[0])
        elif isinstance(layer, QuantizedLayer):
            made = outputs[0]
            for index, form in self._by_key.get(("layer", layer.name), ()):
                self._note(tape, index, made, lambda form=form: form(args) - made)
        return outputs

    def noise(self, tape: tf.GradientTape, output: Any, samples: Any, seed: tuple[Any, int]) -> Any:
        """Return the power of what each rounding adds to an output, summed over the samples."""
        own = tf.random.experimental.stateless_fold_in(tf.stack([0, seed[1]]), seed[0])
        differences = [difference() for _, _, difference in self._noted]
        total = tf.zeros([self._count])
        for probe in range(PROBES):
            key = tf.random.experimental.stateless_fold_in(own, probe)
            positive = tf.random.stateless_uniform(tf.shape(output), key) < 0.5
            signs = tf.where(positive, tf.ones_like(output), -tf.ones_like(output))
            gradients = tape.gradient(
                output, self._watched, signs, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            products: dict[int, Any] = {}
            for (index, at, _), difference in zip(self._noted, differences, strict=True):
                product = _per_sample(gradients[at] * difference, samples)
                # A layer that is called twice errs alike in both calls.
                products[index] = products.get(index, 0.0) + product
            total += [tf.reduce_sum(products[i] ** 2) for i in range(self._count)]
        return total / PROBES

    def _note_grids(self, tape: tf.GradientTape, key: Key, real: Any) -> None:
        for index, grid in self._by_key.get(key, ()):
            self._note(tape, index, real, lambda grid=grid: grid(real)[0] - real)

    def _note(
        self, tape: tf.GradientTape, index: int, tensor: Any, difference: Callable[[], Any]
    ) -> None:
        at = next((i for i, t in enumerate(self._watched) if t is tensor), len(self._watched))
        if at == len(self._watched):
            tape.watch(tensor)
            self._watched.append(tensor)
        self._noted.append((index, at, difference))


class _Parameters:
    """Calls a layer with its parameters as a form has them."""

    def __init__(self, layer: QuantizedLayer, form: CandidateForm):
        self._layer, self._form = layer.layer, form
        self._grids = {
            name: _quantizer(encoding, getattr(layer.layer, name).shape, per_sample=False)
            for name, encoding in form.encodings.items()
        }

    def __call__(self, args: tuple) -> Any:
        params = {name: tf.constant(values) for name, values in self._form.values.items()}
        for name, grid in self._grids.items():
            params[name] = grid(params.get(name, getattr(self._layer, name)))[0]
        with swapped(self._layer, params):
            return infer(self._layer, args, {})


def _quantizer(encoding: Encoding, shape: Sequence[int | None], **options: Any) -> FakeQuant:
    made = FakeQuant(encoding.spec, **options)
    made.build(shape)
    made.assign(encoding)
    return made


def _per_sample(values: Any, samples: Any) -> Any:
    """Sum over all but the samples; over all where the first axis does not count samples."""
    rows = tf.where(tf.shape(values)[0] % samples == 0, samples, 1)
    return tf.reduce_sum(tf.reshape(values, [rows, -1]), axis=1)
