"""`BitWidthSchedule`: more bits at first, the plan's own at the end."""

from __future__ import annotations

from collections.abc import Mapping

import tf_keras

from keras_edgeq.callbacks.sim_of import sim_of
from keras_edgeq.errors import CalibrationDataError, ProfileError, warn
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.plan.quant_plan import KINDS
from keras_edgeq.sim.new_ranges import change_bits, own_bits, present_bits

Bits = int | Mapping[str, int | None] | None


class BitWidthSchedule(tf_keras.callbacks.Callback):
    """Trains with more bits first and comes down to those of the plan.

    At the start of an epoch that the schedule names, grids get other integers and a range that
    suits them: weights from their present values, activations from `sim.stats`, by their rules;
    learned ranges keep what they cover. Bits are variables: nothing is traced again. No grid gets
    fewer bits than the plan gives it; half precision and grids that are frozen when `fit` starts
    keep theirs.

    It acts only where the present bits are not those that the epoch wants. So it works with
    `BackupAndRestore` in any order, and weights that `EarlyStopping` brings back may have more bits
    than the plan: let it watch from the last change on, with `start_from_epoch`.

    Args:
        schedule: epoch, counted from 0, -> bits of all tensors, or `{"weights": bits,
            "activations": bits}`. None, or leaving out a kind, means the plan's own bits. An epoch
            in between has the bits of the last one named before it; before the first one named,
            bits stay as they are.

    Raises:
        ValueError: a schedule that is empty or names an epoch below 0.
        ProfileError: bits that are not a number from 2 to 16, or an unknown kind.
        UnsupportedModelError: when `fit` starts, the model is not a sim.
        CalibrationDataError: when `fit` starts, grids were never calibrated, or there are no
            statistics to give activations other bits.

    Warns:
        UserWarning: when `fit` ends, the sim has other bits than its plan.

    Example:
        >>> schedule = eq.callbacks.BitWidthSchedule({0: 8, 1: {"weights": 6}, 2: None})
        >>> history = sim.fit(x, y, epochs=3, callbacks=[schedule], verbose=0)
    """

    def __init__(self, schedule: Mapping[int, Bits]):
        super().__init__()
        if not schedule or min(schedule) < 0:
            raise ValueError(f"schedule is {schedule}; it maps epochs from 0 on to bits.")
        self.schedule = {epoch: _by_kind(schedule[epoch]) for epoch in sorted(schedule)}
        self._own: dict[str, int] = {}

    def on_train_begin(self, logs=None):
        del logs
        sim = sim_of(self)
        frozen, activations = sim.record.frozen, sim.quantizers()
        present_bits(sim)
        self._own = {name: bits for name, bits in own_bits(sim).items() if name not in frozen}
        wider = any(
            asked["activations"] > self._own[name] and activations[name].learned is None
            for asked in self.schedule.values()
            for name in self._own.keys() & activations.keys()
        )
        if wider and sim.stats is None:
            raise CalibrationDataError(
                f"Sim {sim.name!r} has no calibration statistics to give activations other bits; "
                "load it with keras_edgeq.load_sim, beside its .stats.npz file, quantize the model "
                'again, or schedule {"weights": ...} only.'
            )

    def on_epoch_begin(self, epoch, logs=None):
        del logs
        passed = [start for start in self.schedule if start <= epoch]
        if not passed:
            return
        sim, asked = sim_of(self), self.schedule[passed[-1]]
        now, activations = present_bits(sim), sim.quantizers()
        wanted = {
            name: max(own, asked["activations" if name in activations else "weights"])
            for name, own in self._own.items()
        }
        changed = {name: bits for name, bits in wanted.items() if bits != now[name]}
        if changed:
            change_bits(sim, changed)

    def on_train_end(self, logs=None):
        del logs
        now = present_bits(sim_of(self))
        other = sorted(name for name, bits in self._own.items() if now[name] != bits)
        if other:
            warn(
                f"Training ended with other bits than the plan's in {', '.join(other[:5])}"
                f"{' and others' if len(other) > 5 else ''}. Let the schedule end with None, and "
                "EarlyStopping watch from there on (start_from_epoch).",
                UserWarning,
            )


def _by_kind(bits: Bits) -> dict[str, int]:
    """Return the bits that are asked for of each kind of tensor, 0 for the plan's own."""
    given = dict(bits) if isinstance(bits, Mapping) else dict.fromkeys(KINDS, bits)
    unknown = sorted(given.keys() - set(KINDS))
    if unknown:
        raise ProfileError(
            f"Bits are given for {unknown}; the kinds are {', '.join(KINDS)}."
            + did_you_mean(unknown[0], KINDS)
        )
    wrong = [b for b in given.values() if b is not None and not (type(b) is int and 2 <= b <= 16)]
    if wrong:
        raise ProfileError(f"bits is {wrong[0]}; integer grids have 2 to 16 bits, or None.")
    return {kind: given.get(kind) or 0 for kind in KINDS}
