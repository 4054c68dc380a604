"""Slices written out: Keras saves no `...`, which a model that was never saved may hold."""

from __future__ import annotations

from typing import Any

import tf_keras

from keras_edgeq.graph.rebuild import Call, calls, rebuild

# Keras records a slice as a dictionary.
WHOLE = {"start": None, "stop": None, "step": None}


def write_out_ellipses(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with each `x[..., :3]` as `x[:, :, :, :3]`; the same model without any.

    Args:
        model: a functional model without models inside; it is not changed.
    """
    if not any(
        _has_ellipsis((call.node.call_args, call.node.call_kwargs)) for call in calls(model)
    ):
        return model
    return rebuild(model, on_call=_call)


def _call(_: Call, new: Any, args: tuple, kwargs: dict) -> Any:
    if not _has_ellipsis((args, kwargs)):
        return new(*args, **kwargs)
    tensor, spec = (*args, *kwargs.values())[:2]
    return new(tensor, _written_out(spec, tensor.shape.rank))


def _written_out(spec: Any, rank: int) -> tuple:
    """Return a slice specification with a whole slice for each axis that an ellipsis stands for."""
    entries = list(spec) if isinstance(spec, tuple | list) else [spec]
    named = sum(entry is not None and entry is not Ellipsis for entry in entries)
    place = next(i for i, entry in enumerate(entries) if entry is Ellipsis)
    entries[place : place + 1] = [dict(WHOLE) for _ in range(rank - named)]
    return tuple(entries)


def _has_ellipsis(arguments: Any) -> bool:
    """Tell whether an ellipsis is among nested arguments."""
    if isinstance(arguments, dict):
        return _has_ellipsis(tuple(arguments.values()))
    if isinstance(arguments, tuple | list):
        return any(map(_has_ellipsis, arguments))
    return arguments is Ellipsis
