"""What targets want, as files and as `TargetProfile`; configurations of AIMET are read, too."""

from keras_edgeq.profiles.load import load_profile, profile_names
from keras_edgeq.profiles.target_profile import TargetProfile

__all__ = ["TargetProfile", "load_profile", "profile_names"]
