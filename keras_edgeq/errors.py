"""The errors a user can meet; each message says what was given, what is allowed and what to do."""

from __future__ import annotations

import re
import sys
import warnings

PACKAGE = "keras_edgeq"


class EdgeqError(ValueError):
    """Base of every error that keras_edgeq raises on purpose."""


class UnsupportedModelError(EdgeqError):
    """The model is not built, has code that cannot be followed, or has NaN weights."""


class CalibrationDataError(EdgeqError):
    """The data does not fit the model: wrong shape or names, NaN, or nothing at all."""


class ProfileError(EdgeqError):
    """A target profile is unknown, malformed or asks for something that is not there."""


class EncodingsError(EdgeqError):
    """An encodings file is malformed or does not match the sim."""


class SimMismatchError(EdgeqError):
    """A sim whose grids do not round would compute something else than the float model.

    Attributes:
        tensor: the first one that differs.
        wanted: a number of it in the float model.
        got: the same one in the sim.
    """

    def __init__(self, message: str, tensor: str, wanted: float, got: float):
        super().__init__(message)
        self.tensor, self.wanted, self.got = tensor, wanted, got


class RuntimeFailedError(EdgeqError):
    """A runtime ended, failed, or took too long or too much memory while it ran an artifact."""


class ExportError(EdgeqError):
    """An artifact cannot be written; nothing was left behind."""


class TrainingError(EdgeqError):
    """A sim cannot be trained in this way: the data, the teacher or the loss does not allow it."""


class SearchError(EdgeqError):
    """A search cannot be done: no choice keeps the limits, or there are too many to try."""


def first_words(error: BaseException, most: int = 300) -> str:
    """Return what an error of another library says, on one line and without colors."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error) or type(error).__name__)
    return " ".join(text.split())[:most]


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line that called the package, however deep inside it this is called."""
    level, frame = 1, sys._getframe(0)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


class QuantizationWarning(UserWarning):
    """A sim is correct but may be inaccurate: the message says what was lost, why, and what to do.

    An export that lacks a format is such a case, too. `sim.record.warnings` and the report of an
    export repeat the messages.
    """
