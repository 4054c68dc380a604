"""Run an ONNX file on ONNX Runtime's CPU kernels."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError

# Optimizations of ONNX Runtime that round what a file holds in float: biases between pairs.
ROUNDS_FLOATS = ("WeightBiasQuantization",)


class OnnxModel:
    """An ONNX file, loaded.

    Args:
        content: the file.
        optimize: run it with every optimization that keeps to the file; False runs it operation by
            operation, as it is written.
        threads: CPU threads.
        profile_to: where ONNX Runtime writes how long each node took, as the beginning of a path.

    Raises:
        EdgeqError: ONNX Runtime refuses the file.
    """

    def __init__(
        self,
        content: bytes,
        optimize: bool = True,
        threads: int = 2,
        profile_to: str | None = None,
    ):
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        options = session_options(optimize, threads)
        if profile_to is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile_to
        refusals = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf)
        try:
            self._session: Any = ort.InferenceSession(
                content,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(ROUNDS_FLOATS),
            )
        except (*refusals, state.NotImplemented, state.RuntimeException) as error:
            raise EdgeqError(f"ONNX Runtime cannot load the file: {error}") from None

    def form(self) -> dict[str, dict]:
        """Return `inputs` and `outputs`: name -> `shape_signature`, -1 for a free size; `dtype`."""
        sides = {"inputs": self._session.get_inputs(), "outputs": self._session.get_outputs()}
        return {
            side: {
                v.name: {"shape_signature": _sizes(v.shape), "dtype": _dtype(v.type)}
                for v in values
            }
            for side, values in sides.items()
        }

    def compute(
        self,
        inputs: Sequence[np.ndarray],
        names: Sequence[str],
        wanted: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Run the file.

        Args:
            inputs: arrays.
            names: the input that each is for.
            wanted: names of outputs; None for all.
        """
        if wanted is None:
            wanted = [value.name for value in self._session.get_outputs()]
        if not wanted:  # ONNX Runtime takes an empty list for all outputs
            return {}
        made = self._session.run(list(wanted), dict(zip(names, inputs, strict=True)))
        return dict(zip(wanted, made, strict=True))

    def time(self, inputs: Sequence[np.ndarray], names: Sequence[str], runs: int) -> np.ndarray:
        """Return how long each of so many runs on the same inputs takes, in nanoseconds."""
        feed, taken = dict(zip(names, inputs, strict=True)), np.empty(runs, np.int64)
        for number in range(runs):
            begin = perf_counter_ns()
            self._session.run(None, feed)
            taken[number] = perf_counter_ns() - begin
        return taken

    def end_profile(self) -> str:
        """Return the path of the file of a profile, which is whole now."""
        return self._session.end_profiling()


def session_options(optimize: bool, threads: int) -> Any:
    """Return the options that all files are run with."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Kernels for int8 weights saturate on x86 processors without VNNI; these are exact everywhere.
    options.add_session_config_entry("session.x64quantprecision", "1")
    levels = ort.GraphOptimizationLevel
    level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.graph_optimization_level = level
    return options


def _dtype(kind: str) -> str:
    """Return NumPy's name of what ONNX Runtime calls `tensor(float)`."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _sizes(shape: Sequence[Any]) -> list[int]:
    """Return a shape with -1 for a free size, which ONNX Runtime calls by a name or None."""
    return [size if isinstance(size, int) else -1 for size in shape]
