"""Artifacts as the verification sees them: run them, read their inner integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.runtime.artifact_file import read_artifact
from keras_edgeq.runtime.child.loaded import Loaded
from keras_edgeq.runtime.child.process import Child
from keras_edgeq.runtime.integer.artifact import Integer
from keras_edgeq.runtime.saved_model import SavedModel
from keras_edgeq.runtime.tflite_tensors import real_values, shapes
from keras_edgeq.sim.quant_sim import QuantSim, quantized_tensors

# What is said of a run that fails while another one did not.
INNER = " with its inner tensors put out"
PLAIN = " without optimizations"

Form = tuple[dict[str, tuple], dict[str, tuple]]


class Runtime(Protocol):
    """A loaded artifact."""

    name: str
    # Share of the integers that each operation has to have in common with the sim.
    least_identical: float

    def form(self) -> Form:
        """Return the shapes of inputs and outputs by name; a free size is not a number."""
        ...

    def outputs(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return real-valued outputs in the order of the sim's."""
        ...

    def tensors(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Return what is stored of quantized tensors by printed name; empty where it is hidden."""
        ...


@dataclass
class LiteRt:
    """A TFLite file on LiteRT with one set of kernels, in a child process."""

    content: bytes
    sim: QuantSim
    kernels: str
    child: Child = field(default_factory=Child)

    def __post_init__(self):
        self.name = f"LiteRT {self.kernels}"
        # The sim requantizes in float as XNNPACK does; LiteRT's own kernels do in fixed point,
        # where 0.3 % of a convolution's values and up to half of a mean's round to the neighbour.
        # Only a difference of more than one step is one there.
        self.least_identical = 0.999 if self.kernels == "xnnpack" else 0.0
        self._model = self._load(self.content)
        self._probe: Loaded | None = None

    def form(self):
        """Read the signature."""
        return shapes(self._model.inputs), shapes(self._model.outputs)

    def outputs(self, inputs):
        """Run the file; integer outputs are dequantized."""
        made = self._model.compute(inputs, self.sim.input_names)
        details = self._model.outputs
        return [real_values(made[n], details[n]["quantization"]) for n in self.sim.output_names]

    def tensors(self, inputs):
        """Run a copy of the file that puts its inner tensors out."""
        from keras_edgeq.runtime.tflite_file import with_tensors

        names = quantized_tensors(self.sim)
        if self._probe is None:
            self._probe = self._load(with_tensors(self.content, names))
        made = self._probe.compute(inputs, self.sim.input_names, names, INNER)
        return {name: value for name, value in made.items() if value.dtype.kind == "i"}

    def _load(self, content: bytes) -> Loaded:
        return self.child.load("litert", content, self.name, kernels=self.kernels)


@dataclass
class OnnxRuntime:
    """An ONNX file on ONNX Runtime's CPU kernels, in a child process."""

    content: bytes
    sim: QuantSim
    child: Child = field(default_factory=Child)

    def __post_init__(self):
        self.name, self.least_identical = "ONNX Runtime", 0.999
        self._model = self._load(self.content, optimize=True)
        self._probe: tuple[Loaded, dict[str, str]] | None = None

    def form(self):
        """Read the graph's inputs and outputs."""
        return shapes(self._model.inputs), shapes(self._model.outputs)

    def outputs(self, inputs):
        """Run the file with every optimization that keeps to it."""
        names = self.sim.output_names
        made = self._model.compute(inputs, self.sim.input_names, names)
        return [made[name] for name in names]

    def plain_outputs(self, inputs):
        """Run the file operation by operation, as it is written."""
        names = self.sim.output_names
        made = self._unfused()[0].compute(inputs, self.sim.input_names, names, PLAIN)
        return [made[name] for name in names]

    def tensors(self, inputs):
        """Run a copy without fusions that puts its inner integers out."""
        probe, wanted = self._unfused()
        made = probe.compute(inputs, self.sim.input_names, list(wanted), INNER)
        return {name: made[stored] for stored, name in wanted.items()}

    def reference(
        self,
        inputs: Sequence[np.ndarray],
        tensors: Mapping[str, np.ndarray],
        wanted: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """Compute what the file says of tensors where it is fed these, with ONNX's reference."""
        from keras_edgeq.runtime.onnx_reference import reference

        names = {name: stored for stored, name in self._unfused()[1].items()}
        fed = {names[name]: value for name, value in tensors.items()}
        fed |= dict(zip(self.sim.input_names, inputs, strict=True))
        made = reference(self.content, fed, [names[name] for name in wanted])
        return {name: made[names[name]] for name in wanted if names[name] in made}

    def _unfused(self) -> tuple[Loaded, dict[str, str]]:
        """Return the copy, and the tensors of the sim by the names that it has for them."""
        from keras_edgeq.runtime.onnx_file import half_name, quantized_name, with_tensors

        if self._probe is None:
            names = quantized_tensors(self.sim)
            probe = self._load(with_tensors(self.content, names), optimize=False)
            stored = {call(n): n for n in names for call in (quantized_name, half_name)}
            self._probe = probe, {s: n for s, n in stored.items() if s in probe.outputs}
        return self._probe

    def _load(self, content: bytes, optimize: bool) -> Loaded:
        return self.child.load("onnx", content, self.name, optimize=optimize)


def load_artifact(
    path: Path, sim: QuantSim, kernels: str | None = None, child: Child | None = None
) -> list[Runtime]:
    """Return every way to run a file: `.tflite`, `.onnx` or a SavedModel folder.

    LiteRT and ONNX Runtime run in a child process. A SavedModel runs on the TensorFlow of this one.

    Args:
        path: the file.
        sim: the sim it was exported from.
        kernels: for a `.tflite` file `"litert"` or `"integer"`, LiteRT's or the integer executor's
            with both arithmetics; None takes LiteRT's where they are installed.
        child: what runs the file; None starts one that ends with the runtimes.

    Raises:
        EdgeqError: the file is missing, of another kind, damaged, refused by its runtime, exported
            from another sim, or its runtime is not installed.
        RuntimeFailedError: the runtime ended, or took too long or too much memory.
    """
    runtimes = [load() for _, load in ways_to_run(path, sim, kernels, child or Child())]
    for runtime in runtimes:
        check_form(path, runtime.form(), sim)
    return runtimes


def ways_to_run(
    path: Path, sim: QuantSim, kernels: str | None, child: Child
) -> list[tuple[str, Callable[[], Runtime]]]:
    """Return each way to run a file that `load_artifact` loads: its name, and what loads it.

    Raises:
        EdgeqError: the file is missing, of another kind, or damaged so that no runtime is needed to
            tell; or its runtime is not installed.
    """
    if kernels not in (None, "litert", "integer"):
        raise EdgeqError(f"kernels is {kernels!r}; it must be 'litert', 'integer' or None.")
    file = read_artifact(path, child.limits)
    if file.kind == "saved_model":
        return [("SavedModel", partial(SavedModel, path, sim))]
    content = file.content
    if file.kind == "tflite" and (kernels == "integer" or not (kernels or file.has_runtime)):
        return [
            (f"integer executor {arithmetic}", partial(Integer, content, sim, arithmetic))
            for arithmetic in ("xnnpack_float", "fixed_point")
        ]
    file.need_runtime()
    if file.kind == "onnx":
        return [("ONNX Runtime", partial(OnnxRuntime, content, sim, child))]
    return [
        (f"LiteRT {kind}", partial(LiteRt, content, sim, kind, child))
        for kind in ("xnnpack", "builtin")
    ]


def check_form(path: Path, form: Form, sim: QuantSim) -> None:
    """Raise if names or shapes of inputs or outputs are not the sim's."""
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
