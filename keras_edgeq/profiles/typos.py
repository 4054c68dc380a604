"""Names in a profile that are nearly those of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_edgeq.errors import QuantizationWarning, warn
from keras_edgeq.nearest import did_you_mean

if TYPE_CHECKING:
    from keras_edgeq.profiles.target_profile import TargetProfile


def warn_of_typos(profile: TargetProfile, known: Sequence[str], where: str) -> None:
    """Warn of names that are nearly those of operations: they would be rules for nothing.

    A name that is like none is that of a layer of the user's, or of an operation that stays float.
    """
    lists = (profile.per_channel, profile.quantized, profile.same_grid, *profile.fused)
    keyed = (profile.regrid, profile.fixed_ranges, profile.ops)
    named = {name for names in (*lists, *keyed) for name in names}
    for name in sorted(named - set(known)):
        hint = "" if name.startswith("tf.") else did_you_mean(name, known)
        if hint:
            warn(
                f"In {where}: {name!r} is not an operation of keras_edgeq; its settings hold only "
                f"for layers of a class of that name.{hint}",
                QuantizationWarning,
            )
