"""Give a sim the present weights of the float model that it was made from."""

from __future__ import annotations

from collections.abc import Iterable

import tf_keras

from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.prepare import prepare
from keras_edgeq.sim import QuantSim
from keras_edgeq.sim.calibrate import Observer, collect
from keras_edgeq.sim.data import Batch
from keras_edgeq.sim.derive import derive


def refresh(
    sim: QuantSim, model: tf_keras.Model, source: Iterable[Batch], observer: Observer
) -> None:
    """Make a sim what `quantize` would make of the model now, without building or tracing it.

    Args:
        sim: made by `quantize` from this model; it takes the folded weights and new grids.
        model: the float model; it is not changed.
        source: calibration batches in the order of the model's inputs.
        observer: `observer_of(sim)`.
    """
    for layer in prepare(model, sim.record.profile, sim.record.precision).layers:
        if layer.weights:
            target = sim.get_layer(layer.name)
            inner = target.layer if isinstance(target, QuantizedLayer) else target
            inner.set_weights(layer.get_weights())
    sim.stats = derive(sim, lambda: collect(sim, source, progress=False, observer=observer))
