"""One kind of error for files that cannot be written, whatever library writes them."""

from __future__ import annotations

import re
from contextlib import contextmanager

import tensorflow as tf


@contextmanager
def os_errors():
    """Let TensorFlow and HDF5 raise what others do where a file cannot be written: OSError."""
    try:
        yield
    except (tf.errors.OpError, RuntimeError) as error:  # HDF5 raises RuntimeError when it closes
        if isinstance(error, NotImplementedError):
            raise
        text = re.sub(r"\{\{.*?\}\} *| \[Op:.*", "", str(error)).partition("\n")[0]
        raise OSError(text or type(error).__name__) from error
