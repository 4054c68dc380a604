"""Hold a finished sim beside its float model, and say what was lost."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import tf_keras

from keras_edgeq.errors import QuantizationWarning
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.sim.collapse import (
    Collapse,
    Watch,
    advice,
    clipped_inputs,
    collapsed_tensors,
    few_samples,
    narrow_inputs,
)
from keras_edgeq.sim.measure_fidelity import measure_fidelity
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.samples import few, samples_of
from keras_edgeq.sim.strip import stripped


def judge(
    sim: QuantSim,
    samples: Sequence[np.ndarray] | None = None,
    prepared: tf_keras.Model | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> list[Collapse]:
    """Give a sim's record its fidelity and what has to be said about it; nothing is said yet.

    Args:
        sim: a calibrated sim; its record changes.
        samples: a few, in the order of the model's inputs; None takes those that the sim keeps, or
            random ones.
        prepared: the float model with the sim's layers.
        ranges: what the model's own layers say of its inputs.

    Returns:
        The channels of inputs and outputs that collapsed.
    """
    on_data = samples is not None
    if samples is None:
        samples, on_data = samples_of(sim)
        samples = few(samples, sim)
    graph = LayerGraph(stripped(sim) if prepared is None else prepared)
    watch = Watch(graph, sim)
    fidelity = measure_fidelity(sim, samples, on_data, prepared, watch)
    told = {one.tensor for one in watch.found}
    messages = [
        *few_samples(0 if sim.stats is None else sim.stats.samples),
        *narrow_inputs(sim, ranges or {}),
        *(clipped_inputs(sim, samples) if on_data else ()),
        *(f"{one}. {_way_out(sim, one)}" for one in watch.found),
        *collapsed_tensors(sim, {n: db for n, db in watch.lost.items() if n not in told}),
    ]
    sim.keep(fidelity=fidelity, warnings=tuple(messages))
    return watch.found


def say(sim: QuantSim, done: Mapping[str, str] | None = None, stacklevel: int = 3) -> None:
    """Warn of what the record holds, and of layers that were given another precision.

    Args:
        sim: a judged sim; its record takes what was done.
        done: layer -> the precision that keeps channels apart.
        stacklevel: of the caller that shall see the warning.
    """
    if done:
        message = (
            f"Channels far apart on one grid would have been lost, so {', '.join(done)} "
            f"compute{'s' if len(done) == 1 else ''} in {next(iter(done.values()))}, and what they "
            "join or scale has grids of its own. Ask for another precision by name to have it "
            "otherwise."
        )
        sim.keep(warnings=(message, *sim.record.warnings))
    for message in sim.record.warnings:
        warnings.warn(message, QuantizationWarning, stacklevel=stacklevel)


def _way_out(sim: QuantSim, one: Collapse) -> str:
    if one.layers:
        return f'Let {one.layers[0]!r} compute in float, precision={{"{one.layers[0]}": "FP32"}}.'
    layer = one.tensor.partition("<")[0].partition(":")[0].partition("@")[0]
    return f"Give them an output or a layer of their own, or more bits, {advice(sim, layer)}."
