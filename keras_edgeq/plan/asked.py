"""What users ask for with `precision=`, in one form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from keras_edgeq.errors import ProfileError, warn
from keras_edgeq.plan.kernel import Kernel, names_layer
from keras_edgeq.profiles.precision import ALL, Precision
from keras_edgeq.profiles.target_profile import TargetProfile

Asked: TypeAlias = str | Precision | Mapping[str, str | Precision] | None


def by_layer(asked: Asked, profile: TargetProfile) -> dict[str, str]:
    """Return glob over layer names -> name of a precision.

    Args:
        asked: that; a precision by name or itself, for all layers that have a kernel of it; or
            None, for nothing.
        profile: the target.

    Raises:
        ProfileError: something else was given, or a precision that the target does not have.
    """
    if asked is None:
        return {}
    if isinstance(asked, str | Precision):
        asked = {ALL: asked}
    if not isinstance(asked, Mapping) or not all(isinstance(glob, str) for glob in asked):
        raise ProfileError(
            f"precision is {asked!r}; it must be a name such as 'W4A8', for all layers that "
            "can have it, or names by layer, {'conv_pw_*': 'W4A8'}."
        )
    return {glob: _name(one, profile) for glob, one in asked.items()}


def _name(one: Any, profile: TargetProfile) -> str:
    if not isinstance(one, str | Precision):
        raise ProfileError(
            f"{one!r} is not a precision; {profile.name!r} has {', '.join(profile.names)}."
        )
    name = one if isinstance(one, str) else one.name
    profile.of_kind(name, None)  # raises where there is none
    if isinstance(one, Precision) and one != profile.precision(name):
        raise ProfileError(
            f"Profile {profile.name!r} has another {name!r} than the one given; give its name, or "
            "a profile with that precision."
        )
    return name


def warn_of_others(
    asked: Mapping[str, str], kernels: Mapping[str, Kernel], profile: TargetProfile
) -> None:
    """Warn of layers with weights for which the target lacks what was asked for all."""
    if ALL not in asked:
        return
    wanted = profile.of_kind(asked[ALL], None)
    others = {name: asked[name] for name in asked if name != ALL}
    kept = [
        f"{layer} ({kernel.op}, {kernel.precision})"
        for layer, kernel in kernels.items()
        if kernel.has_weights
        and wanted not in kernel.allowed
        and not any(names_layer(layer, glob) for glob in others)
    ]
    if kept:
        more = f" and {len(kept) - 10} more" if len(kept) > 10 else ""
        warn(
            f"There is no {wanted} kernel for {', '.join(kept[:10])}{more}; they keep their "
            "own precision. Name them to have another one.",
            UserWarning,
        )
