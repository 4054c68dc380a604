"""Run a TFLite file on LiteRT: with XNNPACK, with LiteRT's own kernels, or the reference ones."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.runtime.tflite_tensors import as_input

KERNELS = {
    "xnnpack": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}


class LiteRtModel:
    """A TFLite file, loaded.

    Args:
        content: the file.
        kernels: `"xnnpack"`, `"builtin"` or `"reference"`.
        threads: CPU threads.

    Raises:
        EdgeqError: LiteRT refuses the file, or the kernels are unknown.
    """

    def __init__(self, content: bytes, kernels: str = "xnnpack", threads: int = 2):
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        if kernels not in KERNELS:
            raise EdgeqError(f"kernels is {kernels!r}; it must be one of {sorted(KERNELS)}.")
        resolver = getattr(OpResolverType, KERNELS[kernels])
        try:
            self._interpreter: Any = Interpreter(
                model_content=content, experimental_op_resolver_type=resolver, num_threads=threads
            )
        except ValueError as error:
            raise EdgeqError(f"LiteRT cannot load the file: {error}") from None
        self.inputs, self.outputs = self._signature()
        self._shapes: list[tuple[int, ...]] | None = None
        free = all(d["shape_signature"][0] == -1 for d in self.inputs.values())
        self._piece = None if free else int(next(iter(self.inputs.values()))["shape"][0])

    def run(self, inputs: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute the outputs of the signature.

        Args:
            inputs: arrays, batch first; float data for an integer input is quantized here.
            names: the signature name of each.

        Returns:
            Output name -> array as the file has it, integer where it is integer.
        """
        return self._run(inputs, names, {n: d["index"] for n, d in self.outputs.items()})

    def tensors(self, inputs: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute every output of the graph by tensor name, those outside the signature too."""
        details = self._interpreter.get_output_details()
        return self._run(inputs, names, {d["name"]: d["index"] for d in details})

    def compute(
        self,
        inputs: Sequence[np.ndarray],
        names: Sequence[str],
        wanted: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Do what `run` does, or where outputs of the graph are named, what `tensors` does."""
        if wanted is None:
            return self.run(inputs, names)
        made = self.tensors(inputs, names)
        return {name: made[name] for name in wanted if name in made}

    def time(self, inputs: Sequence[np.ndarray], names: Sequence[str], runs: int) -> np.ndarray:
        """Return how long each of so many runs on the same inputs takes, in nanoseconds.

        Inputs are put in place before, and outputs stay where they are.
        """
        self._set(inputs, names)
        taken = np.empty(runs, np.int64)
        for number in range(runs):
            begin = perf_counter_ns()
            self._interpreter.invoke()
            taken[number] = perf_counter_ns() - begin
        return taken

    def form(self) -> dict[str, dict]:
        """Return `inputs` and `outputs` as JSON: `shape_signature`, `dtype`, `quantization`."""
        return {"inputs": _plain(self.inputs), "outputs": _plain(self.outputs)}

    def _signature(self) -> tuple[dict[str, dict], dict[str, dict]]:
        """Return inputs and outputs by name: those of the signature, without one, of the graph."""
        if not (keys := list(self._interpreter.get_signature_list())):
            sides = self._interpreter.get_input_details(), self._interpreter.get_output_details()
            inputs, outputs = ({detail["name"]: detail for detail in side} for side in sides)
            return inputs, outputs
        if len(keys) > 1:
            raise EdgeqError(
                f"The file has {len(keys)} signatures ({', '.join(keys)}); files with one are run."
            )
        runner = self._interpreter.get_signature_runner()
        return runner.get_input_details(), runner.get_output_details()

    def _run(self, inputs, names, wanted: dict[str, int]) -> dict[str, np.ndarray]:
        """Run all samples, in pieces where the file has a fixed batch."""
        size = self._piece or max(len(inputs[0]), 1)
        pieces = []
        for start in range(0, len(inputs[0]), size):
            self._set([part[start : start + size] for part in inputs], names)
            self._interpreter.reset_all_variables()  # recurrent ops keep their state
            self._interpreter.invoke()
            pieces.append({n: self._interpreter.get_tensor(i) for n, i in wanted.items()})
        return {n: np.concatenate([piece[n] for piece in pieces]) for n in wanted}

    def _set(self, inputs, names) -> None:
        shapes = [array.shape for array in inputs]
        if shapes != self._shapes:
            for name, array in zip(names, inputs, strict=True):
                self._interpreter.resize_tensor_input(self.inputs[name]["index"], array.shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, array in zip(names, inputs, strict=True):
            detail = self.inputs[name]
            self._interpreter.set_tensor(
                detail["index"], as_input(array, np.dtype(detail["dtype"]), detail["quantization"])
            )


def _plain(details: dict[str, dict]) -> dict[str, dict]:
    """Return what is read of inputs or outputs as JSON values."""
    return {
        name: {
            "shape_signature": [int(size) for size in detail["shape_signature"]],
            "dtype": np.dtype(detail["dtype"]).name,
            "quantization": [float(detail["quantization"][0]), int(detail["quantization"][1])],
        }
        for name, detail in details.items()
    }
