"""Run a frozen SavedModel folder on the TensorFlow of this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keras_edgeq.errors import EdgeqError, RuntimeFailedError
from keras_edgeq.sim.quant_sim import QuantSim


@dataclass
class SavedModel:
    """A frozen SavedModel on TensorFlow."""

    folder: Path
    sim: QuantSim

    def __post_init__(self):
        import tensorflow as tf

        self.name, self.least_identical = "SavedModel", 0.999
        try:
            module = tf.saved_model.load(str(self.folder))
            self._serve = module.signatures["serving_default"]
        except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
            raise EdgeqError(f"TensorFlow cannot load the folder: {error}") from None
        self._module = module  # owns what the signature reads

    def form(self):
        """Read the serving signature."""
        serve = self._serve
        inputs, outputs = serve.structured_input_signature[1], serve.structured_outputs
        return (
            {spec.name: tuple(spec.shape) for spec in inputs.values()},
            {name: tuple(spec.shape) for name, spec in outputs.items()},
        )

    def outputs(self, inputs):
        """Call the serving signature."""
        import tensorflow as tf

        feed = dict(zip(self.sim.input_names, map(tf.constant, inputs), strict=True))
        try:
            made = self._serve(**feed)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise RuntimeFailedError(f"TensorFlow cannot run the folder: {error}") from None
        return [made[name].numpy() for name in self.sim.output_names]

    def tensors(self, inputs):
        """Return nothing: the inner tensors of a frozen graph have no names of ours."""
        del inputs
        return {}
