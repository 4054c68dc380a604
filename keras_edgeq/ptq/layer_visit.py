"""Visit the weighted layers of a sim in graph order, with what they read and what they should make.

Two streams move through the sim side by side: the float model's, and that of the sim as it is so
far. What a visitor writes into a layer is what the layers behind it see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.numerics.blocks import inner_axes
from keras_edgeq.numerics.closed_form import Grid
from keras_edgeq.ops import matrix_form
from keras_edgeq.ops.matrix_form import MatrixForm
from keras_edgeq.ptq.normal_equations import NormalEquations
from keras_edgeq.ptq.open_kernel import encoding_of
from keras_edgeq.ptq.session import PtqSession
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.streams.pieces import OnCall
from keras_edgeq.streams.stream import Stream, float_call, real_input, rounded_call

# Neighbouring positions of an image are alike: past this many rows (or so many per input of a
# layer) more of them change nothing but the time.
ENOUGH_ROWS = 16_384
ROWS_PER_INPUT = 32
# Measured with `gptq` on MobileNetV2, in units of what one input of a layer takes.
WORK_PER_LAYER = 32.0
WORK_OF_LARGE = 1.5e6


class Arguments(Protocol):
    """What a call reads, batch by batch: a `Stream` in front of it."""

    def __len__(self) -> int: ...

    def arguments(self, batch: int) -> tuple[tuple, dict]:
        """Return the arguments of the call on one batch."""
        ...


@dataclass(frozen=True, eq=False)
class LayerVisit:
    """A call of a weighted layer, with both streams in front of it.

    Args:
        layer: the layer of the sim that is changed.
        float_layer: the same layer with its float parameters.
        streams: of the float model and of the sim.
        free_scales: the kernel has scales per channel, and they may change.
        equations: sums over the earlier calls of a shared layer, and then over this one.
    """

    layer: QuantizedLayer
    float_layer: Any
    streams: tuple[Arguments, Arguments]
    free_scales: bool
    equations: NormalEquations

    @cached_property
    def form(self) -> MatrixForm:
        """The layer as a matrix product."""
        form = matrix_form(self.layer.layer)
        assert form  # `is_product` was asked
        return form

    @property
    def has_bias(self) -> bool:
        """Tell whether the layer adds a bias."""
        return getattr(self.layer.layer, "bias", None) is not None

    @property
    def float_columns(self) -> NDArray:
        """The float kernel, `[groups, inputs, outputs]` in float64."""
        kernel = getattr(self.float_layer, self.layer.kernel_name)
        return self.form.columns(np.asarray(kernel, np.float64))

    def measure(self) -> None:
        """Add what the layer reads in the sim, and makes in the float model, to the equations."""
        form, columns = self.form, np.float32(self.float_columns)
        every = self.thinning()
        for index, (exact, rounded) in enumerate(self.inputs()):
            offset = index % every
            wanted = form.rows(exact, every, offset).numpy() @ columns
            self.equations.add(form.rows(rounded, every, offset).numpy(), wanted, index % 2)

    def inputs(self) -> Iterator[tuple[Any, Any]]:
        """Yield what the layer reads in the float model and in the sim, batch by batch."""
        exact, rounded = self.streams
        for index in range(len(exact)):
            yield exact.arguments(index)[0][0], real_input(*rounded.arguments(index))

    @property
    def encoding(self) -> Encoding:
        """The grid of the kernel as it is."""
        return encoding_of(self.layer)

    def grid(self, encoding: Encoding | None = None) -> Grid:
        """Return the grid of the kernel, as it is or as given, for columns."""
        encoding = encoding or self.encoding
        low, high = encoding.bounds
        shape, is_blocked = self.form.kernel_shape, bool(encoding.spec.block_size)

        def columns(values):
            full = self.form.columns(np.broadcast_to(values, shape))
            return full if is_blocked else full[:, :1]

        zero = 0.0 if is_blocked else columns(np.float64(encoding.zero_point))
        return Grid(columns(np.float64(encoding.unit(shape))), low - zero, high - zero)

    def assign_scale(self, gain: NDArray, encoding: Encoding | None = None) -> None:
        """Multiply the scales of the kernel's grid, or of one that is given.

        Args:
            gain: `[groups, 1, outputs]`, all alike where there is one scale.
            encoding: the grid that it takes then.
        """
        encoding = encoding or self.encoding
        full = self.form.kernel(np.broadcast_to(gain, self.float_columns.shape))
        inner = inner_axes(full.ndim, encoding.spec.axes)
        first = tuple(slice(0, 1) if axis in inner else slice(None) for axis in range(full.ndim))
        own = full[first] if encoding.scale.ndim else full.flat[0]
        scale = np.float32(np.float64(encoding.scale) * own)
        self.layer.quantizers[self.layer.kernel_name].assign(replace(encoding, scale=scale))

    def assign(self, columns: NDArray, bias: NDArray) -> None:
        """Give the layer its kernel, and what to add to its float bias."""
        kernel = getattr(self.layer.layer, self.layer.kernel_name)
        kernel.assign(np.float32(self.form.kernel(columns)))
        if self.has_bias:
            exact = np.float64(self.float_layer.bias)
            self.layer.layer.bias.assign(np.float32(exact + self.form.bias(bias)))

    def thinning(self) -> int:
        """Return of how many output positions along each axis one makes enough rows."""
        form, exact = self.form, self.streams[0]
        tensor = exact.arguments(0)[0][0]
        total = form.sites(tensor) * len(exact)
        enough = max(ENOUGH_ROWS, ROWS_PER_INPUT * self.float_columns.shape[1])
        positions = form.positions(tensor)
        thinned = (total / enough) ** (1.0 / max(len(positions), 1))
        return max(1, min((int(thinned), *positions)))


def walk_layers(
    session: PtqSession, name: str, on_call: OnCall = rounded_call
) -> Iterator[LayerVisit]:
    """Yield a visit for each call of a layer that is a matrix product with integer weights.

    Args:
        session: the sim that visitors change, its float form and the data.
        name: of the technique, for the progress bar.
        on_call: how the stream of the sim computes.
    """
    exact = Stream(session.exact, float_call, session.source, session.store)
    rounded = Stream(session.work, on_call, session.source, session.store)
    equations: dict[str, NormalEquations] = {}
    stops = [i for i, call in enumerate(rounded.calls) if is_product(call.layer)]
    work = [_work(rounded.calls[stop].layer) for stop in stops]
    for stop in session.bar(stops, name, "layer", work):
        exact.advance(stop)
        rounded.advance(stop)
        layer = rounded.calls[stop].layer
        has_bias = getattr(layer.layer, "bias", None) is not None
        own = equations.setdefault(layer.name, NormalEquations(has_bias))
        free = has_free_scales(session.work, layer)
        yield LayerVisit(layer, exact.calls[stop].layer.layer, (exact, rounded), free, own)


def _work(layer: QuantizedLayer) -> float:
    """Return about how much rounding a layer takes beside other layers, by its inputs."""
    form = matrix_form(layer.layer)
    assert form  # `is_product` was asked
    _, inputs, outputs = form.shape
    return WORK_PER_LAYER + inputs + inputs**2 * outputs / WORK_OF_LARGE


def has_free_scales(sim: QuantSim, layer: QuantizedLayer) -> bool:
    """Tell whether a kernel has scales per channel that are not frozen."""
    is_frozen = f"{layer.name}/{layer.kernel_name}" in sim.record.frozen
    return bool(layer.quantizers[layer.kernel_name].spec.axes) and not is_frozen


def is_product(layer: Any) -> bool:
    """Tell whether a layer of a sim is a matrix product with integer weights."""
    if not isinstance(layer, QuantizedLayer) or not matrix_form(layer.layer):
        return False
    return not layer.quantizers[layer.kernel_name].spec.is_half
