"""Measure a sim for a diagnosis: walk its errors, switch its quantizers, run its files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.diagnose.artifact_runs import noise_of, runs_of
from keras_edgeq.diagnose.causes import CLIPPING, ROUNDING
from keras_edgeq.diagnose.choices import Choices
from keras_edgeq.diagnose.error_walk import WALKS, ErrorWalk, TensorSums, quantizers_by_tensor
from keras_edgeq.diagnose.look import float_rows, graph_rows, tensor_rows
from keras_edgeq.diagnose.rows import Switch, TensorDiagnosis
from keras_edgeq.diagnose.seen import Seen
from keras_edgeq.diagnose.switches import ACTIVATION, WEIGHTS, Switched, Switches, Unit
from keras_edgeq.diagnose.trials import Score
from keras_edgeq.diagnose.ways import Parameters
from keras_edgeq.diagnose.weights import weight_rows
from keras_edgeq.errors import EdgeqError, QuantizationWarning
from keras_edgeq.evaluate.comparison import Candidate
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.measure.output_loss import OutputLoss
from keras_edgeq.progress import Bar
from keras_edgeq.ptq.equalize import equalize
from keras_edgeq.sim.data import fixed_batch
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import StoredBatches

MOST_CHUNK = 16
# Forward passes over its samples that switching quantizers may take.
MOST_PASSES = 60.0
# Quantizers are switched on half of the samples, or on as few as make so many forward passes of a
# sample, but on some in any case.
MOST_WORK, FEW_SAMPLES = 480.0, 8
# Samples that the exported file is compared on, tensor by tensor.
VERIFIED = 16
UNKNOWN = Switch(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Rest:
    """What else came of an examination.

    Args:
        base_db: SQNR of the sim's outputs on its samples.
        passes: over those samples.
        samples: how many they were.
        not_measured: quantizers that were not switched.
        files: of the float model and of the sim.
    """

    base_db: float
    passes: float
    samples: int
    not_measured: tuple[str, ...]
    files: tuple[Candidate, ...]


def examine(
    sim: QuantSim,
    model: tf_keras.Model,
    judge: StoredBatches,
    samples: int,
    verify: bool,
    score: Score | None,
    memory_bytes: int,
    progress: bool,
) -> tuple[Seen, Rest]:
    """Measure everything but remedies."""
    known, graph = Parameters(sim), LayerGraph.of(model)
    inputs = [part[:samples] for part in joined(judge)]
    chunks = list(_chunks(inputs, _chunk_size(sim, memory_bytes), fixed_batch(sim)))
    walk, switches = ErrorWalk(sim, model, known), Switches(sim, known)
    expense = sum(map(switches.expense, switches.units))
    few = max(FEW_SAMPLES, MOST_WORK / max(expense, 1.0)) / len(chunks[0][0])
    some = chunks[: min(math.ceil(few), (len(chunks) + 1) // 2)]
    part = len(some) / len(chunks)
    bar = Bar("diagnose", WALKS + MOST_PASSES * part, "", progress)
    done = 0.0

    def walked() -> None:
        nonlocal done
        done += 1 / len(chunks)
        bar.to(done)

    for chunk in chunks:
        walk.add(chunk, walked)
    units, left = _affordable(switches, sim, walk.sums, known)
    bar.to(done, WALKS + part * sum(map(switches.expense, units)))
    base, switched = switches.measure(
        some, units, lambda: bar.to(done + switches.passes / len(chunks))
    )
    bar.close()
    by_owner, by_layer = _switch_rows(base, switched)
    tensors = tensor_rows(sim, graph, walk.sums, by_owner, UNKNOWN)
    verified = [part[:VERIFIED] for part in inputs]
    runs, files = runs_of(sim, model, verified, score) if verify else ((), ())
    tensors = _with_runs(tensors, noise_of(runs, {t.tensor: t.step for t in tensors}), walk.sums)
    weights = weight_rows(
        sim, known, walk.accumulated, by_layer, UNKNOWN, _equalized(model, inputs)
    )
    seen = Seen(
        tensors=tensors,
        weights=weights,
        floats=float_rows(sim, graph),
        graph=graph_rows(graph, walk.sums),
        runs=runs,
        beyond=_beyond(sim, walk.sums),
        clipping=_clipping(base, switches.unclipped),
        choices=Choices(sim, graph),
    )
    names = tuple(unit.name for unit in left)
    passes = WALKS + switches.passes / len(chunks) + 1.0
    return seen, Rest(base.sqnr_db, passes, len(inputs[0]), names, files)


def _affordable(
    switches: Switches, sim: QuantSim, sums: Mapping[str, TensorSums], known: Parameters
) -> tuple[list[Unit], list[Unit]]:
    """Return the quantizers to switch, those with the most noise of their own first, and others."""
    quantizers = {name: q.tensor for name, q in quantizers_by_tensor(sim).items()}
    noise: dict[Unit, float] = {}
    for name, one in sums.items():
        unit = Unit(ACTIVATION, quantizers[name])
        own = one.noise[ROUNDING] + one.noise[CLIPPING]
        noise[unit] = max(noise.get(unit, 0.0), own / max(one.signal, 1e-30))
    for name in sim.quantized_layers():
        noise[Unit(WEIGHTS, name)] = known.noise(name)
    order = sorted(switches.units, key=lambda unit: -noise.get(unit, 0.0))
    taken, left, passes = [], [], 0.0
    for unit in order:
        passes += switches.expense(unit)
        (taken if passes <= MOST_PASSES or not taken else left).append(unit)
    return taken, left


def _switch_rows(
    base: OutputLoss, switched: Mapping[Unit, Switched]
) -> tuple[dict[str, Switch], dict[str, Switch]]:
    """Return what each grid, and each layer's weights, does to the outputs."""
    made: dict[str, dict[str, Switch]] = {ACTIVATION: {}, WEIGHTS: {}}
    if base.sqnr <= 0.0:
        switched = {}  # nothing is lost
    for unit, one in switched.items():
        # Where two quantizers each destroy the outputs, neither helps by being off alone.
        share = max(1.0 - one.without.sqnr / base.sqnr, min(one.alone.sqnr / base.sqnr, 1.0))
        made[unit.kind][unit.name] = Switch(one.alone.sqnr_db, one.without.sqnr_db, share)
    return made[ACTIVATION], made[WEIGHTS]


def _with_runs(
    tensors: Sequence[TensorDiagnosis],
    noise: Mapping[str, Mapping[str, float]],
    sums: Mapping[str, TensorSums],
) -> tuple[TensorDiagnosis, ...]:
    """Add what kernels and runtimes do to the noise of tensors."""
    made = []
    for one in tensors:
        mean = sums[one.tensor].signal / max(sums[one.tensor].count, 1)
        own = noise.get(one.tensor, {})
        more = {cause: power / max(mean, 1e-30) for cause, power in own.items()}
        made.append(replace(one, noise={**one.noise, **more}))
    return tuple(made)


def _beyond(sim: QuantSim, sums: Mapping[str, TensorSums]) -> dict[str, float]:
    """Return, per tensor, how far the data reaches over how far calibration saw it reach."""
    histograms = {} if sim.stats is None else sim.stats.histograms
    made = {}
    for name, one in sums.items():
        seen = histograms.get(name)
        if seen is None or not seen.total:
            continue
        least, most = (max(-seen.low, 0.0), max(seen.high, 0.0))
        low, high = -float(np.min(one.low, initial=0.0)), float(np.max(one.high, initial=0.0))
        usual = max(least, most, 1e-30)
        # A side that hardly exists does not count by itself.
        made[name] = max(low / max(least, usual / 8), high / max(most, usual / 8))
    return made


def _clipping(base: OutputLoss, unclipped: OutputLoss) -> tuple[float, float]:
    """Return the share of the noise that goes without clipping of activations, and the dB won."""
    share = 1.0 - unclipped.sqnr / max(base.sqnr, 1e-30)
    return share, unclipped.sqnr_db - base.sqnr_db


def _equalized(model: tf_keras.Model, inputs: Sequence[NDArray]) -> tf_keras.Model | None:
    """Return the float model after `equalize`, None if that cannot be done."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QuantizationWarning)
            return equalize(model, list(inputs), progress=False)
    except EdgeqError:
        return None


def joined(source: StoredBatches) -> list[NDArray]:
    """Return all batches as one, an array per input of the model."""
    return [np.concatenate([np.asarray(p) for p in parts]) for parts in zip(*source, strict=True)]


def _chunk_size(sim: QuantSim, memory_bytes: int) -> int:
    """Return of how many samples all tensors fit into memory, in float and on grids."""
    shapes = (shape for node in LayerGraph.of(sim).nodes for shape in node.shapes if shape)
    elements = sum(int(np.prod([size or 1 for size in shape[1:]])) for shape in shapes)
    return max(1, min(MOST_CHUNK, memory_bytes // max(12 * elements, 1)))


def _chunks(inputs: Sequence[NDArray], size: int, fixed: int | None) -> Iterator[list[NDArray]]:
    """Yield samples in chunks; whole batches where the model takes no other."""
    size = fixed or size
    whole = len(inputs[0]) // size * size if fixed else len(inputs[0])
    for begin in range(0, whole, size):
        yield [part[begin : begin + size] for part in inputs]
