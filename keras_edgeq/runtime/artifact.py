"""Artifacts as the verification sees them: run them, read their inner integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.runtime.litert import LiteRtModel
from keras_edgeq.sim.quant_sim import QuantSim, quantized_tensors

# Optimizations of ONNX Runtime that round what a file holds in float: biases between pairs.
ROUNDS_FLOATS = ("WeightBiasQuantization",)

Form = tuple[dict[str, tuple], dict[str, tuple]]


class Runtime(Protocol):
    """A loaded artifact."""

    name: str
    # Share of the integers that each operation has to have in common with the sim.
    least_identical: float

    def form(self) -> Form:
        """Return the shapes of inputs and outputs by name; a free size is no number."""
        ...

    def outputs(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return real-valued outputs in the order of the sim's."""
        ...

    def tensors(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Return what is stored of quantized tensors by printed name; empty where it is hidden."""
        ...


@dataclass
class LiteRt:
    """A TFLite file on LiteRT with one set of kernels."""

    content: bytes
    sim: QuantSim
    kernels: str

    def __post_init__(self):
        self.name = f"LiteRT {self.kernels}"
        # The sim requantizes in float as XNNPACK does; LiteRT's own kernels do in fixed point,
        # where 0.3 % of a convolution's values and up to half of a mean's round to the neighbour.
        # Only a difference of more than one step is one there.
        self.least_identical = 0.999 if self.kernels == "xnnpack" else 0.0
        self._model = LiteRtModel(self.content, self.kernels)
        self._probe: LiteRtModel | None = None

    def form(self):
        """Read the signature."""
        return shapes(self._model.inputs), shapes(self._model.outputs)

    def outputs(self, inputs):
        """Run the file; integer outputs are dequantized."""
        made = self._model.run(inputs, self.sim.input_names)
        details = self._model.outputs
        return [real_values(made[n], details[n]["quantization"]) for n in self.sim.output_names]

    def tensors(self, inputs):
        """Run a copy of the file that puts its inner tensors out."""
        from keras_edgeq.runtime.tflite_file import with_tensors

        if self._probe is None:
            names = quantized_tensors(self.sim)
            self._probe = LiteRtModel(with_tensors(self.content, names), self.kernels)
        made = self._probe.tensors(inputs, self.sim.input_names)
        return {name: value for name, value in made.items() if value.dtype.kind == "i"}


@dataclass
class OnnxRuntime:
    """An ONNX file on ONNX Runtime's CPU kernels."""

    content: bytes
    sim: QuantSim

    def __post_init__(self):
        self.name, self.least_identical = "ONNX Runtime", 0.999
        self._session = _session(self.content, optimize=True)
        self._probe: Any = None

    def form(self):
        """Read the graph's inputs and outputs."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        return {v.name: tuple(v.shape) for v in inputs}, {v.name: tuple(v.shape) for v in outputs}

    def outputs(self, inputs):
        """Run the file with every optimization that keeps to it."""
        feed = dict(zip(self.sim.input_names, inputs, strict=True))
        return self._session.run(self.sim.output_names, feed)

    def plain_outputs(self, inputs):
        """Run the file operation by operation, as it is written."""
        feed = dict(zip(self.sim.input_names, inputs, strict=True))
        return self._unfused().run(self.sim.output_names, feed)

    def tensors(self, inputs):
        """Run a copy without fusions that puts its inner integers out."""
        from keras_edgeq.runtime.onnx_file import half_name, quantized_name

        names = quantized_tensors(self.sim)
        have = {o.name for o in self._unfused().get_outputs()}
        wanted = {call(n): n for n in names for call in (quantized_name, half_name)}
        wanted = {stored: n for stored, n in wanted.items() if stored in have}
        if not wanted:  # ONNX Runtime takes an empty list for all outputs
            return {}
        feed = dict(zip(self.sim.input_names, inputs, strict=True))
        made = self._unfused().run(list(wanted), feed)
        return dict(zip(wanted.values(), made, strict=True))

    def _unfused(self) -> Any:
        from keras_edgeq.runtime.onnx_file import with_tensors

        if self._probe is None:
            content = with_tensors(self.content, quantized_tensors(self.sim))
            self._probe = _session(content, optimize=False)
        return self._probe


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
        made = self._serve(**feed)
        return [made[name].numpy() for name in self.sim.output_names]

    def tensors(self, inputs):
        """Return nothing: the inner tensors of a frozen graph have no names of ours."""
        del inputs
        return {}


def load_artifact(path: Path, sim: QuantSim, kernels: str | None = None) -> list[Runtime]:
    """Return every way to run a file: `.tflite`, `.onnx` or a SavedModel folder.

    Args:
        path: the file.
        sim: the sim it was exported from.
        kernels: for a `.tflite` file `"litert"` or `"integer"`, LiteRT's or the integer executor's
            with both arithmetics; None takes LiteRT's where they are installed.

    Raises:
        EdgeqError: the file is missing, of another kind, damaged, exported from another sim, or
            its runtime is not installed.
    """
    if kernels not in (None, "litert", "integer"):
        raise EdgeqError(f"kernels is {kernels!r}; it is 'litert', 'integer' or None.")
    if not path.exists():
        raise EdgeqError(f"No such artifact: {path}.")
    try:
        runtimes = _runtimes(path, sim, kernels)
    except ImportError as error:
        extra = "tflite" if path.suffix == ".tflite" else "onnx"
        raise EdgeqError(
            f"{path.name} needs {error.name}: pip install 'keras_edgeq[{extra}]'."
        ) from None
    for runtime in runtimes:
        _check_form(path, runtime.form(), sim)
    return runtimes


def _runtimes(path: Path, sim: QuantSim, kernels: str | None) -> list[Runtime]:
    if path.suffix == ".tflite":
        from keras_edgeq.runtime.tflite_check import check_tflite

        content = path.read_bytes()
        check_tflite(content)
        if kernels == "integer" or (kernels is None and find_spec("ai_edge_litert") is None):
            from keras_edgeq.runtime.integer.artifact import Integer

            return [Integer(content, sim, a) for a in ("xnnpack_float", "fixed_point")]
        return [LiteRt(content, sim, "xnnpack"), LiteRt(content, sim, "builtin")]
    if path.suffix == ".onnx":
        return [OnnxRuntime(path.read_bytes(), sim)]
    if path.is_dir() and (path / "saved_model.pb").exists():
        return [SavedModel(path, sim)]
    raise EdgeqError(
        f"{path} is no artifact that can be run: .tflite, .onnx or a SavedModel folder."
    )


def _check_form(path: Path, form: Form, sim: QuantSim) -> None:
    """Raise where names or shapes of inputs or outputs are not the sim's."""
    sides = ((sim.input_names, sim.inputs), (sim.output_names, sim.outputs))
    for what, made, (names, symbols) in zip(("inputs", "outputs"), form, sides, strict=True):
        own = {name: tuple(s.shape) for name, s in zip(names, symbols, strict=True)}
        if set(own) != set(made) or not all(_fits(made[name], own[name]) for name in own):
            raise EdgeqError(
                f"{path} has {what} {made}, the sim has {own}; it was exported from another sim."
            )


def _fits(one: tuple, other: tuple) -> bool:
    """Tell whether two shapes can be the same; a free size fits any."""
    return len(one) == len(other) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int))
        for a, b in zip(one, other, strict=True)
    )


def shapes(details: dict[str, dict]) -> dict[str, tuple]:
    """Return TFLite's shapes with None for a free size."""
    return {
        name: tuple(None if size < 0 else int(size) for size in detail["shape_signature"])
        for name, detail in details.items()
    }


def _session(content: bytes, optimize: bool) -> Any:
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    # Kernels for int8 weights saturate on x86 processors without VNNI; these are exact everywhere.
    options.add_session_config_entry("session.x64quantprecision", "1")
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    refusals = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf)
    try:
        return ort.InferenceSession(
            content,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(ROUNDS_FLOATS),
        )
    except (*refusals, state.NotImplemented, state.RuntimeException) as error:
        raise EdgeqError(f"ONNX Runtime cannot load the file: {error}") from None


def real_values(values: np.ndarray, quantization: tuple) -> np.ndarray:
    """Return the real numbers of an output that may be integer."""
    scale, zero_point = quantization
    if values.dtype.kind == "f" or not scale:
        return values
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
