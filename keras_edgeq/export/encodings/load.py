"""Give a sim the grids of an encodings file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from keras_edgeq.export.encodings.grids import derived, key_of, quantizers
from keras_edgeq.export.encodings.names import check_names, matched
from keras_edgeq.export.encodings.read import read_entries
from keras_edgeq.sim.beside import Floats
from keras_edgeq.sim.freeze import copy_sim, matching
from keras_edgeq.sim.identity import check_identity
from keras_edgeq.sim.judge import judge
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.samples import few, samples_of
from keras_edgeq.sim.strip import stripped


def load_encodings(
    sim: QuantSim,
    path: str | Path,
    strict: bool = True,
    *,
    names: Mapping[str, str] | None = None,
    freeze: bool | str | Sequence[str] = False,
) -> QuantSim:
    """Return a sim like `sim` with the grids of an encodings file.

    Files of `export` and of AIMET are read, versions 0.4.0 to 2.1.0. A bias in the file is left
    out where the sim derives its grid from those of input and weight. A grid per block of weights
    is an error: those are only written.

    Args:
        sim: a sim of the same model and profile; it is not changed.
        path: the JSON file, tensors by the sim's names or by those of the Keras model
            (`conv/kernel:0`, `conv/Relu:0`).
        strict: a tensor that only one side knows is an error; otherwise unknown tensors of the
            file are ignored and missing ones keep what the sim has.
        names: name in the file -> name in the sim, for files with other names; tensors it does not
            hold go by their own names.
        freeze: True freezes every grid that the file gives. Names of the sim's tensors, `*` and `?`
            allowed, freeze only those. No later calibration changes a frozen grid.

    Raises:
        EncodingsError: the file cannot be read, is malformed, of an unknown version, or does not
            fit the sim; or `freeze` names no tensor of the file.

    Example:
        >>> report = eq.export(sim, "out", ["encodings"], progress=False)
        >>> same = eq.load_encodings(sim, report.files["encodings"], freeze="*/kernel")
    """
    path, own, biases = Path(path), quantizers(sim), derived(sim)
    version, entries = read_entries(path)
    found, unknown = matched(entries, own.keys() | biases, names)
    if strict:
        missing = own.keys() - found.keys()
        if version.startswith("2."):  # a float tensor has no entry
            missing = {key for key in missing if not own[key].spec.is_half}
        check_names(str(path), unknown, missing)
    grids = {key: entry.encoding(own[key]) for key, entry in found.items() if key not in biases}
    loaded = copy_sim(sim)
    for key, quantizer in quantizers(loaded).items():
        if key in grids:
            quantizer.assign(grids[key])
    plan = sim.record.plan
    changed = {
        ref: replace(spec, bits=grids[key].spec.bits)
        for ref, spec in plan.specs.items()
        if (key := key_of(ref)) in grids
    }
    fixed = {name for _, name in grids}
    if not isinstance(freeze, bool):
        fixed = matching([freeze] if isinstance(freeze, str) else freeze, fixed)
    frozen = sim.record.frozen | (fixed if freeze else frozenset())
    loaded.keep(plan=plan.replace(changed), frozen=frozen)
    check_identity(Floats(stripped(loaded), few(samples_of(loaded)[0], loaded)), loaded)
    judge(loaded)
    return loaded
