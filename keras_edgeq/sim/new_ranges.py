"""Give grids of a sim in training new ranges, at the bits they have or at others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.numerics.affine import grid_from_range
from keras_edgeq.sim.calibrate import Observer, collect
from keras_edgeq.sim.data import Batch
from keras_edgeq.sim.derive import derive, derive_weights, raise_scales
from keras_edgeq.sim.freeze import all_quantizers
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.stats import CalibrationStats
from keras_edgeq.spec.encoding import Encoding


def own_bits(sim: QuantSim) -> dict[str, int]:
    """Return the bits that the plan gives every integer grid, by printed name."""
    quantizers = all_quantizers(sim)
    specs = {str(ref): spec for ref, spec in sim.record.plan.specs.items()}
    return {name: spec.bits for name, spec in specs.items() if _is_integer(quantizers, name)}


def present_bits(sim: QuantSim) -> dict[str, int]:
    """Return the bits that every integer grid has now, by printed name.

    Raises:
        CalibrationDataError: grids were never calibrated; they are named.
    """
    quantizers = all_quantizers(sim)
    grids = {n: q.encoding for n, q in quantizers.items() if _is_integer(quantizers, n)}
    empty = sorted(name for name, grid in grids.items() if grid is None)
    if empty:
        raise CalibrationDataError(f"{empty[:20]} have no grid; calibrate the sim first.")
    return {name: grid.spec.bits for name, grid in grids.items() if grid is not None}


def change_bits(sim: QuantSim, bits: Mapping[str, int]) -> None:
    """Give grids other bits and ranges that suit them; without data, and without retracing.

    Weights get their range from their present values, activations from `sim.stats`, each by its
    rule; a learned range keeps what it covers.

    Args:
        sim: a calibrated sim; it is changed.
        bits: printed name -> bits.

    Raises:
        CalibrationDataError: an activation is among them, and the statistics do not cover it.
    """
    quantizers, activations = all_quantizers(sim), sim.quantizers()
    learned = _learned(sim) & bits.keys()
    static = bits.keys() - learned
    stats = sim.stats
    if stats is None and static & activations.keys():
        raise CalibrationDataError(
            f"Sim {sim.name!r} has no calibration statistics to give activations other bits; load "
            "it with keras_edgeq.load_sim, beside its .stats.npz file, or quantize the model again."
        )
    for name in learned:
        encoding = quantizers[name].encoding
        assert encoding is not None  # learning started from a grid
        quantizers[name].assign(_rescaled(encoding, bits[name]))
    if stats is not None and static & activations.keys():
        derive(sim, stats, static, bits, _learned(sim))
    else:
        derive_weights(sim, static, bits)
        raise_scales(sim, static, _learned(sim))


def recalibrate(
    sim: QuantSim, source: Iterable[Batch], observer: Observer | None = None
) -> CalibrationStats:
    """Derive every range again that is neither frozen nor trained, at the bits it has.

    Args:
        sim: a calibrated sim; its grids are changed, its statistics are not.
        source: calibration batches in the order of the model's inputs.
        observer: `observer_of(sim)`, which saves its tracing.

    Returns:
        The statistics that the activations were derived from.
    """
    learned = _learned(sim)
    static = all_quantizers(sim).keys() - learned
    return derive(
        sim,
        lambda: collect(sim, source, progress=False, observer=observer),
        static,
        present_bits(sim),
        learned,
    )


def _is_integer(quantizers: Mapping, name: str) -> bool:
    return name in quantizers and not quantizers[name].spec.is_half


def _learned(sim: QuantSim) -> set[str]:
    """Return the names of the grids that training changes, and nothing else does."""
    return {
        name for name, quantizer in all_quantizers(sim).items() if quantizer.learned is not None
    }


def _rescaled(encoding: Encoding, bits: int) -> Encoding:
    """Return a grid of other bits over the same range."""
    spec = replace(encoding.spec, bits=bits)
    if spec.block_size:
        made = replace(encoding, spec=spec)
        return replace(made, scale=encoding.scale * (encoding.bounds[1] / made.bounds[1]))
    low, high = encoding.min, encoding.max
    if spec.symmetric and spec.signed:
        low = -high  # the most negative integer lies outside the range
    scale, zero_point = grid_from_range(
        low,
        high,
        bits=bits,
        symmetric=spec.symmetric,
        signed=bool(spec.signed),
        narrow_range=spec.narrow_range,
    )
    return Encoding(spec, scale, zero_point)
