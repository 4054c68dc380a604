"""A TFLite file as objects: read, look up, add, write; thin, over the format's own classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import ArrayLike

from keras_edgeq.spec.encoding import Encoding

try:
    from ai_edge_litert import schema_py_generated as schema
except ImportError:  # the same classes, an edition older
    from tensorflow.lite.python import schema_py_generated as schema

_OP_NAMES = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
OP_CODES = {name: code for code, name in _OP_NAMES.items()}
TENSOR_TYPE = schema.TensorType
FLOAT32 = schema.TensorType.FLOAT32
FUSED = schema.ActivationFunctionType
_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int16): schema.TensorType.INT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int64): schema.TensorType.INT64,
}
_DTYPES = {v: k for k, v in _TYPES.items()}
INT4 = schema.TensorType.INT4
_TYPE_NAMES = {v: k.lower() for k, v in vars(schema.TensorType).items() if isinstance(v, int)}


@dataclass(eq=False)
class Op:
    """One operation: its name in the schema, tensor numbers, options and version."""

    name: str
    inputs: list[int]
    outputs: list[int]
    version: int = 1
    raw: Any = field(default_factory=schema.OperatorT)
    custom: Any = None


class TfliteGraph:
    """The main subgraph of a TFLite model, editable."""

    def __init__(self, buffer: bytes):
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(buffer, 0))
        self.main = self.model.subgraphs[0]
        self.tensors = self.main.tensors
        self.inputs = [int(i) for i in self.main.inputs]
        self.outputs = [int(i) for i in self.main.outputs]
        self.ops = [self._read(op) for op in self.main.operators]

    def foreign_ops(self) -> dict[str, str]:
        """Return what is made by ops that are not TFLite's own -> op, over all subgraphs."""
        codes, found = self.model.operatorCodes, {}
        for graph in self.model.subgraphs:
            for op in graph.operators:
                code = codes[op.opcodeIndex].customCode
                if code:
                    name = graph.tensors[op.outputs[0]].name
                    found[_text(name)] = _text(code)
        return found

    def is_float(self, tensor: int) -> bool:
        """Tell whether a tensor holds float32."""
        return tensor >= 0 and self.tensors[tensor].type == FLOAT32

    def constant(self, tensor: int) -> np.ndarray | None:
        """Return the value of a constant tensor, None for others."""
        raw = self.tensors[tensor]
        data = self.model.buffers[raw.buffer].data
        if data is None or not len(data):
            return None
        shape = [] if raw.shape is None else [int(size) for size in raw.shape]
        read = np.asarray(data, np.uint8)
        if raw.type == INT4:
            return unpack_int4(read, shape)
        return read.view(_DTYPES[raw.type]).reshape(shape) if raw.type in _DTYPES else None

    def integer_limits(self, tensor: int) -> tuple[int, int] | None:
        """Return the least and greatest integer of a tensor's type, None if it has no integers."""
        kind = _DTYPES.get(self.tensors[tensor].type)
        if kind is None or np.dtype(kind).kind != "i":
            return None
        return int(np.iinfo(kind).min), int(np.iinfo(kind).max)

    def name(self, tensor: int) -> str:
        """Return a tensor's name."""
        return _text(self.tensors[tensor].name)

    def add_like(self, tensor: int, name: str, encoding: Encoding) -> int:
        """Add a tensor of the same shape on a grid, int8 or where that is too small int16."""
        old, new = self.tensors[tensor], schema.TensorT()
        new.shape, new.shapeSignature, new.hasRank = old.shape, old.shapeSignature, old.hasRank
        wide = encoding.spec.bits > 8
        new.type = schema.TensorType.INT16 if wide else schema.TensorType.INT8
        new.name, new.buffer = name, 0
        new.quantization = quantization(encoding.scale, encoding.zero_point)
        return self._append(new)

    def add_float_like(self, tensor: int, name: str) -> int:
        """Add a float tensor of the same shape."""
        old, new = self.tensors[tensor], schema.TensorT()
        new.shape, new.shapeSignature, new.hasRank = old.shape, old.shapeSignature, old.hasRank
        new.type, new.name, new.buffer = FLOAT32, name, 0
        return self._append(new)

    def add_constant(
        self, values: ArrayLike, name: str, quant: Any = None, int4: bool = False
    ) -> int:
        """Add a constant tensor, with quantization parameters where it has them.

        Args:
            values: the constant; its type is the tensor's.
            name: the tensor's name.
            quant: what `quantization` returns.
            int4: store two integers per byte; they lie in -8..7.
        """
        buffer = schema.BufferT()
        values = np.asarray(values)
        buffer.data = pack_int4(values) if int4 else np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        new = schema.TensorT()
        new.shape, new.name = list(values.shape), name
        new.type = INT4 if int4 else _TYPES[values.dtype]
        new.buffer, new.quantization, new.hasRank = len(self.model.buffers) - 1, quant, True
        return self._append(new)

    def constant_bytes(self) -> dict[str, int]:
        """Return the bytes of all constants of a written graph by type, such as `"int8"`."""
        found: dict[str, int] = {}
        for raw in {t.buffer: t for g in self.model.subgraphs for t in g.tensors}.values():
            data = self.model.buffers[raw.buffer].data
            if raw.buffer and data is not None and len(data):
                name = _TYPE_NAMES[raw.type]
                found[name] = found.get(name, 0) + len(data)
        return dict(sorted(found.items()))

    def write(self) -> bytes:
        """Return the file: operations in their order, without unused tensors and buffers."""
        inner = [[(raw, self._read(raw)) for raw in g.operators] for g in self.model.subgraphs[1:]]
        self.model.operatorCodes = []
        self._codes: dict[tuple, int] = {}
        self.main.operators = [self._write_op(op) for op in self.ops]
        for raw, op in (pair for graph in inner for pair in graph):
            raw.opcodeIndex = self._code(op)
        self._drop_unused()
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def set_signature(self, inputs: dict[int, int], outputs: dict[int, int]) -> None:
        """Bind graph and signature inputs and outputs to other tensors (old number -> new)."""
        self.inputs = [inputs.get(i, i) for i in self.inputs]
        self.outputs = [outputs.get(i, i) for i in self.outputs]
        for signature in self.model.signatureDefs or []:
            for maps, change in ((signature.inputs, inputs), (signature.outputs, outputs)):
                for entry in maps:
                    entry.tensorIndex = change.get(int(entry.tensorIndex), int(entry.tensorIndex))

    def _append(self, tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _read(self, raw) -> Op:
        code = self.model.operatorCodes[raw.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        inputs = [] if raw.inputs is None else [int(i) for i in raw.inputs]
        outputs = [] if raw.outputs is None else [int(i) for i in raw.outputs]
        return Op(_OP_NAMES[number], inputs, outputs, code.version, raw, code.customCode)

    def _write_op(self, op: Op):
        op.raw.opcodeIndex = self._code(op)
        op.raw.inputs, op.raw.outputs = op.inputs, op.outputs
        return op.raw

    def _code(self, op: Op) -> int:
        """Return the number of an op's code, added where it is new."""
        key = (op.name, op.version, op.custom)
        if key not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = OP_CODES[op.name]
            code.deprecatedBuiltinCode = min(OP_CODES[op.name], 127)
            code.version, code.customCode = op.version, op.custom
            self._codes[key] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(code)
        return self._codes[key]

    def _drop_unused(self) -> None:
        used = {i for op in self.ops for i in (*op.inputs, *op.outputs) if i >= 0}
        used |= {*self.inputs, *self.outputs}
        number = {old: new for new, old in enumerate(sorted(used))}
        self.main.tensors = [self.tensors[old] for old in sorted(used)]
        for op in self.ops:
            op.raw.inputs = [number.get(i, -1) for i in op.inputs]
            op.raw.outputs = [number[i] for i in op.outputs]
        self.main.inputs = [number[i] for i in self.inputs]
        self.main.outputs = [number[i] for i in self.outputs]
        for signature in self.model.signatureDefs or []:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = number[int(entry.tensorIndex)]
        self._drop_buffers()

    def _drop_buffers(self) -> None:
        tensors = [t for graph in self.model.subgraphs for t in graph.tensors]
        metadata = self.model.metadata or []
        used = {0, *(t.buffer for t in tensors), *(m.buffer for m in metadata)}
        number = {old: new for new, old in enumerate(sorted(used))}
        self.model.buffers = [self.model.buffers[old] for old in sorted(used)]
        for holder in (*tensors, *metadata):
            holder.buffer = number[holder.buffer]


def quantization(scale: ArrayLike, zero_point: ArrayLike, axis: int = 0) -> Any:
    """Return quantization parameters; one scale, or one per index of `axis`."""
    quant = schema.QuantizationParametersT()
    quant.scale = np.ravel(scale).astype(np.float32)
    quant.zeroPoint = np.broadcast_to(np.ravel(zero_point), quant.scale.shape).astype(np.int64)
    quant.quantizedDimension = axis
    return quant


def multiplication(
    inputs: list[int], outputs: list[int], version: int, activation: int = FUSED.NONE
) -> Op:
    """Return a MUL of integer tensors with a fused activation."""
    op = Op("MUL", inputs, outputs, version)
    op.raw.builtinOptionsType = schema.BuiltinOptions.MulOptions
    op.raw.builtinOptions = schema.MulOptionsT()
    op.raw.builtinOptions.fusedActivationFunction = activation
    return op


def take_activation(op: Op) -> int:
    """Remove the activation that is fused into an op, and return it."""
    options = op.raw.builtinOptions
    activation = getattr(options, "fusedActivationFunction", FUSED.NONE)
    if activation != FUSED.NONE:
        options.fusedActivationFunction = FUSED.NONE
    return activation


def round_rows_around_zero_points(op: Op) -> None:
    """Let a kernel of float tensors and integer weights give rows zero points of their own."""
    op.raw.builtinOptions.asymmetricQuantizeInputs = True


def without_power_of_two_scales(op: Op) -> None:
    """Let an int16 addition take any scales: by default the schema says powers of two."""
    if hasattr(op.raw.builtinOptions, "potScaleInt16"):
        op.raw.builtinOptions.potScaleInt16 = False


def without_needless_relu6(op: Op, scale: float) -> None:
    """Make a fused RELU6 a RELU where 6 lies far beyond the output's grid.

    It clips nothing there, and LiteRT refuses a 6 that is more than 2**31 steps.
    """
    options = op.raw.builtinOptions
    if getattr(options, "fusedActivationFunction", None) == FUSED.RELU6 and scale * 2**30 < 6.0:
        options.fusedActivationFunction = FUSED.RELU


def pack_int4(values: np.ndarray) -> np.ndarray:
    """Return integers of -8..7 as bytes, two in each, the first in the low half."""
    halves = values.ravel().astype(np.uint8) & 0x0F
    halves = np.append(halves, np.zeros(halves.size % 2, np.uint8))
    return halves[0::2] | (halves[1::2] << 4)


def unpack_int4(packed: np.ndarray, shape: list[int]) -> np.ndarray:
    """Return what `pack_int4` packed, int8."""
    halves = np.stack([packed & 0x0F, packed >> 4], axis=-1).ravel()[: np.prod(shape, dtype=int)]
    signed = halves.astype(np.int8)
    return np.where(signed > 7, signed - 16, signed).astype(np.int8).reshape(shape)


def with_tensors(content: bytes, names: Iterable[str]) -> bytes:
    """Return a TFLite file that also puts out its inner tensors of these names."""
    graph, wanted = TfliteGraph(content), set(names)
    for number in range(len(graph.tensors)):
        if graph.name(number) in wanted and number not in graph.outputs:
            graph.outputs.append(number)
    return graph.write()


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else (name or "")
