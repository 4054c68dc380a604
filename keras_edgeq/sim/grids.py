"""`grids`: scale, zero point, bits and range of every quantized tensor of a sim, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.files import write_whole
from keras_edgeq.files.json_text import finite
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.quantized_layer import BIAS_MAX
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.table import aligned, brief, counted, csv_text, html, span

INPUT, ACTIVATION, WEIGHT, BIAS = "input", "activation", "weight", "bias"
HEAD = ("tensor", "kind", "type", "scale", "zero point", "range", "channels", "on the grid of")


@dataclass(frozen=True)
class Grid:
    """The grid of one tensor: `real = scale * (integer - zero_point)`.

    Args:
        tensor: printed name, as plans and reports have it.
        kind: `"input"` of the model, `"activation"`, `"weight"` or `"bias"`.
        bits: of an integer; 16 in half precision.
        dtype: `"int"` or `"float"`.
        signed: whether its integers have a sign.
        symmetric: whether the zero point is 0 for all data.
        scales: one number, or one per channel or block in the order of memory.
        zero_points: in the same form as `scales`.
        low: smallest number on the grid, over all channels.
        high: greatest.
        channel_axis: axis that owns the scales; None if there is one scale, or more than one such
            axis.
        shared: tensor whose grid this is; empty if it is the tensor's own.
        block_size: how many elements of a channel share a scale; 0 is all of them.
    """

    tensor: str
    kind: str
    bits: int
    dtype: str
    signed: bool
    symmetric: bool
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    low: float
    high: float
    channel_axis: int | None = None
    shared: str = ""
    block_size: int = 0

    @property
    def channels(self) -> int:
        """Number of scales."""
        return len(self.scales)

    @property
    def type_name(self) -> str:
        """How its numbers are stored: `int8`, `uint8`, `float16`."""
        if self.dtype == "float":
            return f"float{self.bits}"
        return f"{'' if self.signed else 'u'}int{self.bits}"

    def __repr__(self) -> str:
        titles = zip(HEAD[3:], self.cells()[3:], strict=True)
        told = (f"{title} {cell}" for title, cell in titles if cell)
        return brief(f"Grid {self.tensor}", self.kind, self.type_name, *told)

    def cells(self) -> tuple[str, ...]:
        """Return a row of `HEAD` for people."""
        scales = span(min(self.scales), max(self.scales))
        zero_points = span(min(self.zero_points), max(self.zero_points))
        ends = f"{self.low:.5g} to {self.high:.5g}"
        many = "" if self.channels == 1 else str(self.channels)
        many = f"{many} blocks of {self.block_size}" if many and self.block_size else many
        return (
            self.tensor, self.kind, self.type_name, scales, zero_points, ends, many, self.shared,
        )  # fmt: skip


@dataclass(frozen=True)
class Grids(Sequence):
    """The grids of a sim, in graph order; a sequence that prints as a table.

    Args:
        model: name of the sim.
        profile: name of its target.
        rows: a `Grid` per tensor.

    Example:
        >>> found = eq.grids(sim)
        >>> found["head/kernel"].bits, found["head/kernel"].channels
        (8, 3)
        >>> found.to_csv("grids.csv")
    """

    model: str
    profile: str
    rows: tuple[Grid, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """Return a grid by number, or by the printed name of its tensor."""
        if isinstance(index, str):
            found = {grid.tensor: grid for grid in self.rows}
            if index not in found:
                raise KeyError(index)
            return found[index]
        return self.rows[index]

    def records(self) -> list[dict[str, Any]]:
        """Return a dict per tensor, named as the fields of `Grid`: for pandas, for JSON."""
        return [asdict(grid) for grid in self.rows]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; an end of a grid that has none is null."""
        return {"model": self.model, "profile": self.profile, "grids": finite(self.records())}

    def to_csv(self, path: str | Path) -> None:
        """Write a row per tensor; scales and zero points of channels are parted by spaces.

        Raises:
            ExportError: the file cannot be written.
        """
        cells = ([_csv_cell(value) for value in record.values()] for record in self.records())
        content = csv_text([Grid.__dataclass_fields__, *cells])
        write_whole(Path(path), lambda target: target.write_text(content, encoding="utf-8"))

    def table(self) -> list[tuple[str, ...]]:
        """Return the cells for people, titles first."""
        return [HEAD, *(grid.cells() for grid in self.rows)]

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'grid')} of {self.model!r} on {self.profile}>"

    def __str__(self) -> str:
        return aligned(self.table())

    def _repr_html_(self) -> str:
        return html(repr(self).strip("<>"), self.table())


def grids(sim: QuantSim) -> Grids:
    """Return the grid of every tensor of a sim: inputs, activations, weights and biases.

    A tensor on the grid of another one has a row of its own that names the owner. A tensor that
    stays float has none.

    Args:
        sim: a calibrated sim.

    Raises:
        EdgeqError: `sim` is not a sim, or is not calibrated.

    Example:
        >>> import numpy as np, tf_keras, keras_edgeq as eq
        >>> layers = [tf_keras.Input((4,), name="x"), tf_keras.layers.Dense(2, name="head")]
        >>> model = tf_keras.Sequential(layers)
        >>> sim = eq.quantize(model, np.random.rand(32, 4), progress=False)
        >>> [f"{grid.tensor} {grid.type_name} {grid.channels}" for grid in eq.grids(sim)]
        ['x int8 1', 'head/kernel int8 2', 'head/bias int32 2', 'head int8 1']
    """
    if not isinstance(sim, QuantSim):
        raise EdgeqError(
            f"Got {type(sim).__name__}; grids takes a sim, which keras_edgeq.quantize makes."
        )
    rows: dict[str, Grid] = {}
    for grid in _walk(sim):
        rows.setdefault(grid.tensor, grid)
    return Grids(sim.name, sim.record.profile.name, tuple(rows.values()))


def _walk(sim: QuantSim) -> Iterator[Grid]:
    """Yield the grids in graph order; those of a layer that is called twice come twice."""
    quantizers = sim.quantizers()
    for node in LayerGraph.of(sim).nodes:
        layer, arguments = node.layer, node.call.node.call_kwargs
        if isinstance(layer, FakeQuant):
            tensor = arguments["tensor"]
            kind = INPUT if tensor in sim.input_names else ACTIVATION
            shared = layer.tensor if layer.tensor != tensor else ""
            yield _grid(tensor, kind, _encoding(layer, tensor), shared)
        elif isinstance(layer, QuantizedLayer):
            for name, quantizer in layer.quantizers.items():
                tensor = f"{layer.name}/{name}"
                kind = BIAS if name == "bias" else WEIGHT
                yield _grid(tensor, kind, _encoding(quantizer, tensor))
            scale = arguments.get("input_scale")
            has_bias = getattr(layer.layer, "bias", None) is not None
            if layer.bias_spec is not None and has_bias and scale is not None:
                yield _bias(layer, keras_compat.producer(scale)[0])
        else:
            owners = {ref: sim.record.plan.carriers.get(ref) for ref in node.outputs}
            for ref, owner in owners.items():
                if owner is not None and str(owner) in quantizers:
                    encoding = _encoding(quantizers[str(owner)], str(owner))
                    yield _grid(str(ref), ACTIVATION, encoding, str(owner))


def _encoding(quantizer: FakeQuant, tensor: str) -> Encoding:
    encoding = quantizer.encoding
    if encoding is None:
        raise EdgeqError(f"{tensor!r} has no grid; calibrate the sim first.")
    return encoding


def _grid(tensor: str, kind: str, encoding: Encoding, shared: str = "") -> Grid:
    spec, scale = encoding.spec, np.asarray(encoding.units)
    long = [axis for axis, size in enumerate(scale.shape) if size > 1]
    return Grid(
        tensor,
        kind,
        spec.bits,
        spec.dtype,
        bool(spec.signed) or spec.is_half,
        spec.symmetric,
        tuple(map(float, scale.ravel())),
        tuple(map(int, np.broadcast_to(encoding.zero_point, scale.shape).ravel())),
        float(np.min(encoding.min)),
        float(np.max(encoding.max)),
        long[0] if len(long) == 1 else None,
        shared,
        spec.block_size,
    )


def _bias(layer: QuantizedLayer, reads: FakeQuant) -> Grid:
    """Return the grid of a bias: input scale times weight scale, in the bits of the sums."""
    name = f"{layer.name}/bias"
    own = np.asarray(_encoding(layer.quantizers[layer.kernel_name], name).scale, np.float64)
    scales = own.ravel() * float(_encoding(reads, name).scale)
    assert layer.bias_spec is not None  # asked before
    bits, most = layer.bias_spec.bits, BIAS_MAX[layer.bias_spec.bits]
    high = float(scales.max() * most)
    axis = 0 if scales.size > 1 else None
    zeros = (0,) * scales.size
    numbers = tuple(float(np.float32(scale)) for scale in scales)
    return Grid(name, BIAS, bits, "int", True, True, numbers, zeros, -high, high, axis)


def _csv_cell(value: Any) -> Any:
    return " ".join(map(repr, value)) if isinstance(value, tuple) else value
