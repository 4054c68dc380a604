"""What stands out in the rows of a diagnosis, and what may help: one `Finding` per cause."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from keras_edgeq.diagnose.causes import (
    CALIBRATION,
    CLIPPING,
    DEAD,
    IN_FLOAT,
    KERNEL,
    OVERFLOW,
    RUNTIME,
)
from keras_edgeq.diagnose.finding import Finding
from keras_edgeq.diagnose.remedy import Remedy
from keras_edgeq.diagnose.rounding import (
    LEAST_SHARE,
    MAIN_SHARE,
    activation_findings,
    weight_findings,
)
from keras_edgeq.diagnose.rows import FloatLayer
from keras_edgeq.diagnose.seen import Seen
from keras_edgeq.ops.plain import INPUT
from keras_edgeq.runtime.run_report import VERDICTS, RunReport

MOST_FINDINGS = 20
# Outputs of which so little is left are noise: shares of single causes say little.
DESTROYED_DB = 6.0
# Channels of one tensor, beyond which it is more than a few that a small sample leaves silent.
DEAD_SHARE = 0.25
# Ranges on the data over those of the calibration: a few samples more never reach twice as far.
BEYOND = 1.25


def find(seen: Seen, base_db: float) -> tuple[Finding, ...]:
    """Return the findings, faults first, the costliest first.

    Of the main causes of outputs that are mere noise, the first in the graph comes first.

    Args:
        seen: what was measured.
        base_db: SQNR of the sim's outputs.
    """
    calibration = tuple(_calibration(seen))
    explained = {CLIPPING} if calibration else set()
    found = [
        *calibration,
        *_overflows(seen),
        *_runs(seen.runs),
        *_dead(seen),
        *_floats(seen),
        *weight_findings(seen, base_db),
        *(one for one in activation_findings(seen, base_db) if one.cause not in explained),
    ]
    places = {one.layer: place for place, one in enumerate(seen.graph)}

    def order(one: Finding) -> tuple[bool, float, int, float]:
        share = 1.0 if one.cause in (OVERFLOW, RUNTIME) else one.share
        share = 0.0 if share != share else share
        main = one.is_fault and base_db < DESTROYED_DB and share >= MAIN_SHARE
        # What comes first in the graph has destroyed what the rest was calibrated on.
        cost = 1.0 if main else share
        return (not one.is_fault, -cost, places.get(one.layer, 0) if main else 0, -share)

    found.sort(key=order)
    return tuple(found[:MOST_FINDINGS])


def _calibration(seen: Seen) -> Iterable[Finding]:
    """Yield a finding if the data reaches further than what the ranges come from."""
    over = {name: ratio for name, ratio in seen.beyond.items() if ratio > BEYOND}
    clipped = [one for one in seen.tensors if one.tensor in over and one.clipped > 0.0]
    share, gain = seen.clipping
    inputs = [one for one in clipped if one.op == INPUT.name]
    if not clipped or not (inputs or len(clipped) >= max(2, len(seen.beyond) / 4)):
        return
    if share < LEAST_SHARE:
        return
    worst = (inputs or sorted(clipped, key=lambda one: -over[one.tensor]))[0]
    yield Finding(
        layer=worst.layer,
        tensor=worst.tensor,
        cause=CALIBRATION,
        evidence=(
            f"The data reaches {over[worst.tensor]:.1f} times as far as the calibration saw: "
            f"{worst.low:.4g} to {worst.high:.4g}, and its grid ends at {worst.grid_low:.4g} and "
            f"{worst.grid_high:.4g}. {len(clipped)} of {len(seen.tensors)} tensors are clipped so; "
            f"{100 * share:.0f} % of the noise at the outputs goes without clipping."
        ),
        share=share,
        possible_db=gain,
        is_fault=True,
        advice="Calibrate with data that covers the range, preprocessed as for the model.",
        remedies=(Remedy("calibrate"),),
    )


def _overflows(seen: Seen) -> Iterable[Finding]:
    for one in seen.weights:
        if one.accumulator > one.accumulator_limit:
            bits = math.log2(one.accumulator_limit + 1.0) + 1.0
            excess = math.log2(one.accumulator / one.accumulator_limit)
            yield Finding(
                layer=one.layer,
                tensor=f"{one.layer}/kernel",
                cause=OVERFLOW,
                evidence=(
                    f"Its sums reach {one.accumulator:,.0f}, and {bits:.0f} bits hold "
                    f"{one.accumulator_limit:,.0f}: the kernel overflows, which the sim does not."
                ),
                share=math.nan,
                possible_db=math.nan,
                is_fault=True,
                advice="Fewer bits of weights or activations, or smaller weights.",
                remedies=seen.choices.smaller_sums(one.layer, excess),
            )


def _runs(runs: Sequence[RunReport]) -> Iterable[Finding]:
    for run in runs:
        if run.verdict in ("same", "kernel"):
            continue
        step = run.first_difference
        cause = KERNEL if run.verdict == "amplified" else RUNTIME
        where = "" if step is None else step.tensor
        yield Finding(
            layer=where,
            tensor=where or run.artifact,
            cause=cause,
            evidence=f"{run}.",
            share=math.nan,
            possible_db=math.nan,
            is_fault=cause == RUNTIME,
            advice=f"{run.runtime}: {VERDICTS[run.verdict]}.",
        )


def _dead(seen: Seen) -> Iterable[Finding]:
    """Yield a finding per tensor that falls silent, not for those that read nothing else."""
    silent = {
        one.tensor: len(one.dead) + len(one.constant)
        for one in seen.tensors
        if one.op != INPUT.name
        and len(one.dead) + len(one.constant) >= DEAD_SHARE * one.channels > 0
    }
    whole = {one.layer for one in seen.tensors if silent.get(one.tensor) == one.channels}
    reads = {one.layer: one.reads for one in seen.graph}
    after: set[str] = set()
    for name in reads:  # in the order of the graph; layers without a grid hand on what they read
        read = reads[name]
        if read and all(other in whole or other in after for other in read):
            after.add(name)
    for one in seen.tensors:
        if one.tensor not in silent or one.layer in after:
            continue
        every = silent[one.tensor] == one.channels
        what = "the same" if one.constant else "0"
        yield Finding(
            layer=one.layer,
            tensor=one.tensor,
            cause=DEAD,
            evidence=(
                f"{'All' if every else f'{silent[one.tensor]} of its'} {one.channels} channels are "
                f"{what} in all samples, in the float model already."
            ),
            share=1.0 if every else math.nan,
            possible_db=math.nan,
            is_fault=every,
            advice=(
                "No quantization helps: look at the preprocessing of the data and at the training "
                "of this layer, or take the channels out."
            ),
        )


def _floats(seen: Seen) -> Iterable[Finding]:
    """Yield a finding per operation and reason that computes in float among integers."""
    total = sum(one.macs for one in seen.graph) or 1
    reads = {one.layer: one.reads for one in seen.graph}
    readers: dict[str, list[str]] = {}
    for name, others in reads.items():
        for other in others:
            readers.setdefault(other, []).append(name)
    floats = {one.layer for one in seen.floats}
    groups: dict[tuple[str, str], list[FloatLayer]] = {}
    for one in seen.floats:
        groups.setdefault((one.op, one.why), []).append(one)
    for (op, why), ones in groups.items():
        names = [one.layer for one in ones]
        inside = [
            n for n in names if set(reads.get(n, ())) - floats and set(readers.get(n, ())) - floats
        ]
        macs = sum(one.macs or 0 for one in ones)
        share = macs / total
        first = (inside or names)[0]
        many = f"{len(names)} layers ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        yield Finding(
            layer=first,
            tensor="",
            cause=IN_FLOAT,
            evidence=(
                f"{many if len(names) > 1 else op} compute{'' if len(names) > 1 else 's'} in float "
                f"({why}), {macs:,} multiply-accumulates, {100 * share:.1f} % of the model's."
            ),
            share=share,
            possible_db=math.nan,
            is_fault=bool(inside) or share > LEAST_SHARE,
            advice="It costs time and two conversions, not accuracy.",
            remedies=seen.choices.integer(first),
        )
