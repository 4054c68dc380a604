"""Findings about weights and activations that are rounded and clipped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from keras_edgeq.diagnose.causes import (
    BIAS,
    CLIPPING,
    ROUNDING,
    SHARED_GRID,
    WEIGHT_CLIPPING,
)
from keras_edgeq.diagnose.choices import Choices
from keras_edgeq.diagnose.finding import Finding
from keras_edgeq.diagnose.remedy import Remedy
from keras_edgeq.diagnose.rows import TensorDiagnosis, WeightDiagnosis
from keras_edgeq.diagnose.seen import Seen

# Noise at the outputs below this share of it is not worth a word.
LEAST_SHARE = 0.02
# And from this on it is the main cause of it.
MAIN_SHARE = 0.25
# Of one grid's range that a tensor on it reaches: two bits and more are lost to the others.
NARROW = 1 / 6
UNEVEN = 8.0
FEW_STEPS = 4.0


def fault_db(type_name: str) -> float:
    """Return the SQNR below which a tensor loses more than its bits explain.

    Rounding to `b` bits leaves about 6.02 b dB less what the shape of the distribution takes; 24 dB
    at 8 bits is a grid of which a tensor uses a sixteenth.
    """
    bits = int("".join(filter(str.isdigit, type_name)) or 32)
    return 6.02 * bits - 24.0


def _is_fault(own_db: float, type_name: str, share: float, base_db: float) -> bool:
    """Tell whether more is lost than bits explain: by itself, or as the main cause of a bad sim."""
    least = fault_db(type_name)
    return own_db < least or (base_db < least and share >= MAIN_SHARE)


def weight_findings(seen: Seen, base_db: float) -> Iterable[Finding]:
    """Yield a finding per layer whose weights cost accuracy, in the order of the graph.

    Args:
        seen: what was measured.
        base_db: SQNR of the sim's outputs.
    """
    for one in seen.weights:
        share, gain = one.switch.share, one.switch.without_db - base_db
        cause = max(one.noise, key=lambda name: one.noise[name])
        fault = _is_fault(one.sqnr_db, one.type_name, share, base_db)
        if one.floored and fault:
            cause = BIAS
        if not (share >= LEAST_SHARE or (fault and share != share)):
            continue
        yield Finding(
            layer=one.layer,
            tensor=f"{one.layer}/kernel",
            cause=cause,
            evidence=_weight_evidence(one, cause),
            share=share,
            possible_db=gain,
            is_fault=fault,
            remedies=_weight_remedies(seen.choices, one, cause),
        )


def _weight_evidence(one: WeightDiagnosis, cause: str) -> str:
    most = np.maximum(np.abs(one.low), np.abs(one.high))
    told = [f"Its {one.type_name} weights keep {one.sqnr_db:.1f} dB"]
    if cause == BIAS:
        told.append(
            f"the scale of {one.floored} of {most.size} channels was raised so that the integer "
            "bias fits"
        )
    elif cause == WEIGHT_CLIPPING:
        told.append(f"they reach {np.max(most):.3g}, beyond the end of their grid")
    elif not one.per_channel and one.unevenness > UNEVEN:
        told.append(
            f"the largest of its {most.size} channels reaches {one.unevenness:.3g} times as far as "
            f"the median one, on one scale, which leaves that {one.steps:.1f} steps"
        )
    elif one.steps < FEW_STEPS:
        told.append(f"single weights leave the median channel {one.steps:.1f} steps")
    return "; ".join(told) + "."


def _weight_remedies(choices: Choices, one: WeightDiagnosis, cause: str) -> tuple[Remedy, ...]:
    made: list[Remedy] = []
    if cause == WEIGHT_CLIPPING:
        made += [Remedy("calibrate"), *choices.rules(f"{one.layer}/kernel", ("minmax",))]
    elif cause == BIAS:
        made += [Remedy("absorb_bias"), *choices.narrower(one.layer)]
    else:
        made += choices.rules(f"{one.layer}/kernel", ("mse",))
        if not one.per_channel and one.unevenness > UNEVEN / 2:
            made += [Remedy("equalize"), *choices.per_channel(one.op)]
    if choices.is_rounded(one.layer):
        return (*made, *choices.more_weight_bits(one.layer))
    return (
        *made, Remedy("correct_bias"), Remedy("gptq"), *choices.more_weight_bits(one.layer),
    )  # fmt: skip


def activation_findings(seen: Seen, base_db: float) -> Iterable[Finding]:
    """Yield a finding per grid of activations that costs accuracy, in the order of the graph.

    Args:
        seen: what was measured.
        base_db: SQNR of the sim's outputs.
    """
    owners: dict[str, list[TensorDiagnosis]] = {}
    for one in seen.tensors:
        owners.setdefault(one.owner, []).append(one)
    for owner, ones in owners.items():
        switch = ones[0].switch
        worst = max(ones, key=lambda one: one.noise[ROUNDING] + one.noise[CLIPPING])
        cause = max((ROUNDING, CLIPPING), key=lambda name: worst.noise[name])
        own_db = -10.0 * math.log10(max(worst.noise[ROUNDING] + worst.noise[CLIPPING], 1e-30))
        share, gain = switch.share, switch.without_db - base_db
        fault = _is_fault(own_db, worst.type_name, share, base_db)
        if not (share >= LEAST_SHARE or (fault and share != share)):
            continue
        narrow = _narrow(ones)
        joined = seen.choices.concat(owner) if narrow is not None else None
        if narrow is not None and fault:
            worst, cause = narrow, SHARED_GRID
        yield Finding(
            layer=worst.layer,
            tensor=worst.tensor,
            cause=cause,
            evidence=_activation_evidence(worst, ones, own_db),
            share=share,
            possible_db=gain,
            is_fault=fault,
            remedies=_activation_remedies(seen.choices, worst, cause, joined),
        )


def _narrow(ones: Sequence[TensorDiagnosis]) -> TensorDiagnosis | None:
    """Return the tensor that reaches least of a grid it shares, None if all reach far enough."""
    least = min(ones, key=_reach)
    return least if len(ones) > 1 and _reach(least) < NARROW else None


def _reach(one: TensorDiagnosis) -> float:
    return (one.high - one.low) / max(one.grid_high - one.grid_low, 1e-30)


def _activation_evidence(
    one: TensorDiagnosis, ones: Sequence[TensorDiagnosis], own_db: float
) -> str:
    told = [f"On its {one.type_name} grid, {one.grid_low:.4g} to {one.grid_high:.4g}"]
    told[0] += f", it keeps {own_db:.1f} dB"
    if len(ones) > 1 and _reach(one) < NARROW:
        told.append(
            f"it reaches {one.low:.4g} to {one.high:.4g}, and shares the grid of {one.owner!r} "
            f"with {len(ones) - 1} more"
        )
    if one.clipped > 0.0:
        told.append(
            f"{100 * one.clipped:.3g} % are clipped, up to {one.high:.4g} and down to {one.low:.4g}"
        )
    if one.exploding:
        some = ", ".join(map(str, one.exploding[:6]))
        many = len(one.exploding) > 1
        told.append(
            f"channel{'s' if many else ''} {some} of {one.channels} "
            f"reach{'' if many else 'es'} far beyond the others"
        )
    return "; ".join(told) + "."


def _activation_remedies(
    choices: Choices, one: TensorDiagnosis, cause: str, joined: str | None
) -> tuple[Remedy, ...]:
    made: list[Remedy] = []
    if cause == SHARED_GRID and joined is not None:
        made += [Remedy("equalize"), *choices.more_activation_bits(joined)]
    elif cause == CLIPPING:
        made += [Remedy("calibrate"), *choices.rules(one.owner, ("minmax",))]
    else:
        made += choices.rules(one.owner, ("mse", "entropy", "percentile"))
        if one.exploding:
            made.append(Remedy("equalize"))
    return (*made, *choices.more_activation_bits(one.layer))
