"""An artifact's predictions in the order of a model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import EdgeqError
from keras_edgeq.evaluate.artifact_run import ArtifactRun
from keras_edgeq.evaluate.signature import Port

Predict = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def predict_of(run: ArtifactRun, model: tf_keras.Model) -> Predict:
    """Return a function from a batch in the order of the model's inputs to its outputs.

    Raises:
        EdgeqError: the artifact has other inputs or outputs than the model.
    """
    file = run.file.path.name
    order = input_order(run, model)
    back = _order(file, "output", run.signature.outputs, model.output_names, model.outputs)
    names = [port.name for port in run.signature.outputs]

    def predict(batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        made = run.predict([batch[i] for i in order])
        placed = dict(zip(back, names, strict=True))
        outputs = [made[placed[i]] for i in range(len(names))]
        for value, symbol in zip(outputs, model.outputs, strict=True):
            if not symbol.shape.is_compatible_with(value.shape):
                raise EdgeqError(
                    f"{file} returns shape {value.shape} where the model returns {symbol.shape}."
                )
        return outputs

    return predict


def input_order(run: ArtifactRun, model: tf_keras.Model) -> list[int]:
    """Return which input of the model each of the artifact's is."""
    file = run.file.path.name
    return _order(file, "input", run.signature.ports, model.input_names, model.inputs)


def _order(
    file: str, what: str, ports: Sequence[Port], names: Sequence[str], symbols: Sequence[Any]
) -> list[int]:
    """Return for each port which of the model's inputs or outputs it is: by name, else by sizes."""
    own = [port.name for port in ports]
    if len(own) == len(names) == 1:
        return [0]
    if sorted(own) == sorted(names):
        return [list(names).index(name) for name in own]
    sizes = [tuple(symbol.shape[1:]) for symbol in symbols]
    found = [port.sizes[1:] for port in ports]
    if len(set(sizes)) == len(sizes) and sorted(map(str, sizes)) == sorted(map(str, found)):
        return [sizes.index(size) for size in found]
    raise EdgeqError(
        f"{file} has the {what}s {own}, the model {list(names)}; they cannot be told apart."
    )
