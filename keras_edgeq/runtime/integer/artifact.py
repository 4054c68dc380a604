"""A TFLite file as the verification sees it, on the executor instead of LiteRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_edgeq.runtime.integer.model import IntegerModel
from keras_edgeq.runtime.tflite_tensors import real_values, shapes
from keras_edgeq.sim.quant_sim import QuantSim, quantized_tensors


@dataclass
class Integer:
    """A TFLite file on the integer executor with one arithmetic."""

    content: bytes
    sim: QuantSim
    arithmetic: str

    def __post_init__(self):
        self.name = f"integer executor {self.arithmetic}"
        # As for LiteRT: the sim requantizes as XNNPACK does, fixed point rounds some otherwise.
        self.least_identical = 0.999 if self.arithmetic == "xnnpack_float" else 0.0
        self._model = IntegerModel(self.content, self.arithmetic)

    def form(self):
        """Read the signature."""
        return shapes(self._model.inputs), shapes(self._model.outputs)

    def outputs(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Execute the file; integer outputs are dequantized."""
        made = self._model.run(inputs, self.sim.input_names)
        details = self._model.outputs
        return [real_values(made[n], details[n]["quantization"]) for n in self.sim.output_names]

    def tensors(
        self, inputs: Sequence[np.ndarray], fed: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the quantized tensors, each operation fed its inputs from `fed` where given."""
        wanted = quantized_tensors(self.sim)
        made = self._model.tensors(inputs, self.sim.input_names, wanted, fed)
        return {name: value for name, value in made.items() if value.dtype.kind == "i"}
