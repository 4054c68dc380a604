"""Which formats an export writes."""

from __future__ import annotations

from collections.abc import Sequence

from keras_edgeq.errors import ExportError
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.profiles.target_profile import TargetProfile


def checked_formats(formats: Sequence[str] | None, profile: TargetProfile) -> Sequence[str]:
    """Return the formats to write, all of the profile's for None.

    Raises:
        ExportError: one that the profile does not have.
    """
    if formats is None:
        return profile.formats
    wanted = [formats] if isinstance(formats, str) else list(formats)
    unknown = [kind for kind in wanted if kind not in profile.formats]
    if unknown or not wanted:
        hint = did_you_mean(unknown[0], profile.formats) if unknown else ""
        raise ExportError(
            f"Formats {unknown} are not written for profile {profile.name!r}; "
            f"it has {', '.join(profile.formats)}.{hint}"
        )
    return list(dict.fromkeys(wanted))
