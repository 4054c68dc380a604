"""What a diagnosis measures: a row per tensor, per layer with weights, per layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.table import brief


@dataclass(frozen=True)
class Switch:
    """What one quantizer does to the outputs; NaN where it was not measured.

    Args:
        alone_db: SQNR of the outputs if nothing but this quantizer rounds.
        without_db: SQNR of the outputs of the sim without it.
        share: of the noise at the outputs, 0 to 1: the larger of what goes without it and of what
            it makes alone.
    """

    alone_db: float
    without_db: float
    share: float


@dataclass(frozen=True)
class TensorDiagnosis:
    """One quantized tensor.

    Args:
        tensor: printed name.
        layer: that makes it, `""` for an input of the model.
        op: operation of that layer.
        owner: tensor whose grid this is.
        type_name: `"int8"`, `"float16"`.
        own_db: SQNR if what is read is float: of its own rounding and of the weights in front.
        inherited_db: signal to the error that comes with the inputs, in dB.
        total_db: signal to the whole error, in dB.
        cosine: cosine similarity with the float model's tensor.
        noise: cause -> power of the error that it alone makes from float inputs, over the signal's.
        low: smallest number of the float model on the data.
        high: greatest.
        grid_low: where its grid begins.
        grid_high: where it ends.
        clipped: share of numbers beyond the grid.
        step: scale of the grid.
        switch: of the grid; for all tensors on it.
        channels: number of channels of the last axis.
        dead: channels that are 0 in all samples.
        constant: channels of another constant.
        exploding: channels that reach far beyond the others.
        histogram: counts of what calibration saw between `histogram_ends`; empty without.
        histogram_ends: of the counts.
    """

    tensor: str
    layer: str
    op: str
    owner: str
    type_name: str
    own_db: float
    inherited_db: float
    total_db: float
    cosine: float
    noise: Mapping[str, float]
    low: float
    high: float
    grid_low: float
    grid_high: float
    clipped: float
    step: float
    switch: Switch
    channels: int
    dead: tuple[int, ...] = ()
    constant: tuple[int, ...] = ()
    exploding: tuple[int, ...] = ()
    histogram: tuple[int, ...] = ()
    histogram_ends: tuple[float, float] = (0.0, 0.0)

    def __repr__(self) -> str:
        own, total = f"own {self.own_db:.1f} dB", f"whole {self.total_db:.1f} dB"
        return brief(f"TensorDiagnosis {self.tensor!r}", self.type_name, own, total)


@dataclass(frozen=True, eq=False)
class WeightDiagnosis:
    """The weights of one layer.

    Args:
        layer: its name.
        op: operation.
        type_name: of the kernel's grid: `"int8"`.
        per_channel: whether each output channel has a scale.
        sqnr_db: of the kernel on its grid.
        noise: `"weight rounding"` and `"weight clipping"` -> power of that error of the kernel,
            over the signal's.
        low: smallest weight of each output channel.
        high: greatest.
        equalized_low: the same after `equalize`; None if that cannot be done.
        equalized_high: greatest of each channel, after `equalize`.
        unevenness: the largest channel's weights over the median channel's.
        steps: of the grid that the median channel reaches, on the wider side of zero.
        floored: channels whose scale was raised so that the bias fits.
        accumulator: largest sum of products seen on the data, in integers; 0 if it sums none.
        accumulator_bound: largest sum that any input can lead to.
        accumulator_limit: largest that the kernel can hold.
        switch: of the weights and bias together.
    """

    layer: str
    op: str
    type_name: str
    per_channel: bool
    sqnr_db: float
    noise: Mapping[str, float]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    equalized_low: NDArray[np.float32] | None
    equalized_high: NDArray[np.float32] | None
    unevenness: float
    steps: float
    floored: int
    accumulator: float
    accumulator_bound: float
    accumulator_limit: float
    switch: Switch

    def __repr__(self) -> str:
        scales = "a scale per channel" if self.per_channel else "one scale"
        close = f"{self.sqnr_db:.1f} dB"
        return brief(f"WeightDiagnosis {self.layer!r}", self.type_name, scales, close)


@dataclass(frozen=True)
class FloatLayer:
    """A layer that computes in float.

    Args:
        layer: its name.
        op: operation.
        why: reason.
        macs: multiply-accumulates for one sample; None if a size is not known.
    """

    layer: str
    op: str
    why: str
    macs: int | None


@dataclass(frozen=True)
class GraphLayer:
    """A layer in the picture of the network.

    Args:
        layer: its name.
        op: operation.
        reads: names of the layers it reads.
        tensors: quantized tensors it makes.
        macs: multiply-accumulates for one sample; 0 if unknown.
    """

    layer: str
    op: str
    reads: tuple[str, ...]
    tensors: tuple[str, ...]
    macs: int
