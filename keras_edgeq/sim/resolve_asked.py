"""Resolve what a plan asks for: other kernels for some layers, and the quantizers they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import tf_keras

from keras_edgeq.errors import ProfileError, warn
from keras_edgeq.plan.kernel import Kernel, parents_first
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.resolve import resolve
from keras_edgeq.spec.quant_spec import QuantSpec


def settle(
    plan: QuantPlan,
    model: tf_keras.Model,
    profile: TargetProfile,
    rules: Mapping[str, Any] | None = None,
) -> QuantPlan:
    """Return a plan with what `with_bits` asked for resolved; a plan that asks nothing as it is.

    Layers that were not named keep their precision, except those that only move or regrid integers:
    they follow what they read, unless they were named before, and a warning names them. What the
    given plan says otherwise than the profile would (range rules, exchanged grids) stays where the
    profile gives a tensor the same grid as before; where it does not, the range rule stays.

    Args:
        plan: of this model and this profile.
        model: prepared.
        profile: the target.
        rules: range rules of tensors that become quantized again.

    Raises:
        ProfileError: the plan is that of another model or profile.
    """
    if not plan.asked:
        return plan
    before = {layer: kernel.precision for layer, kernel in plan.kernels.items()}
    try:
        # Those that move integers follow, unless they were asked for what following does not give.
        natural = resolve(model, profile, parents_first(before), _movers(plan, profile))
        _check_kernels(plan, natural, profile)
        followers = {name for name, k in natural.kernels.items() if k.precision == before[name]}
        followers &= _movers(plan, profile)
        old = resolve(model, profile, parents_first(before), followers)
    except ProfileError as error:
        raise ProfileError(f"The plan is that of another model or profile: {error}") from error
    asked = parents_first({**before, **plan.asked})
    new = resolve(model, profile, asked, followers - set(plan.asked))
    _warn(plan, new)
    return _merged(plan, old.with_rules(rules or {}), new.with_rules(rules or {}))


def _movers(plan: QuantPlan, profile: TargetProfile) -> set[str]:
    """Return the layers that only move or regrid integers."""
    kinds = profile.same_grid | set(profile.regrid)
    return {name for name, kernel in plan.kernels.items() if kernel.op in kinds}


def _check_kernels(plan: QuantPlan, own: QuantPlan, profile: TargetProfile) -> None:
    """Raise unless a plan's kernels are those a profile has for the model."""

    def kinds(kernels: Mapping[str, Kernel]) -> dict[str, tuple]:
        return {name: (k.op, tuple(k.allowed.items())) for name, k in kernels.items()}

    mine, theirs = kinds(own.kernels), kinds(plan.kernels)
    differ = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
    if differ:
        raise ProfileError(
            f"The plan is that of another model, or of another profile than {profile.name!r}: "
            f"{', '.join(differ[:10])} have other kernels."
        )


def _merged(plan: QuantPlan, old: QuantPlan, new: QuantPlan) -> QuantPlan:
    """Carry over what a plan says otherwise than `old`, which is the profile's own."""
    specs: dict = {}
    for ref, spec in new.specs.items():
        mine, plain = plan.specs.get(ref), old.specs.get(ref)
        if mine is not None and plain is not None and mine != plain:
            specs[ref] = mine if plain == spec else _with_rule(spec, mine)
    return new.replace(specs)


def _with_rule(spec: QuantSpec, other: QuantSpec) -> QuantSpec:
    if spec.rule == "derived" or other.rule == "derived":
        return spec
    return replace(spec, rule=other.rule, percentile=other.percentile)


def _warn(plan: QuantPlan, new: QuantPlan) -> None:
    """Tell which layers get other activations unasked."""
    follow = []
    for layer, kernel in new.kernels.items():
        before = plan.kernels[layer].precision
        moved = kernel.allowed[before][1] != kernel.allowed[kernel.precision][1]
        if moved and layer not in plan.asked:
            follow.append(f"{layer} ({kernel.precision})")
    if follow:
        warn(
            f"{', '.join(follow)} follow their neighbours and change with them. QuantPlan.diff "
            "lists the tensors.",
            UserWarning,
        )
