"""Run a SavedModel on TensorFlow, in a child process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import perf_counter_ns

import numpy as np

from keras_edgeq.errors import EdgeqError

SIGNATURE = "serving_default"


class TfModel:
    """A SavedModel, loaded.

    Args:
        content: the path of its folder.
        threads: CPU threads.

    Raises:
        EdgeqError: TensorFlow cannot load it, or it has no serving signature.
    """

    def __init__(self, content: bytes, threads: int = 2):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        try:
            self._module = tf.saved_model.load(os.fsdecode(content))  # owns what is read
        except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
            raise EdgeqError(f"TensorFlow cannot load the folder: {error}") from None
        if SIGNATURE not in self._module.signatures:
            raise EdgeqError(
                f"The SavedModel has no signature {SIGNATURE!r}; model.export(folder) writes one."
            )
        self._serve = self._module.signatures[SIGNATURE]

    def form(self) -> dict[str, dict]:
        """Return `inputs` and `outputs`: name -> `shape_signature`, -1 for a free size; `dtype`."""
        inputs = self._serve.structured_input_signature[1].items()
        outputs = self._serve.structured_outputs.items()
        return {
            "inputs": {name: _spec(spec) for name, spec in inputs},
            "outputs": {name: _spec(spec) for name, spec in outputs},
        }

    def compute(
        self,
        inputs: Sequence[np.ndarray],
        names: Sequence[str],
        wanted: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Call the serving signature; `wanted` are names of outputs, None for all."""
        made = self._serve(**self._feed(inputs, names))
        return {name: made[name].numpy() for name in (wanted or made)}

    def time(self, inputs: Sequence[np.ndarray], names: Sequence[str], runs: int) -> np.ndarray:
        """Return how long each of so many runs on the same inputs takes, in nanoseconds."""
        feed, taken = self._feed(inputs, names), np.empty(runs, np.int64)
        for number in range(runs):
            begin = perf_counter_ns()
            for value in self._serve(**feed).values():
                value.numpy()  # waits for it
            taken[number] = perf_counter_ns() - begin
        return taken

    def _feed(self, inputs: Sequence[np.ndarray], names: Sequence[str]) -> dict:
        import tensorflow as tf

        specs = self._serve.structured_input_signature[1]
        return {
            name: tf.constant(array, specs[name].dtype)
            for name, array in zip(names, inputs, strict=True)
        }


def _spec(spec) -> dict:
    rank = spec.shape.rank
    sizes = None if rank is None else [-1 if size is None else size for size in spec.shape]
    return {"shape_signature": sizes, "dtype": spec.dtype.as_numpy_dtype.__name__}
