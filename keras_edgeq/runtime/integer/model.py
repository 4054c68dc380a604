"""Execute a TFLite file in NumPy, integer for integer as LiteRT does."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.runtime.integer.call import Call, Grid
from keras_edgeq.runtime.integer.kernels import INTEGER, KERNELS
from keras_edgeq.runtime.integer.tensors import read_constant, read_grid
from keras_edgeq.runtime.tflite_file import Op, TfliteGraph

ARITHMETICS = ("fixed_point", "xnnpack_float", "single_rounding")
# What reading or computing a damaged file can end in; flatbuffers lets struct.error through.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    struct.error,
)
PIECE = 1 << 21  # elements of the largest tensor that are computed at a time


class IntegerModel:
    """A TFLite file, executed op by op without LiteRT's runtime.

    Only classes that describe the file format are needed: those of `ai_edge_litert`, which load no
    runtime, or TensorFlow's own where it is not installed.

    Args:
        content: the file.
        arithmetic: `"fixed_point"` computes what LiteRT's own optimized kernels do on x86-64
            (`kernels="builtin"` of `LiteRtModel`; the reference kernels round other than those in
            a convolution's last bit); `"xnnpack_float"` what XNNPACK does with the operations it
            has, and as `"fixed_point"` where it leaves an operation to LiteRT. `"single_rounding"`
            is not what any kernel does: it is as XNNPACK, but ReLUs and similar operations with a
            grid of their own are rounded once, as in a sim; kernels round them twice or multiply
            with 8 bits.
        threads: CPU threads of the LiteRT that is computed as, as in `LiteRtModel`. The mean over
            an image rounds some values up with one thread and down with more.
        partial: leave out operations that the executor does not know, and what reads their results
            where `tensors` is not fed them.

    Raises:
        EdgeqError: the file is damaged, or has an operation that the executor does not know.

    Example:
        >>> IntegerModel(b"no model")
        Traceback (most recent call last):
        keras_edgeq.errors.EdgeqError: The integer executor cannot load the file: it is not a \
TFLite file.
    """

    def __init__(
        self,
        content: bytes,
        arithmetic: str = "fixed_point",
        threads: int = 2,
        *,
        partial: bool = False,
    ):
        if arithmetic not in ARITHMETICS:
            raise EdgeqError(
                f"arithmetic is {arithmetic!r}; it must be one of {list(ARITHMETICS)}."
            )
        self.arithmetic, self.threads, self.partial = arithmetic, threads, partial
        try:
            self._load(content)
        except EdgeqError:
            raise
        except DAMAGE as error:
            raise EdgeqError(f"The integer executor cannot load the file: {error!r}") from None

    def _load(self, content: bytes) -> None:
        if content[4:8] != b"TFL3":
            raise EdgeqError("The integer executor cannot load the file: it is not a TFLite file.")
        self._graph = TfliteGraph(content)
        count = range(len(self._graph.tensors))
        self._grids = {i: read_grid(self._graph, i) for i in count}
        self._constants = {i: read_constant(self._graph, i) for i in count}
        self._last = {i: n for n, op in enumerate(self._graph.ops) for i in op.inputs}
        self._unknown = {i for i, op in enumerate(self._graph.ops) if not self._knows(op)}
        named = self._signature()
        self.inputs = {name: self._detail(i) for name, i in named[0].items()}
        self.outputs = {name: self._detail(i) for name, i in named[1].items()}

    def run(self, inputs: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute the outputs of the signature.

        Args:
            inputs: arrays, batch first; float data for an integer input is quantized here.
            names: the signature name of each.

        Returns:
            Output name -> array as the file has it, integer where it is integer.
        """
        wanted = {name: detail["index"] for name, detail in self.outputs.items()}
        return self._run(inputs, names, wanted, {})

    def tensors(
        self,
        inputs: Sequence[np.ndarray],
        names: Sequence[str],
        wanted: Iterable[str] | None = None,
        fed: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Compute tensors of the graph by tensor name.

        Args:
            inputs: as for `run`.
            names: as for `run`.
            wanted: names of tensors; those that the file does not have are left out. Without it,
                every output of the graph.
            fed: values by tensor name that take the place of what is computed for all that comes
                after: with another runtime's values, every operation shows what it makes of that
                runtime's inputs.

        Returns:
            Tensor name -> what was computed.
        """
        by_name = {grid.name: i for i, grid in self._grids.items()}
        if wanted is None:
            wanted = [self._grids[i].name for i in self._graph.outputs]
        numbers = {name: by_name[name] for name in wanted if name in by_name}
        replaced = {by_name[name]: value for name, value in (fed or {}).items() if name in by_name}
        return self._run(inputs, names, numbers, replaced)

    def _run(self, inputs, names, wanted: dict[str, int], fed: dict[int, np.ndarray]):
        """Run all samples, in pieces that fit into memory."""
        count, size, pieces = len(inputs[0]), self._samples(), []
        for start in range(0, max(count, 1), size):
            part = slice(start, start + size)
            values = {
                self.inputs[name]["index"]: self._fit(name, array[part])
                for name, array in zip(names, inputs, strict=True)
            }
            replaced = {i: value[part] for i, value in fed.items()}
            pieces.append(self._execute(values, set(wanted.values()), replaced))
        made = {name: i for name, i in wanted.items() if i in pieces[0]}
        if len(pieces) == 1:
            return {name: pieces[0][i] for name, i in made.items()}
        return {name: np.concatenate([p[i] for p in pieces]) for name, i in made.items()}

    def _samples(self) -> int:
        """Return how many samples to run at a time; as many as the file says where it does."""
        first = [detail["shape_signature"][:1] for detail in self.inputs.values()]
        if any(len(size) and size[0] != -1 for size in first):
            return max(int(next(s[0] for s in first if len(s) and s[0] != -1)), 1)
        largest = max(int(np.prod(np.abs(grid.shape), initial=1)) for grid in self._grids.values())
        # Whole vectors of 16: kernels round the rest of a tensor otherwise (see `requantize`).
        return max(PIECE // largest // 16, 1) * 16

    def _fit(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return the data in the input's type, quantized where that is integer and it is float."""
        grid = self._grids[self.inputs[name]["index"]]
        if array.dtype.kind == "f" and grid.is_integer:
            array = grid.store(np.rint(array / grid.step) + grid.zero_point)
        return array.astype(grid.dtype)

    def _execute(
        self, values: dict[int, Any], wanted: set[int], fed: dict[int, np.ndarray]
    ) -> dict[int, np.ndarray]:
        """Run every operation once; values nobody reads any more are let go."""
        found = {i: values[i] for i in wanted if i in values}
        found |= {i: v for i in wanted if (v := self._constants[i]) is not None}
        values |= {i: fed[i] for i in values if i in fed}
        for index, op in enumerate(self._graph.ops):
            if index in self._unknown or (self.partial and not self._has_all(op, values)):
                values |= {i: fed[i].astype(self._grids[i].dtype) for i in op.outputs if i in fed}
                continue
            made = self._compute(op, values)
            for number, value in zip(op.outputs, made, strict=True):
                if number in wanted:
                    found[number] = value
                values[number] = fed[number].astype(value.dtype) if number in fed else value
            for number in {*op.inputs, *op.outputs}:
                if self._last.get(number, -1) <= index:
                    values.pop(number, None)
        for number in set() if self.partial else wanted - found.keys():
            raise EdgeqError(f"Nothing makes {self._grids[number].name!r}; the file is damaged.")
        return found

    def _has_all(self, op: Op, values: Mapping[int, np.ndarray]) -> bool:
        """Tell whether everything that an operation reads is available."""
        return all(i < 0 or i in values or self._constants[i] is not None for i in op.inputs)

    def _compute(self, op: Op, values: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        def value(number):
            if number < 0:
                return None
            known = self._constants[number]
            if known is None and number not in values:
                raise EdgeqError(
                    f"The integer executor has no value for {self._grids[number].name!r}, which "
                    f"{op.name} reads; the file is damaged or keeps it as a variable."
                )
            return values[number] if known is None else known

        call = Call(
            name=op.name,
            values=[value(i) for i in op.inputs],
            inputs=[None if i < 0 else self._grids[i] for i in op.inputs],
            outputs=[self._grids[i] for i in op.outputs],
            options=op.raw.builtinOptions,
            xnnpack=self.arithmetic != "fixed_point",
            threads=self.threads,
            exact=self.arithmetic == "single_rounding",
        )
        try:
            # An exponential may overflow, to a sigmoid of 0; nothing sound divides by zero.
            with np.errstate(over="ignore", divide="raise", invalid="raise"):
                made = KERNELS[op.name](call)
        except EdgeqError:
            raise
        except DAMAGE as error:
            shapes = [None if v is None else v.shape for v in call.values]
            raise EdgeqError(
                f"The integer executor cannot compute {op.name} ({call.out.name!r}) on inputs of "
                f"shapes {shapes}: {error!r}. Check the inputs, or run the file on LiteRT instead."
            ) from None
        made = made if isinstance(made, list) else [made]
        if len(made) != len(op.outputs):
            raise call.unlike(f"with {len(op.outputs)} results instead of {len(made)}")
        return made

    def _knows(self, op: Op) -> bool:
        """Check an operation; False for one that is left out."""
        try:
            self._check(op)
        except EdgeqError:
            if not self.partial:
                raise
            return False
        return True

    def _check(self, op: Op) -> None:
        if not op.inputs or min(op.outputs, default=-1) < 0:
            raise EdgeqError(f"{op.name} has no inputs or no outputs; the file is damaged.")
        grids = [self._grids[i] for i in (*op.inputs, *op.outputs) if i >= 0]
        floats = any(grid.dtype.kind == "f" for grid in grids)
        if op.name not in KERNELS or (floats and op.name in INTEGER):
            what = f"{op.name} on floats" if op.name in KERNELS else op.name
            raise EdgeqError(
                f"The integer executor does not know {what} ({grids[-1].name!r}); run the file on "
                "LiteRT instead, or give the layer integers."
            )

    def _signature(self) -> list[dict[str, int]]:
        """Return the numbers of inputs and outputs by the names that users know."""
        signatures = self._graph.model.signatureDefs
        if signatures:
            sides = (signatures[0].inputs, signatures[0].outputs)
            return [{_text(e.name): int(e.tensorIndex) for e in side} for side in sides]
        sides = (self._graph.inputs, self._graph.outputs)
        return [{self._grids[i].name: i for i in side} for side in sides]

    def _detail(self, number: int) -> dict[str, Any]:
        """Describe an input or output as LiteRT does."""
        grid: Grid = self._grids[number]
        one = grid.scale is not None and len(grid.scale) == 1
        return {
            "name": grid.name,
            "index": number,
            "shape_signature": np.asarray(grid.shape, np.int32),
            "dtype": grid.dtype.type,
            "quantization": (float(grid.step), grid.zero_point) if one else (0.0, 0),
        }


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
