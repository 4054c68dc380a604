"""Hold a finished sim beside its float model, and say what was lost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from keras_edgeq.errors import QuantizationWarning, warn
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.sim.beside import Floats
from keras_edgeq.sim.collapse import (
    Collapse,
    Watch,
    advice,
    clipped_inputs,
    collapsed_tensors,
    few_samples,
    narrow_inputs,
)
from keras_edgeq.sim.measure_fidelity import float_tensors, measure_fidelity
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.samples import few, samples_of


def judge(
    sim: QuantSim,
    floats: Floats | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    on_data: bool = True,
) -> list[Collapse]:
    """Give a sim's record its fidelity and what has to be said about it; nothing is said yet.

    Args:
        sim: a calibrated sim; its record changes.
        floats: its float model on a few samples; None takes those that the sim keeps, or random
            ones.
        ranges: what the model's own layers say of its inputs.
        on_data: False if those samples are random.

    Returns:
        The channels of inputs and outputs that collapsed.
    """
    if floats is None:
        samples, on_data = samples_of(sim)
        floats = float_tensors(sim, few(samples, sim))
    watch = Watch(LayerGraph.of(floats.model), sim)
    fidelity = measure_fidelity(sim, floats, on_data, watch)
    told = {one.tensor for one in watch.found}
    messages = [
        *few_samples(0 if sim.stats is None else sim.stats.samples),
        *narrow_inputs(sim, ranges or {}),
        *(clipped_inputs(sim, [np.asarray(s) for s in floats.samples]) if on_data else ()),
        *(f"{one}. {_way_out(sim, one)}" for one in watch.found),
        *collapsed_tensors(sim, {n: db for n, db in watch.lost.items() if n not in told}),
    ]
    sim.keep(fidelity=fidelity, warnings=tuple(messages))
    return watch.found


def say(sim: QuantSim, done: Mapping[str, str] | None = None) -> None:
    """Warn of what the record holds, and of layers that were given another precision.

    Args:
        sim: a judged sim; its record takes what was done.
        done: layer -> the precision that keeps channels apart.
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
        warn(message, QuantizationWarning)


def _way_out(sim: QuantSim, one: Collapse) -> str:
    if one.layers:
        return f'Let {one.layers[0]!r} compute in float, precision={{"{one.layers[0]}": "FP32"}}.'
    layer = one.tensor.partition("<")[0].partition(":")[0].partition("@")[0]
    return f"Give them an output or a layer of their own, or more bits, {advice(sim, layer)}."
