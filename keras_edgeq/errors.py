"""The errors a user can meet; each message says what was given, what is allowed and what to do."""


class EdgeqError(ValueError):
    """Base of every error that keras_edgeq raises on purpose."""


class UnsupportedModelError(EdgeqError):
    """The model is no built functional or Sequential `tf_keras` model, or its weights hold NaN."""


class CalibrationDataError(EdgeqError):
    """The data does not fit the model: wrong shape or names, NaN, or nothing at all."""


class ProfileError(EdgeqError):
    """A target profile is unknown, malformed or asks for something that is not there."""


class EncodingsError(EdgeqError):
    """An encodings file is malformed or does not match the sim."""


class ExportError(EdgeqError):
    """An artifact cannot be written; nothing was left behind."""


class TrainingError(EdgeqError):
    """A sim cannot be trained so: the data, the teacher or the loss does not allow it."""


class SearchError(EdgeqError):
    """A search cannot be done: no choice keeps the limits, or there are too many to try."""
