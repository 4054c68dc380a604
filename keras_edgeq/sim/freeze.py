"""Freeze grids by name: what is frozen, no later calibration changes."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from keras_edgeq.errors import EncodingsError
from keras_edgeq.graph.rebuild import rebuild
from keras_edgeq.layers import FakeQuant
from keras_edgeq.sim.quant_sim import QuantSim


def freeze_encodings(sim: QuantSim, *patterns: str) -> QuantSim:
    """Return a sim like `sim` in which the grids of some tensors stay what they are.

    No later calibration changes a frozen grid, nor does `requantize`. What was frozen before stays
    frozen.

    Args:
        sim: a calibrated sim; it is not changed.
        patterns: names of tensors as `describe` prints them, `*` and `?` allowed:
            `"conv1/kernel"`, `"conv_pw_*"`. Activations and parameters alike.

    Raises:
        EncodingsError: a pattern names no tensor, or a tensor without a grid.
    """
    quantizers = all_quantizers(sim)
    names = matching(patterns, quantizers)
    empty = sorted(name for name in names if quantizers[name].encoding is None)
    if empty:
        raise EncodingsError(f"{empty[:20]} have no grid to freeze; calibrate the sim first.")
    copy = copy_sim(sim)
    copy.keep(frozen=sim.record.frozen | names)
    return copy


def matching(patterns: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """Return the names that patterns match.

    Raises:
        EncodingsError: a pattern matches none.
    """
    names, found = list(names), set()
    for pattern in patterns:
        own = {name for name in names if name == pattern or fnmatchcase(name, pattern)}
        if not own:
            raise EncodingsError(f"{pattern!r} matches none of the tensors {sorted(names)[:20]}.")
        found |= own
    return frozenset(found)


def all_quantizers(sim: QuantSim) -> dict[str, FakeQuant]:
    """Return the quantizers of activations and parameters by printed name."""
    params = {
        f"{layer.name}/{name}": quantizer
        for layer in sim.quantized_layers().values()
        for name, quantizer in layer.quantizers.items()
    }
    return {**params, **sim.quantizers()}


def copy_sim(sim: QuantSim) -> QuantSim:
    """Return a sim of its own variables with the same values, record and statistics."""
    copy = rebuild(sim, make=QuantSim)
    assert isinstance(copy, QuantSim)  # rebuild returns what `make` makes
    copy.attach(sim.record)
    copy.stats = sim.stats
    return copy
