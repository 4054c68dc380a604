"""Freeze grids by name: what is frozen, no later calibration changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from keras_edgeq.errors import EncodingsError, ProfileError
from keras_edgeq.graph.rebuild import rebuild
from keras_edgeq.layers import FakeQuant
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.quant_spec import QuantSpec


def freeze_encodings(sim: QuantSim, *patterns: str) -> QuantSim:
    """Return a sim like `sim` in which the grids of some tensors no longer change.

    Later calibrations and `requantize` leave a frozen grid as it is. Grids that were frozen before
    stay frozen.

    Args:
        sim: a calibrated sim; it is not changed.
        patterns: names of tensors as `describe` prints them, `*` and `?` allowed:
            `"conv1/kernel"`, `"conv_pw_*"`. Activations and parameters alike.

    Raises:
        EncodingsError: a pattern names no tensor, or a tensor without a grid.

    Example:
        >>> sorted(eq.freeze_encodings(sim, "*/kernel").record.frozen)
        ['conv/kernel', 'head/kernel']
    """
    names = freezable(sim, patterns)
    copy = copy_sim(sim)
    copy.keep(frozen=sim.record.frozen | names)
    return copy


def freezable(sim: QuantSim, patterns: Iterable[str]) -> frozenset[str]:
    """Return the names of the tensors that patterns match, each with a grid.

    Raises:
        EncodingsError: a pattern names no tensor, or a tensor without a grid.
    """
    quantizers = all_quantizers(sim)
    names = matching(patterns, quantizers)
    empty = sorted(name for name in names if quantizers[name].encoding is None)
    if empty:
        raise EncodingsError(f"{empty[:20]} have no grid to freeze; calibrate the sim first.")
    return names


def keep_frozen(old: QuantSim, new: QuantSim) -> None:
    """Give a sim the frozen grids of another sim of the same model.

    Raises:
        ProfileError: a frozen tensor is quantized in another way there, or not at all.
    """
    known, own = all_quantizers(old), all_quantizers(new)
    bits = {}
    for name in sorted(old.record.frozen):
        quantizer, encoding = own.get(name), known[name].encoding
        if quantizer is None or encoding is None or not _alike(known[name].spec, quantizer.spec):
            raise ProfileError(
                f"{name!r} is frozen, and the request gives it another grid or none. Leave "
                "its layer out, or quantize the model again."
            )
        quantizer.assign(encoding)
        bits[name] = encoding.spec.bits
    specs = {ref: spec for ref, spec in new.record.plan.specs.items() if str(ref) in bits}
    changed = {ref: replace(spec, bits=bits[str(ref)]) for ref, spec in specs.items()}
    new.keep(frozen=old.record.frozen, plan=new.record.plan.replace(changed))


def _alike(one: QuantSpec, other: QuantSpec) -> bool:
    """Tell whether two specs ask for the same kind of grid, however its range is chosen."""
    rule = {"rule": one.rule, "percentile": one.percentile}
    return replace(other, **rule) == one


def matching(patterns: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """Return the names that patterns match.

    Raises:
        EncodingsError: a pattern matches none.
    """
    names, found = list(names), set()
    for pattern in patterns:
        own = {name for name in names if name == pattern or fnmatchcase(name, pattern)}
        if not own:
            raise EncodingsError(
                f"{pattern!r} matches none of the tensors {sorted(names)[:20]}."
                + did_you_mean(pattern, names)
            )
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
    return copy
