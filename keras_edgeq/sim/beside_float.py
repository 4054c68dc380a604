"""A sim and its float model on data, output by output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import replay
from keras_edgeq.layers.apart import infer_apart
from keras_edgeq.sim.collapse import Watch
from keras_edgeq.sim.data import Batch, batches
from keras_edgeq.sim.measure_fidelity import compare_outputs, float_tensors, measure_fidelity
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.samples import few, samples_of
from keras_edgeq.spec.fidelity import Fidelity


@dataclass(frozen=True, eq=False)
class BesideFloat:
    """What a sim and its float model make of the same data.

    Args:
        data: batches of model inputs.
        on_data: False if they are random.
        floats: outputs of the float model, one array per output.
        sims: those of the sim.
        fidelity: the two beside each other; its tensors are those of a few samples.
        lost: tensors that collapsed there -> their own signal to noise, in dB.
    """

    data: tuple[Batch, ...]
    on_data: bool
    floats: tuple[np.ndarray, ...]
    sims: tuple[np.ndarray, ...]
    fidelity: Fidelity
    lost: Mapping[str, float]


def beside_float(sim: QuantSim, data: Any = None) -> BesideFloat:
    """Compute a sim and the float model it stands for.

    Args:
        sim: a calibrated sim; it is not changed. Its float model has the parameters from before a
            technique rounded them.
        data: in any form that `quantize` takes; None takes the samples that the sim keeps, or
            random ones.

    Raises:
        CalibrationDataError: the data does not fit the model.
    """
    on_data = data is not None
    if data is None:
        data, on_data = samples_of(sim)
    read = tuple(batches(data, sim))
    seen = float_tensors(sim, few(read[0], sim))
    floats, sims = (_outputs(one, read) for one in (seen.model, sim))
    watch = Watch(LayerGraph.of(seen.model), sim)
    inner = measure_fidelity(sim, seen, on_data, watch)
    fidelity = replace(
        inner,
        samples=sum(len(batch[0]) for batch in read),
        outputs=compare_outputs(sim.output_names, floats, sims),
    )
    return BesideFloat(read, on_data, floats, sims, fidelity, watch.lost)


def _outputs(model: tf_keras.Model, read: Sequence[Batch]) -> tuple[np.ndarray, ...]:
    """Return outputs over all batches; one batch is not worth a trace."""

    def on_call(call, args, kwargs):
        return infer_apart(call.layer, args, kwargs)

    def run(inputs):
        return tf.nest.flatten(replay(model, inputs, on_call))

    if len(read) > 1:
        signature = [[tf.TensorSpec(t.shape, t.dtype) for t in model.inputs]]
        run = tf.function(run, input_signature=signature, autograph=False).get_concrete_function()
    parts = [[np.asarray(p) for p in run([tf.constant(p) for p in batch])] for batch in read]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
