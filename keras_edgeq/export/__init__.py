"""One sim, the same scales in every format."""
