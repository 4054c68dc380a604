"""Layers whose `call` TensorFlow traces as it is written."""

from __future__ import annotations

import inspect
from typing import Any

import tensorflow as tf


def as_written(call: Any) -> Any:
    """Let TensorFlow run the `call` of a layer as Python, which its source need not be read for.

    Keras still sees the arguments that it takes.
    """
    plain = tf.autograph.experimental.do_not_convert(call)
    plain.__signature__ = inspect.signature(call)
    return plain
