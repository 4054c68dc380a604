"""Profiles by name or from files."""

from __future__ import annotations

from pathlib import Path

from keras_edgeq.errors import ProfileError
from keras_edgeq.files import read_json
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.profiles.aimet_config import is_aimet_config, read_aimet_config
from keras_edgeq.profiles.extends import MAX_FILE_BYTES, built_in, packaged, whole
from keras_edgeq.profiles.target_profile import ANY, TargetProfile, schema
from keras_edgeq.profiles.typos import warn_of_typos


def profile_names() -> list[str]:
    """Return the names of the built-in profiles.

    Example:
        >>> "litert_int8" in eq.profile_names()
        True
    """
    return built_in()


def load_profile(profile: str | Path | TargetProfile) -> TargetProfile:
    """Return a profile by its built-in name, from a JSON file, or as given.

    The file holds a profile, the differences from another one (`"extends"`: a built-in name, or a
    file beside it), or a configuration of AIMET (`default_config.json`, those of Hexagon).

    Raises:
        ProfileError: no such name or file, or the file is not a valid profile.

    Warns:
        QuantizationWarning: the file names an operation that does not exist, but is near one that
            does.

    Example:
        >>> eq.load_profile("litert_int8").precision_names
        ('W8A8', 'W4A8', 'W8A16', 'W4A16', 'W8', 'W4', 'FP16', 'FP32')
    """
    if isinstance(profile, TargetProfile):
        return profile
    if str(profile) in profile_names():
        data = whole(packaged(f"{profile}.json"), str(profile))
        return TargetProfile.of_valid(data)  # the tests validate those
    path = Path(profile)
    if path.suffix != ".json":
        raise ProfileError(
            f"Unknown profile {str(profile)!r}. Built in: {', '.join(profile_names())}; "
            "or give the path of a profile's .json file." + did_you_mean(profile, profile_names())
        )
    if not path.exists():
        raise ProfileError(
            f"No such profile file: {path}." + did_you_mean(path.stem, profile_names())
        )
    data = read_json(path, MAX_FILE_BYTES, ProfileError)
    if is_aimet_config(data):
        return TargetProfile.from_json(read_aimet_config(data, path.stem, str(path)), str(path))
    made = TargetProfile.from_json(whole(data, str(path), path.parent), str(path))
    warn_of_typos(made, [*schema()["$defs"]["operation"]["examples"], ANY], str(path))
    return made
